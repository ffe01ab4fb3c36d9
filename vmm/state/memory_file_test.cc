#include "vmm/state/memory_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "vmm/memory/layout.h"

namespace hull::vmm {
namespace {

using layout::kGapEnd;
using layout::kGapStart;
using layout::kMiB;
using layout::kPageBytes;
using ::testing::HasSubstr;

constexpr SaveId kId{std::byte{1}, std::byte{2}, std::byte{3}};

std::string refusal(int file, GuestMemory& memory, const SaveId& id = kId) {
  try {
    mapMemoryFile(file, memory, id);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
    return error.what();
  }
  return "accepted";
}

TEST(MemoryFile, BringsEveryByteBack) {
  GuestMemory memory(8 * kMiB);
  ASSERT_TRUE(memory.write<uint64_t>(0, 11));
  ASSERT_TRUE(memory.write<uint64_t>(3 * kMiB - 4, 0x2222222233333333));
  ASSERT_TRUE(memory.write<uint8_t>(8 * kMiB - 1, 44));
  const Fd file = makeMemfd("memory");
  EXPECT_EQ(writeMemoryFile(file.get(), memory, kId), 4 * kPageBytes);
  GuestMemory other(8 * kMiB);
  mapMemoryFile(file.get(), other, kId);
  for (uint64_t at = 0; at < 8 * kMiB; at += 8) {
    ASSERT_EQ(other.read<uint64_t>(at), memory.read<uint64_t>(at)) << at;
  }
}

TEST(MemoryFile, ZerosAreHoles) {
  GuestMemory memory(16 * kMiB);
  for (uint64_t at = 0; at < 16 * kMiB; at += kPageBytes) {
    ASSERT_TRUE(memory.read<uint8_t>(at));  // touched all the same
  }
  ASSERT_TRUE(memory.write<uint8_t>(5 * kMiB, 1));
  const Fd file = makeMemfd("memory");
  EXPECT_EQ(writeMemoryFile(file.get(), memory, kId), kPageBytes);
  struct stat info {};
  ASSERT_EQ(fstat(file.get(), &info), 0);
  EXPECT_EQ(static_cast<uint64_t>(info.st_size), 16 * kMiB + kPageBytes);
  EXPECT_LT(static_cast<uint64_t>(info.st_blocks) * 512, kMiB);
}

// The file as its description says, made by hand: to look through 3 GiB for zeros takes too long.
TEST(MemoryFile, MemoryBeyondTheHoleForDevicesIsThere) {
  constexpr uint64_t kBytes = kGapStart + 2 * kMiB;
  const Fd file = makeMemfd("memory");
  const auto put = [&](uint64_t offset, const auto& value) {
    pwriteFull(file.get(), std::as_bytes(std::span(&value, 1)), offset);
  };
  put(kGapStart - 4, uint32_t{1});
  put(kGapStart + 4096, uint32_t{2});
  pwriteFull(file.get(), asBytes("HULLMEM\n"), kBytes);
  put(kBytes + 8, kId);
  put(kBytes + 24, kBytes);
  ASSERT_EQ(ftruncate(file.get(), kBytes + kPageBytes), 0);
  GuestMemory memory(kBytes);
  mapMemoryFile(file.get(), memory, kId);
  EXPECT_EQ(memory.read<uint32_t>(kGapStart - 4), 1u);
  EXPECT_EQ(memory.read<uint32_t>(kGapEnd + 4096), 2u);
}

TEST(MemoryFile, SavingAgainLeavesNothingOfTheFirst) {
  GuestMemory memory(2 * kMiB);
  ASSERT_TRUE(memory.write<uint32_t>(kMiB, 1));
  const Fd file = makeMemfd("memory");
  writeMemoryFile(file.get(), memory, kId);
  GuestMemory empty(2 * kMiB);
  writeMemoryFile(file.get(), empty, kId);
  GuestMemory other(2 * kMiB);
  mapMemoryFile(file.get(), other, kId);
  EXPECT_EQ(other.read<uint32_t>(kMiB), 0u);
}

TEST(MemoryFile, RestoredVmsDoNotShareTheirChanges) {
  GuestMemory memory(2 * kMiB);
  ASSERT_TRUE(memory.write<uint32_t>(0, 1));
  const Fd file = makeMemfd("memory");
  writeMemoryFile(file.get(), memory, kId);
  GuestMemory first(2 * kMiB), second(2 * kMiB);
  mapMemoryFile(file.get(), first, kId);
  mapMemoryFile(file.get(), second, kId);
  ASSERT_TRUE(first.write<uint32_t>(0, 2));
  EXPECT_EQ(second.read<uint32_t>(0), 1u);
  GuestMemory third(2 * kMiB);
  mapMemoryFile(file.get(), third, kId);
  EXPECT_EQ(third.read<uint32_t>(0), 1u);
}

// A page given back reads as zeros, never as what the file has.
TEST(MemoryFile, DiscardedMemoryDoesNotComeBackFromTheFile) {
  constexpr uint64_t kLarge = 2 * kMiB;
  GuestMemory memory(3 * kLarge);
  for (uint64_t at = 0; at < 3 * kLarge; at += kPageBytes) {
    ASSERT_TRUE(memory.write<uint32_t>(at, 7));
  }
  const Fd file = makeMemfd("memory");
  writeMemoryFile(file.get(), memory, kId);
  GuestMemory other(3 * kLarge);
  mapMemoryFile(file.get(), other, kId);
  EXPECT_EQ(other.discard(kLarge, kLarge), kLarge);
  EXPECT_EQ(other.read<uint32_t>(kLarge), 0u);
  EXPECT_EQ(other.read<uint32_t>(2 * kLarge - kPageBytes), 0u);
  EXPECT_EQ(other.read<uint32_t>(kLarge - kPageBytes), 7u);
  EXPECT_EQ(other.read<uint32_t>(2 * kLarge), 7u);
  // Parts of a large page stay until it has been given back as a whole.
  EXPECT_EQ(other.discard(0, kPageBytes), 0u);
  EXPECT_EQ(other.read<uint32_t>(0), 7u);
  ASSERT_TRUE(other.write<uint32_t>(kLarge, 8));
  EXPECT_EQ(other.discard(kLarge, kPageBytes), kPageBytes);
  EXPECT_EQ(other.read<uint32_t>(kLarge), 0u);
  EXPECT_EQ(other.discard(kLarge - kPageBytes, 2 * kLarge), kLarge);
}

TEST(MemoryFile, AnotherSavesMemoryIsRefused) {
  GuestMemory memory(kMiB);
  const Fd file = makeMemfd("memory");
  writeMemoryFile(file.get(), memory, kId);
  EXPECT_THAT(refusal(file.get(), memory, SaveId{}), HasSubstr("another time"));
}

TEST(MemoryFile, OtherSizesAndFilesAreRefused) {
  GuestMemory memory(kMiB);
  const Fd file = makeMemfd("memory");
  writeMemoryFile(file.get(), memory, kId);
  GuestMemory larger(2 * kMiB);
  EXPECT_THAT(refusal(file.get(), larger), HasSubstr("bytes instead of"));
  for (const uint64_t size : {uint64_t{0}, uint64_t{1}, kMiB, kMiB + 1, kMiB + kPageBytes - 1,
                              kMiB + kPageBytes + 1, 2 * kMiB}) {
    ASSERT_EQ(ftruncate(file.get(), static_cast<off_t>(size)), 0);
    EXPECT_THAT(refusal(file.get(), memory), HasSubstr("bytes instead of")) << size;
  }
  ASSERT_EQ(ftruncate(file.get(), kMiB + kPageBytes), 0);  // its last page is zeros now
  EXPECT_THAT(refusal(file.get(), memory), HasSubstr("not a VM's memory"));
}

TEST(MemoryFile, FileThatCannotBeWrittenIsAnError) {
  GuestMemory memory(kMiB);
  const FdPair pipe = makePipe();
  EXPECT_THROW(writeMemoryFile(pipe.second.get(), memory, kId), Error);
}

}  // namespace
}  // namespace hull::vmm
