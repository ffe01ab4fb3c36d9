#include "vmm/memory/guest_memory.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "vmm/memory/layout.h"

namespace hull::vmm {
namespace {

using layout::kGapEnd;
using layout::kGapStart;
using layout::kMiB;

TEST(GuestMemory, ReadsBackWhatWasWritten) {
  GuestMemory memory(kMiB);
  EXPECT_TRUE(memory.write<uint64_t>(0x123, 0x1122334455667788));
  EXPECT_EQ(memory.read<uint64_t>(0x123), 0x1122334455667788u);
  EXPECT_EQ(memory.read<uint8_t>(0x124), 0x77);
}

TEST(GuestMemory, RefusesWhatIsOutside) {
  GuestMemory memory(kMiB);
  EXPECT_TRUE(memory.read<uint32_t>(kMiB - 4));
  EXPECT_FALSE(memory.read<uint32_t>(kMiB - 3));
  EXPECT_FALSE(memory.read<uint8_t>(kMiB));
  EXPECT_FALSE(memory.read<uint32_t>(UINT64_MAX));
  EXPECT_FALSE(memory.read<uint32_t>(UINT64_MAX - 1));  // wraps
  EXPECT_FALSE(memory.write<uint8_t>(kGapEnd, 1));
  EXPECT_FALSE(memory.contains(0, UINT64_MAX));
  EXPECT_FALSE(memory.contains(1, UINT64_MAX));
  EXPECT_FALSE(memory.contains(kMiB, 0));
  EXPECT_TRUE(memory.contains(0, kMiB));
  EXPECT_FALSE(memory.iovecOf(kMiB - 1, 2));
}

TEST(GuestMemory, GoesOnAboveTheHole) {
  GuestMemory memory(kGapStart + 2 * kMiB);
  ASSERT_EQ(memory.ranges().size(), 2u);
  EXPECT_EQ(memory.lowEnd(), kGapStart);
  EXPECT_TRUE(memory.write<uint32_t>(kGapStart - 4, 1));
  EXPECT_TRUE(memory.write<uint32_t>(kGapEnd, 2));
  EXPECT_TRUE(memory.contains(kGapEnd, 2 * kMiB));
  EXPECT_FALSE(memory.contains(kGapEnd, 2 * kMiB + 1));
  // Neighbours in this process, but not for the guest.
  EXPECT_FALSE(memory.read<uint64_t>(kGapStart - 4));
  EXPECT_FALSE(memory.read<uint8_t>(kGapStart));
  EXPECT_FALSE(memory.contains(kGapEnd - 1, 2));
}

TEST(GuestMemory, IndicesMustBeAligned) {
  GuestMemory memory(kMiB);
  EXPECT_TRUE(memory.storeRelease(2, 7));
  EXPECT_EQ(memory.loadAcquire(2), 7);
  EXPECT_FALSE(memory.loadAcquire(3));
  EXPECT_FALSE(memory.storeRelease(3, 1));
  EXPECT_FALSE(memory.loadAcquire(kMiB));
}

TEST(GuestMemory, SizesAreWholePages) {
  EXPECT_THROW(GuestMemory(0), Error);
  EXPECT_THROW(GuestMemory(4095), Error);
}

TEST(Layout, DevicesGetDistinctPins) {
  uint32_t seen = 0;
  for (uint32_t slot = 0; slot < layout::kMaxVirtioDevices; ++slot) {
    const uint32_t gsi = layout::gsiOfSlot(slot);
    EXPECT_LT(gsi, layout::kIoapicPins);
    EXPECT_EQ(seen & (1u << gsi), 0u);
    seen |= 1u << gsi;
  }
}

}  // namespace
}  // namespace hull::vmm
