#include <endian.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/fd.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/testing/test_tap.h"
#include "vmm/virtio/net/frame.h"
#include "vmm/virtio/net/net.h"
#include "vmm/virtio/net/stream_frames.h"

namespace hull::vmm::virtio {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;
using testing::FakeHost;
using testing::TestTap;

constexpr MacAddress kMac{2, 0, 0, 0, 0, 1};
constexpr MacAddress kPeerMac{2, 0, 0, 0, 0, 9};

std::string lengthOf(uint32_t bytes) {
  const uint32_t length = htobe32(bytes);
  return {reinterpret_cast<const char*>(&length), sizeof length};
}

std::string framed(const std::string& frame) {
  return lengthOf(static_cast<uint32_t>(frame.size())) + frame;
}

// Feeds `text` in parts of `step` bytes; what comes out.
std::vector<std::string> framesOf(StreamFrames& frames, std::string_view text, size_t step) {
  std::vector<std::string> out;
  for (;;) {
    for (auto frame = frames.next(); !frame.empty(); frame = frames.next()) {
      out.emplace_back(reinterpret_cast<const char*>(frame.data()), frame.size());
    }
    const auto space = frames.space();
    const size_t part = std::min({step, space.size(), text.size()});
    if (part == 0) return out;
    std::memcpy(space.data(), text.data(), part);
    frames.filled(part);
    text.remove_prefix(part);
  }
}

TEST(NetStreamFrames, AreFoundHoweverTheyAreCut) {
  const std::vector<std::string> sent{std::string(kEthernetHeaderBytes, 'a'),
                                      std::string(kMaxFrameBytes, 'b'), std::string(1514, 'c')};
  std::string text;
  for (const auto& frame : sent) text += framed(frame);
  for (const size_t step : {1u, 3u, 1000u, 70000u, 1u << 20}) {
    StreamFrames frames;
    EXPECT_EQ(framesOf(frames, text, step), sent) << step;
    EXPECT_FALSE(frames.broken());
  }
}

TEST(NetStreamFrames, LengthsThatNoFrameHasBreakTheStream) {
  for (const uint32_t length : {0u, 1u, 13u, static_cast<uint32_t>(kMaxFrameBytes) + 1, 1u << 20,
                                0x7fffffffu, 0x80000000u, UINT32_MAX}) {
    StreamFrames frames;
    const std::string before(60, 'a');
    EXPECT_EQ(framesOf(frames, framed(before) + lengthOf(length) + std::string(100, 'x'), 1000),
              std::vector{before})
        << length;
    EXPECT_TRUE(frames.broken()) << length;
    EXPECT_TRUE(frames.space().empty());
  }
}

TEST(NetStreamFrames, ATruncatedFrameIsNoFrame) {
  StreamFrames frames;
  EXPECT_TRUE(framesOf(frames, framed(std::string(60, 'a')).substr(0, 63), 10).empty());
  EXPECT_FALSE(frames.broken());
}

TEST(NetFrame, BlockedAddressesAndOtherProtocolsStayIn) {
  const std::vector<Ipv4Subnet> blocked{{0x7f000000, 8}, {0xa9fea9fe, 32}};
  const auto packet = [](uint16_t type, uint8_t version, std::array<uint8_t, 4> target) {
    std::array<std::byte, kCheckedFrameBytes> head{};
    head[12] = std::byte(type >> 8);
    head[13] = std::byte(type & 0xff);
    head[14] = std::byte(version << 4 | 5);
    for (size_t i = 0; i < 4; ++i) head[30 + i] = std::byte(target[i]);
    return head;
  };
  EXPECT_TRUE(mayGoOut(packet(0x0800, 4, {192, 0, 2, 1}), blocked));
  EXPECT_TRUE(mayGoOut(packet(0x0800, 4, {169, 254, 169, 253}), blocked));
  EXPECT_FALSE(mayGoOut(packet(0x0800, 4, {169, 254, 169, 254}), blocked));
  EXPECT_FALSE(mayGoOut(packet(0x0800, 4, {127, 0, 0, 1}), blocked));
  EXPECT_FALSE(mayGoOut(packet(0x0800, 4, {127, 255, 255, 255}), blocked));
  EXPECT_FALSE(mayGoOut(packet(0x0800, 6, {192, 0, 2, 1}), blocked));  // a lie about the version
  EXPECT_TRUE(mayGoOut(packet(0x0806, 0, {127, 0, 0, 1}), blocked));   // ARP has its own shape
  EXPECT_FALSE(mayGoOut(packet(0x86dd, 6, {}), blocked));
  EXPECT_FALSE(mayGoOut(packet(0x8100, 4, {192, 0, 2, 1}), blocked));
  const auto whole = packet(0x0800, 4, {192, 0, 2, 1});
  EXPECT_FALSE(mayGoOut(std::span(whole).first(kCheckedFrameBytes - 1), blocked));
  EXPECT_FALSE(mayGoOut(std::span(whole).first(5), blocked));
  EXPECT_FALSE(mayGoOut(whole, std::vector<Ipv4Subnet>{{0, 0}}));
}

class NetStreamTest : public ::testing::Test {
 protected:
  void activate(uint64_t features = netBit(kNetMergeBuffers)) {
    std::vector<Queue> queues;
    queues.push_back(receive_.queue());
    queues.push_back(transmit_.queue());
    device_.activate({memory_, host_, features, std::move(queues)});
  }
  void turn() {
    for (int i = 0; i < 10; ++i) {
      device_.notify();
      loop_.runOnce(std::chrono::milliseconds(0));
    }
  }
  void transmit(const std::string& frame, const NetHeader& header = {}) {
    ChainBuilder(transmit_).readableValue(header).readable(frame).send();
  }
  void peerSends(const std::string& text) { writeFull(peer_.get(), text); }
  std::string peerGets(size_t most = 1 << 20) {
    std::string text(most, '\0');
    const ssize_t got = ::recv(peer_.get(), text.data(), text.size(), MSG_DONTWAIT);
    return text.substr(0, got < 0 ? 0 : static_cast<size_t>(got));
  }

  GuestMemory memory_{testing::kTestMemoryBytes};
  FakeDriver receive_{memory_, 16, 0x10000};
  FakeDriver transmit_{memory_, 16, 0x100000};
  FakeHost host_;
  EventLoop loop_;
  FdPair wire_ = makeSocketPair(SOCK_STREAM);
  Fd peer_ = std::move(wire_.second);
  NetDevice device_{NetConfig{-1, kMac, 65520, {}, {}, wire_.first.get(), {{0x7f000000, 8}}},
                    loop_};
};

// IPv4 to `target` as far as the filter looks.
std::string packetTo(const MacAddress& source, uint32_t target, size_t payload) {
  std::string text = TestTap::frame(source, payload);
  text[12] = 8, text[13] = 0, text[14] = 0x45;
  target = htobe32(target);
  std::memcpy(text.data() + 30, &target, sizeof target);
  return text;
}

TEST(NetStreamDevice, RefusesWhatIsNoStreamSocket) {
  const FdPair pair = makeSocketPair(SOCK_DGRAM);
  const Fd file = makeMemfd("file");
  EventLoop loop;
  EXPECT_THROW(NetDevice({-1, kMac, 1500, {}, {}, pair.first.get(), {}}, loop), Error);
  EXPECT_THROW(NetDevice({-1, kMac, 1500, {}, {}, file.get(), {}}, loop), Error);
}

TEST_F(NetStreamTest, OffersNoOffloads) {
  EXPECT_EQ(device_.features(), netBit(kNetMac) | netBit(kNetMtu) | netBit(kNetMergeBuffers));
}

TEST_F(NetStreamTest, SendsWhatIsItsOwnAndDropsTheRest) {
  activate();
  const auto sent = [&](const std::string& frame, const NetHeader& header = {}) {
    transmit(frame, header);
    turn();
    return peerGets() == framed(frame);
  };
  EXPECT_TRUE(sent(packetTo(kMac, 0xc0000201, 50)));
  EXPECT_FALSE(sent(packetTo(kPeerMac, 0xc0000201, 50)));  // not its address
  EXPECT_FALSE(sent(packetTo(kMac, 0x7f000001, 50)));      // blocked
  EXPECT_FALSE(sent(TestTap::frame(kMac, 50)));            // neither ARP nor IPv4
  NetHeader offloaded{};
  offloaded.flags = kNetNeedsChecksum;
  offloaded.csum_start = 34;
  EXPECT_FALSE(sent(packetTo(kMac, 0xc0000201, 50), offloaded));
  EXPECT_TRUE(sent(packetTo(kMac, 0xc0000201, 60000)));
  EXPECT_EQ(transmit_.usedIndex(), 6);  // every buffer comes back
  EXPECT_FALSE(host_.reset_reason);
}

// The check and the sending see one copy, however the frame is cut up.
TEST_F(NetStreamTest, AddressInBuffersOfOneByteIsChecked) {
  activate();
  const auto sent = [&](const std::string& frame) {
    const std::string whole = std::string(kNetHeaderBytes, '\0') + frame;
    ChainBuilder builder(transmit_);
    for (size_t i = 0; i < 13; ++i) builder.readable(whole.substr(i, 1));
    builder.readable(whole.substr(13, 31)).readable(whole.substr(44)).send();
    turn();
    return peerGets() == framed(frame);
  };
  EXPECT_TRUE(sent(packetTo(kMac, 0xc0000201, 50)));
  EXPECT_FALSE(sent(packetTo(kMac, 0x7f000001, 50)));
}

TEST_F(NetStreamTest, ASlowPeerHoldsTheGuestAndLosesNothing) {
  activate();
  const int small = 4096;
  ASSERT_EQ(setsockopt(wire_.first.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  std::string wanted;
  constexpr int kFrames = 6;
  for (int i = 0; i < kFrames; ++i) {
    const std::string frame = packetTo(kMac, 0xc0000200u + static_cast<uint32_t>(i), 20000);
    wanted += framed(frame);
    transmit(frame);
  }
  turn();
  EXPECT_LT(transmit_.usedIndex(), kFrames);  // the rest waits in the guest's ring
  std::string got;
  for (int i = 0; i < 1000 && got.size() < wanted.size(); ++i) {
    got += peerGets(1000);
    loop_.runOnce(std::chrono::milliseconds(0));
  }
  EXPECT_TRUE(got == wanted);
  EXPECT_EQ(transmit_.usedIndex(), kFrames);
}

// The half of a frame that is out is finished for the next driver, or nothing behind it would make
// sense to the peer.
TEST_F(NetStreamTest, AResetInTheMiddleOfAFrameKeepsTheFraming) {
  activate();
  const int small = 4096;
  ASSERT_EQ(setsockopt(wire_.first.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  const std::string first = packetTo(kMac, 0xc0000201, 60000);
  const std::string second = packetTo(kMac, 0xc0000202, 100);
  transmit(first);
  device_.notify();
  device_.reset();
  FakeDriver next_receive(memory_, 16, 0x180000), next_transmit(memory_, 16, 0x190000);
  std::vector<Queue> queues;
  queues.push_back(next_receive.queue());
  queues.push_back(next_transmit.queue());
  device_.activate({memory_, host_, netBit(kNetMergeBuffers), std::move(queues)});
  ChainBuilder(next_transmit).readableValue(NetHeader{}).readable(second).send();
  std::string got;
  const std::string wanted = framed(first) + framed(second);
  for (int i = 0; i < 1000 && got.size() < wanted.size(); ++i) {
    device_.notify();
    got += peerGets(3000);
  }
  EXPECT_TRUE(got == wanted);
}

TEST_F(NetStreamTest, FramesArriveInPartsAndWaitForBuffers) {
  activate();
  const std::string frame = TestTap::frame(kPeerMac, 100);
  const std::string text = framed(frame) + framed(frame);
  peerSends(text.substr(0, 3));
  turn();
  peerSends(text.substr(3, 70));
  turn();
  EXPECT_EQ(receive_.usedIndex(), 0);
  peerSends(text.substr(73));
  turn();
  EXPECT_EQ(receive_.usedIndex(), 0);  // no buffers yet
  GuestAddress first = 0, second = 0;
  ChainBuilder(receive_).writable(2000, &first).send();
  turn();
  ASSERT_EQ(receive_.usedIndex(), 1);
  ChainBuilder(receive_).writable(2000, &second).send();
  turn();
  ASSERT_EQ(receive_.usedIndex(), 2);
  for (const auto& [index, where] : {std::pair{0, first}, std::pair{1, second}}) {
    const auto used = receive_.used(static_cast<uint16_t>(index));
    EXPECT_EQ(receive_.text(where, used.length).substr(kNetHeaderBytes), frame);
    const auto header = receive_.get<NetHeader>(where);
    EXPECT_EQ(header.num_buffers, 1);
    EXPECT_EQ(header.flags, 0);
    EXPECT_EQ(header.gso_type, kNetGsoNone);
  }
}

// What a process that was taken over may send: the guest's network ends, and nothing else.
TEST_F(NetStreamTest, APeerThatBreaksTheFramingIsGone) {
  activate();
  for (int i = 0; i < 4; ++i) ChainBuilder(receive_).writable(2000).send();
  peerSends(framed(TestTap::frame(kPeerMac, 100)) + lengthOf(0) +
            framed(TestTap::frame(kPeerMac, 100)));
  turn();
  EXPECT_EQ(receive_.usedIndex(), 1);
  transmit(packetTo(kMac, 0xc0000201, 50));
  turn();
  EXPECT_EQ(transmit_.usedIndex(), 1);  // dropped, not kept
  EXPECT_EQ(peerGets(), "");
  EXPECT_FALSE(loop_.watches(wire_.first.get()));
  EXPECT_FALSE(host_.reset_reason);
}

TEST_F(NetStreamTest, APeerThatClosesIsGoneAndTheDeviceLivesOn) {
  activate();
  GuestAddress where = 0;
  ChainBuilder(receive_).writable(2000, &where).send();
  ChainBuilder(receive_).writable(2000).send();
  const std::string last = TestTap::frame(kPeerMac, 100);
  peerSends(framed(last) + framed(last).substr(0, 20));
  peer_.reset();
  turn();
  ASSERT_EQ(receive_.usedIndex(), 1);  // what came whole before the end arrives
  EXPECT_EQ(receive_.text(where, receive_.used(0).length).substr(kNetHeaderBytes), last);
  for (int i = 0; i < 3; ++i) transmit(packetTo(kMac, 0xc0000201, 50));
  turn();
  EXPECT_EQ(transmit_.usedIndex(), 3);
  EXPECT_FALSE(loop_.watches(wire_.first.get()));
  EXPECT_FALSE(host_.reset_reason);
}

TEST_F(NetStreamTest, APeerThatClosesWhileAFrameWaitsIsGone) {
  activate();
  const int small = 4096;
  ASSERT_EQ(setsockopt(wire_.first.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  for (int i = 0; i < 3; ++i) transmit(packetTo(kMac, 0xc0000201, 60000));
  turn();
  EXPECT_LT(transmit_.usedIndex(), 3);
  peer_.reset();
  turn();
  EXPECT_EQ(transmit_.usedIndex(), 3);
  EXPECT_FALSE(loop_.watches(wire_.first.get()));
}

TEST_F(NetStreamTest, APeerThatBreaksTheFramingWhileAFrameWaitsHoldsNobody) {
  activate();
  const int small = 4096;
  ASSERT_EQ(setsockopt(wire_.first.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
  for (int i = 0; i < 3; ++i) transmit(packetTo(kMac, 0xc0000201, 60000));
  peerSends(lengthOf(UINT32_MAX));  // and it reads nothing
  turn();
  EXPECT_EQ(transmit_.usedIndex(), 3);
  EXPECT_FALSE(loop_.watches(wire_.first.get()));
}

TEST_F(NetStreamTest, ABrokenRingIsNotWaitedFor) {
  activate();
  receive_.setAvailableIndex(1000);
  peerSends(framed(TestTap::frame(kPeerMac, 100)));
  turn();
  EXPECT_TRUE(host_.reset_reason);
  EXPECT_FALSE(loop_.watches(wire_.first.get()));
}

TEST_F(NetStreamTest, LimitsHoldEachDirection) {
  activate();
  device_.setLimits({{}, {1, 1}}, {{}, {1, 1}});
  for (int i = 0; i < 3; ++i) transmit(packetTo(kMac, 0xc0000201, 50));
  device_.notify();
  EXPECT_EQ(transmit_.usedIndex(), 1);
  for (int i = 0; i < 4; ++i) ChainBuilder(receive_).writable(2000).send();
  const std::string frame = framed(TestTap::frame(kPeerMac, 100));
  peerSends(frame + frame + frame);
  device_.notify();
  EXPECT_EQ(receive_.usedIndex(), 1);
  device_.setLimits({}, {});
  device_.notify();
  EXPECT_EQ(transmit_.usedIndex(), 3);
  EXPECT_EQ(receive_.usedIndex(), 3);
}

}  // namespace
}  // namespace hull::vmm::virtio
