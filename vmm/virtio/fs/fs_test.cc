#include "vmm/virtio/fs/fs.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "vmm/testing/fake_back_end.h"
#include "vmm/testing/fake_driver.h"

namespace hull::vmm::virtio {
namespace {

using testing::FakeBackEnd;
using testing::FakeDriver;
using testing::FakeHost;
using testing::kTestMemoryBytes;
using namespace std::chrono_literals;

constexpr auto kPatience = 200ms;  // for answers that never come

size_t openDescriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

class FsTest : public ::testing::Test {
 protected:
  FsTest() : interrupt_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    host_.interrupt_fd = interrupt_.get();
  }
  std::unique_ptr<FsDevice> make(FakeBackEnd& back_end) {
    return std::make_unique<FsDevice>(FsConfig{"shares", back_end.frontEnd()}, loop_, kPatience);
  }
  void activate(FsDevice& device) {
    std::vector<Queue> queues;
    queues.push_back(priority_.queue());
    queues.push_back(requests_.queue());
    device.activate({memory_, host_, kFeatureVersion1 | kFeatureIndirect, std::move(queues)});
  }
  // Turns the loop until the device has noticed something, or a second has passed.
  void awaitFailure(const FsDevice& device) {
    for (int turn = 0; turn < 100 && !device.failed(); ++turn) loop_.runOnce(10ms);
  }

  GuestMemory memory_{kTestMemoryBytes, GuestMemory::Sharing::kShared};
  FakeDriver priority_{memory_, 16, 0x10000};
  FakeDriver requests_{memory_, 32, 0x100000};
  FakeHost host_;
  Fd interrupt_;
  EventLoop loop_;
};

template <typename T>
T valueOf(const std::vector<std::byte>& bytes, size_t offset = 0) {
  T value{};
  if (bytes.size() >= offset + sizeof value) {
    std::memcpy(&value, bytes.data() + offset, sizeof value);
  }
  return value;
}

TEST_F(FsTest, TellsTheGuestTagAndQueues) {
  FakeBackEnd back_end;
  const auto device = make(back_end);
  const auto config = device->config();
  ASSERT_EQ(config.size(), 40u);
  EXPECT_STREQ(reinterpret_cast<const char*>(config.data()), "shares");
  EXPECT_EQ(std::to_integer<int>(config[36]), 1);
  EXPECT_EQ(device->queueSizes().size(), 2u);
  EXPECT_EQ(device->queueNotifyFds().size(), 2u);
  EXPECT_FALSE(device->canSave());
}

TEST_F(FsTest, OffersOnlyWhatTheBackEndCan) {
  FakeBackEnd back_end([](VhostRequest request, FakeBackEnd::Answer& answer) {
    if (request != VhostRequest::kGetFeatures) return;
    const uint64_t features = kFeatureVersion1 | kFeatureIndirect | kVhostProtocolFeatures;
    std::memcpy(answer.payload.data(), &features, sizeof features);
  });
  EXPECT_EQ(make(back_end)->transportFeatures(), kFeatureVersion1 | kFeatureIndirect);
}

TEST_F(FsTest, HandsMemoryAndRingsOver) {
  FakeBackEnd back_end;
  const auto device = make(back_end);
  activate(*device);
  EXPECT_FALSE(device->failed());

  // The memory table: one region at guest address 0, and the file behind it is the guest's memory.
  const auto table = back_end.lastPayload(VhostRequest::kSetMemTable);
  ASSERT_EQ(table.size(), 8u + 32u);
  EXPECT_EQ(valueOf<uint32_t>(table), 1u);
  EXPECT_EQ(valueOf<uint64_t>(table, 16), kTestMemoryBytes);
  EXPECT_EQ(valueOf<uint64_t>(table, 24), 0u) << "an address of this process was given away";
  const Fd memory = back_end.takeDescriptor(VhostRequest::kSetMemTable, 0);
  ASSERT_TRUE(memory);
  requests_.put<uint32_t>(0x3000, 0x1234abcd);
  uint32_t seen = 0;
  preadFull(memory.get(), std::as_writable_bytes(std::span(&seen, 1)), 0x3000);
  EXPECT_EQ(seen, 0x1234abcdu);

  // The last queue set up is the second one, at its guest addresses.
  const auto address = back_end.lastPayload(VhostRequest::kSetVringAddr);
  EXPECT_EQ(valueOf<uint32_t>(address), 1u);
  EXPECT_EQ(valueOf<uint64_t>(address, 8), requests_.layout().descriptors);
  EXPECT_EQ(valueOf<uint64_t>(address, 16), requests_.layout().used);
  EXPECT_EQ(valueOf<uint64_t>(address, 24), requests_.layout().available);
  EXPECT_EQ(valueOf<uint32_t>(back_end.lastPayload(VhostRequest::kSetVringNum), 4), 32u);

  // Its kick is the guest's notification, its call the device's interrupt.
  const Fd kick = back_end.takeDescriptor(VhostRequest::kSetVringKick, 1);
  const Fd call = back_end.takeDescriptor(VhostRequest::kSetVringCall, 1);
  eventfd_write(device->queueNotifyFds()[1].get(), 3);
  eventfd_t count = 0;
  EXPECT_EQ(eventfd_read(kick.get(), &count), 0);
  EXPECT_EQ(count, 3u);
  eventfd_write(call.get(), 5);
  EXPECT_EQ(eventfd_read(interrupt_.get(), &count), 0);
  EXPECT_EQ(count, 5u);
}

TEST_F(FsTest, ABackEndCannotCutTheMemoryShort) {
  FakeBackEnd back_end;
  const auto device = make(back_end);
  activate(*device);
  const Fd memory = back_end.takeDescriptor(VhostRequest::kSetMemTable, 0);
  EXPECT_LT(ftruncate(memory.get(), 4096), 0);
  EXPECT_LT(ftruncate(memory.get(), 1 << 30), 0);
}

TEST_F(FsTest, ResetTakesTheQueuesBackAndTheNextDriverGetsThem) {
  FakeBackEnd back_end;
  const auto device = make(back_end);
  activate(*device);
  device->reset();
  EXPECT_EQ(back_end.requests().back(), VhostRequest::kGetVringBase);
  activate(*device);
  EXPECT_EQ(back_end.requests().back(), VhostRequest::kSetVringEnable);
  EXPECT_FALSE(device->failed());
  EXPECT_FALSE(host_.reset_reason);
}

TEST_F(FsTest, TheEndOfTheBackEndFailsTheDeviceOnly) {
  FakeBackEnd back_end;
  const auto device = make(back_end);
  activate(*device);
  back_end.hangUp();
  awaitFailure(*device);
  EXPECT_TRUE(device->failed());
  EXPECT_TRUE(host_.reset_reason);
  // The driver's reset does not bring it back, and blocks nothing.
  host_.reset_reason.reset();
  device->reset();
  activate(*device);
  EXPECT_TRUE(host_.reset_reason);
}

TEST_F(FsTest, UnaskedWordsOfTheBackEndFailTheDevice) {
  FakeBackEnd back_end;
  const auto device = make(back_end);
  activate(*device);
  back_end.say("hello");
  awaitFailure(*device);
  EXPECT_TRUE(device->failed());
}

// Every answer of the hand-shake and of the set-up, spoilt in every way.
struct Spoilt {
  const char* name;
  std::function<void(FakeBackEnd::Answer&)> how;
};
const Spoilt kSpoilt[] = {
    {"another request", [](auto& answer) { ++answer.header.request; }},
    {"not a reply", [](auto& answer) { answer.header.flags = kVhostVersion; }},
    {"another version", [](auto& answer) { answer.header.flags = kVhostReply | 2; }},
    {"unknown flags", [](auto& answer) { answer.header.flags |= 0x100; }},
    {"too long", [](auto& answer) { answer.header.size = UINT32_MAX; }},
    {"empty", [](auto& answer) { answer.header.size = 0; }},
    {"cut short", [](auto& answer) { answer.payload.resize(3); }},
    {"silent", [](auto& answer) { answer.silent = true; }},
    {"hung up", [](auto& answer) { answer.hang_up = true; }},
};

TEST_F(FsTest, ASpoiltHandshakeIsAnErrorThatNamesTheStep) {
  for (const auto request : {VhostRequest::kGetFeatures, VhostRequest::kGetProtocolFeatures,
                             VhostRequest::kGetQueueNum}) {
    for (const Spoilt& spoilt : kSpoilt) {
      SCOPED_TRACE(spoilt.name);
      FakeBackEnd back_end([&](VhostRequest now, FakeBackEnd::Answer& answer) {
        if (now == request) spoilt.how(answer);
      });
      try {
        make(back_end);
        ADD_FAILURE() << "accepted";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kUnavailable);
        EXPECT_NE(std::string(error.what()).find("vhost-user GET_"), std::string::npos)
            << error.what();
      }
    }
  }
}

TEST_F(FsTest, ASpoiltSetUpFailsTheDevice) {
  for (const auto request : {VhostRequest::kSetMemTable, VhostRequest::kSetVringAddr,
                             VhostRequest::kSetVringKick, VhostRequest::kSetVringEnable}) {
    for (const Spoilt& spoilt : kSpoilt) {
      SCOPED_TRACE(spoilt.name);
      FakeBackEnd back_end([&](VhostRequest now, FakeBackEnd::Answer& answer) {
        if (now == request) spoilt.how(answer);
      });
      const auto device = make(back_end);
      host_.reset_reason.reset();
      activate(*device);
      EXPECT_TRUE(device->failed());
      EXPECT_TRUE(host_.reset_reason);
    }
  }
}

TEST_F(FsTest, ARefusalIsAFailure) {
  FakeBackEnd back_end([](VhostRequest request, FakeBackEnd::Answer& answer) {
    if (request == VhostRequest::kSetVringBase) answer.payload[0] = std::byte{1};
  });
  const auto device = make(back_end);
  activate(*device);
  EXPECT_TRUE(device->failed());
}

TEST_F(FsTest, TooFewQueuesOrAnOldBackEndAreRefused) {
  FakeBackEnd one_queue([](VhostRequest request, FakeBackEnd::Answer& answer) {
    if (request == VhostRequest::kGetQueueNum) answer.payload[0] = std::byte{1};
  });
  EXPECT_THROW(make(one_queue), Error);
  FakeBackEnd legacy([](VhostRequest request, FakeBackEnd::Answer& answer) {
    if (request == VhostRequest::kGetFeatures) answer.payload.assign(8, std::byte{0});
  });
  EXPECT_THROW(make(legacy), Error);
}

TEST_F(FsTest, AnAnswerForAnotherQueueIsRefused) {
  FakeBackEnd back_end([](VhostRequest request, FakeBackEnd::Answer& answer) {
    if (request == VhostRequest::kGetVringBase) answer.payload[0] = std::byte{9};
  });
  const auto device = make(back_end);
  activate(*device);
  device->reset();
  EXPECT_TRUE(device->failed());
}

TEST_F(FsTest, DescriptorsThatNobodyAskedForAreNotTaken) {
  FakeBackEnd back_end(
      [](VhostRequest, FakeBackEnd::Answer& answer) { answer.with_descriptor = true; });
  const size_t before = openDescriptors();
  const auto device = make(back_end);
  EXPECT_FALSE(device->failed());
  // Its own two kicks, nothing of the back end's.
  EXPECT_EQ(openDescriptors(), before + 2);
}

TEST_F(FsTest, PrivateMemoryIsNeverHandedOut) {
  FakeBackEnd back_end;
  const auto device = make(back_end);
  GuestMemory private_memory(kTestMemoryBytes);
  FakeDriver first(private_memory, 16, 0x10000), second(private_memory, 16, 0x100000);
  std::vector<Queue> queues;
  queues.push_back(first.queue());
  queues.push_back(second.queue());
  device->activate({private_memory, host_, kFeatureVersion1, std::move(queues)});
  EXPECT_TRUE(device->failed());
  const auto requests = back_end.requests();
  EXPECT_EQ(std::count(requests.begin(), requests.end(), VhostRequest::kSetMemTable), 0);
}

}  // namespace
}  // namespace hull::vmm::virtio
