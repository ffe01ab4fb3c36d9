#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstring>
#include <map>

#include "base/error.h"
#include "base/fd.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/testing/test_tap.h"
#include "vmm/virtio/net/frame.h"
#include "vmm/virtio/net/net.h"

namespace hull::vmm::virtio {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;
using testing::FakeHost;
using testing::TestTap;

constexpr uint64_t kAll = netBit(kNetChecksum) | netBit(kNetHostTso4) | netBit(kNetHostTso6);
constexpr MacAddress kMac{2, 0, 0, 0, 0, 1};

NetHeader tso() {
  NetHeader header{};
  header.flags = kNetNeedsChecksum;
  header.gso_type = kNetGsoTcp4;
  header.gso_size = 1448;
  header.hdr_len = 54;
  header.csum_start = 34;
  header.csum_offset = 16;
  return header;
}

bool accepts(NetHeader header, uint64_t bytes = 3000, uint64_t features = kAll) {
  return checkTransmitHeader(header, bytes, features);
}

// virtio 1.2 §5.1.6.2 and the net lines of the hostile grid.
TEST(NetFrame, PlainAndOffloadedFramesPass) {
  EXPECT_TRUE(accepts(NetHeader{}));
  EXPECT_TRUE(accepts(tso()));
  EXPECT_TRUE(accepts(NetHeader{}, kEthernetHeaderBytes));
}

TEST(NetFrame, LengthsAreBounded) {
  EXPECT_FALSE(accepts(NetHeader{}, 13));
  EXPECT_FALSE(accepts(NetHeader{}, kMaxFrameBytes + 1));
}

TEST(NetFrame, ChecksumMustLieInTheFrame) {
  NetHeader header = tso();
  header.gso_type = kNetGsoNone;
  EXPECT_TRUE(accepts(header, 52));
  EXPECT_FALSE(accepts(header, 51));
  header.csum_start = UINT16_MAX;
  header.csum_offset = UINT16_MAX;
  EXPECT_FALSE(accepts(header));
  header = tso();
  header.csum_start = 0;
  EXPECT_FALSE(accepts(header));
}

TEST(NetFrame, SegmentationIsChecked) {
  const auto refused = [](auto change) {
    NetHeader header = tso();
    change(header);
    return !accepts(header);
  };
  EXPECT_TRUE(refused([](auto& h) { h.gso_type = 2; }));
  EXPECT_TRUE(refused([](auto& h) { h.gso_type = 3; }));     // UDP fragmentation: not offered
  EXPECT_TRUE(refused([](auto& h) { h.gso_type = 0x81; }));  // ECN: not offered
  EXPECT_TRUE(refused([](auto& h) { h.gso_size = 0; }));
  EXPECT_TRUE(refused([](auto& h) { h.flags = 0; }));
  EXPECT_TRUE(refused([](auto& h) { h.hdr_len = 3001; }));
}

TEST(NetFrame, OffloadsNeedTheirFeature) {
  EXPECT_FALSE(accepts(tso(), 3000, 0));
  EXPECT_FALSE(accepts(tso(), 3000, netBit(kNetChecksum)));
  EXPECT_FALSE(accepts(tso(), 3000, netBit(kNetChecksum) | netBit(kNetHostTso6)));
}

TEST(NetFrame, WhatMeansNothingIsCleared) {
  NetHeader header{};
  header.num_buffers = 7;
  header.flags = 0xfe;
  header.hdr_len = header.gso_size = header.csum_start = 9;
  ASSERT_TRUE(checkTransmitHeader(header, 100, kAll));
  EXPECT_EQ(header.num_buffers, 0);
  EXPECT_EQ(header.flags, 0);
  EXPECT_EQ(header.csum_start, 0);
  EXPECT_EQ(header.gso_size, 0);
}

TEST(NetFrame, SourceAddressIsTheGuests) {
  std::array<std::byte, kEthernetHeaderBytes> ethernet{};
  std::memcpy(ethernet.data() + 6, kMac.data(), kMac.size());
  EXPECT_TRUE(hasSource(ethernet, kMac));
  ethernet[11] = std::byte{2};
  EXPECT_FALSE(hasSource(ethernet, kMac));
}

TEST(NetDeviceTest, RefusesWhatIsNoTap) {
  const FdPair pair = makeSocketPair(SOCK_STREAM);
  EventLoop loop;
  EXPECT_THROW(NetDevice({pair.first.get(), kMac, 1500}, loop), Error);
}

// With a real tap, where the test may make one; a packet socket is the other end of the wire.
class TapTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!tap_.missing().empty()) GTEST_SKIP() << tap_.missing();
    device_.emplace(NetConfig{tap_.tap(), kMac, 1500}, loop_);
  }
  void activate(uint64_t features) {
    std::vector<Queue> queues;
    queues.push_back(receive_.queue());
    queues.push_back(transmit_.queue());
    device_->activate({memory_, host_, features, std::move(queues)});
  }
  void turn() {
    for (int i = 0; i < 10; ++i) {
      device_->notify();
      loop_.runOnce(std::chrono::milliseconds(1));
    }
  }
  // Only our own frames are looked at: the host may talk on a new interface, too.
  std::string nextUsed(GuestAddress where) {
    while (seen_ != receive_.usedIndex()) {
      const auto used = receive_.used(seen_++);
      const std::string text = receive_.text(where, used.length);
      if (text.size() >= 26 && text.substr(24, 2) == "\x88\xb5") return text;
    }
    return {};
  }

  GuestMemory memory_{testing::kTestMemoryBytes};
  FakeDriver receive_{memory_, 16, 0x10000};
  FakeDriver transmit_{memory_, 16, 0x100000};
  FakeHost host_;
  EventLoop loop_;
  TestTap tap_;
  std::optional<NetDevice> device_;
  uint16_t seen_ = 0;
};

TEST_F(TapTest, SendsWhatIsItsOwnAndDropsTheRest) {
  activate(kAll);
  const auto send = [&](const MacAddress& source, const NetHeader& header) {
    const std::string text = TestTap::frame(source, 50);
    ChainBuilder(transmit_).readableValue(header).readable(text).send();
    turn();
    return tap_.received() == text;
  };
  EXPECT_TRUE(send(kMac, NetHeader{}));
  EXPECT_FALSE(send({2, 0, 0, 0, 0, 9}, NetHeader{}));
  NetHeader bad = tso();
  bad.gso_size = 0;
  EXPECT_FALSE(send(kMac, bad));
  EXPECT_TRUE(send(kMac, NetHeader{}));
  ChainBuilder(transmit_).readable("x").send();
  turn();
  EXPECT_EQ(transmit_.usedIndex(), 5);  // every buffer comes back
  EXPECT_FALSE(host_.reset_reason);
}

// Hostile grid: the checks see the same header however it is cut up.
TEST_F(TapTest, HeaderInBuffersOfOneByteIsChecked) {
  activate(kAll);
  const auto send = [&](const NetHeader& header, const std::string& text) {
    const std::string whole(reinterpret_cast<const char*>(&header), sizeof header);
    ChainBuilder builder(transmit_);
    for (const char& byte : whole) builder.readable(std::string_view(&byte, 1));
    builder.readable(std::string_view(text).substr(0, 7)).readable(text.substr(7)).send();
    turn();
    return tap_.received() == text;
  };
  const std::string text = TestTap::frame(kMac, 50);
  EXPECT_TRUE(send(NetHeader{}, text));
  NetHeader bad{};
  bad.gso_type = 3;
  EXPECT_FALSE(send(bad, text));
  EXPECT_FALSE(send(NetHeader{}, TestTap::frame({2, 0, 0, 0, 0, 9}, 50)));
  EXPECT_FALSE(host_.reset_reason);
}

TEST_F(TapTest, FramesOfBadLengthAreDropped) {
  activate(kAll);
  const GuestAddress zeros = transmit_.allocate(1 << 20);
  for (const uint32_t bytes :
       {0u, 1u, 11u, 12u, 13u, 25u, 12u + static_cast<uint32_t>(kMaxFrameBytes) + 1, 1u << 20}) {
    ChainBuilder(transmit_).raw({zeros, bytes, 0, 0}).send();
    turn();
    EXPECT_EQ(tap_.received(), "") << bytes;
  }
  EXPECT_EQ(transmit_.usedIndex(), 8);
  EXPECT_FALSE(host_.reset_reason);
}

TEST_F(TapTest, FrameIsSpreadOverMergeableBuffers) {
  activate(netBit(kNetMergeBuffers));
  std::map<uint32_t, GuestAddress> buffers;
  for (int i = 0; i < 16; ++i) {
    GuestAddress where = 0;
    const uint16_t head = ChainBuilder(receive_).writable(400, &where).send();
    buffers[head] = where;
  }
  const std::string text = TestTap::frame({2, 0, 0, 0, 0, 9}, 1000);
  tap_.send(text);
  turn();
  // The host may have sent something of its own first.
  std::string whole;
  for (uint16_t i = 0; i < receive_.usedIndex() && whole.size() <= 12 + text.size();) {
    const uint16_t count = receive_.get<NetHeader>(buffers.at(receive_.used(i).id)).num_buffers;
    ASSERT_GE(count, 1);
    whole.clear();
    for (uint16_t part = 0; part < count; ++part, ++i) {
      whole += receive_.text(buffers.at(receive_.used(i).id), receive_.used(i).length);
    }
    if (whole.substr(12) == text) {
      EXPECT_EQ(count, 3);  // 12 + 1014 bytes in buffers of 400
      return;
    }
  }
  FAIL() << "the frame did not arrive";
}

TEST_F(TapTest, FrameWaitsForBuffers) {
  activate(netBit(kNetMergeBuffers));
  const std::string text = TestTap::frame({2, 0, 0, 0, 0, 9}, 100);
  tap_.send(text);
  turn();
  EXPECT_EQ(receive_.usedIndex(), 0);
  GuestAddress where = 0;
  ChainBuilder(receive_).writable(2000, &where).send();
  turn();
  const std::string got = nextUsed(where);
  ASSERT_EQ(got.size(), 12 + text.size());
  EXPECT_EQ(got.substr(12), text);
}

TEST_F(TapTest, LimitsHoldEachDirection) {
  activate(netBit(kNetMergeBuffers));
  device_->setLimits({{}, {1, 1}}, {{}, {1, 1}});
  const std::string text = TestTap::frame(kMac, 100);
  for (int i = 0; i < 3; ++i) {
    ChainBuilder(transmit_).readableValue(NetHeader{}).readable(text).send();
  }
  device_->notify();
  EXPECT_EQ(transmit_.usedIndex(), 1);
  device_->setLimits({}, {});
  device_->notify();
  EXPECT_EQ(transmit_.usedIndex(), 3);
}

TEST_F(TapTest, BrokenRingsNeedReset) {
  activate(0);
  receive_.setAvailableIndex(1000);
  const std::string text = TestTap::frame({2, 0, 0, 0, 0, 9}, 100);
  tap_.send(text);
  turn();
  EXPECT_TRUE(host_.reset_reason);
}

}  // namespace
}  // namespace hull::vmm::virtio
