#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <map>

#include "base/error.h"
#include "base/fd.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/virtio/net/frame.h"
#include "vmm/virtio/net/net.h"

namespace hull::vmm::virtio {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;
using testing::FakeHost;

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
    tap_ = Fd(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    if (!tap_) GTEST_SKIP() << "no /dev/net/tun";
    ifreq request{};
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (ioctl(tap_.get(), TUNSETIFF, &request) < 0) GTEST_SKIP() << "may not make a tap";
    socket_ = Fd(socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(kProtocol)));
    if (!socket_) GTEST_SKIP() << "may not open a packet socket";
    silenceHost(request.ifr_name);
    request.ifr_flags = IFF_UP;
    ASSERT_EQ(ioctl(socket_.get(), SIOCSIFFLAGS, &request), 0);
    ASSERT_EQ(ioctl(socket_.get(), SIOCGIFINDEX, &request), 0);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(kProtocol);
    address.sll_ifindex = request.ifr_ifindex;
    ASSERT_EQ(bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    device_.emplace(NetConfig{tap_.get(), kMac, 1500}, loop_);
  }
  // The host's IPv6 would greet its neighbours on the new interface and use up buffers of the test.
  static void silenceHost(const std::string& interface) {
    const Fd setting(open(("/proc/sys/net/ipv6/conf/" + interface + "/disable_ipv6").c_str(),
                          O_WRONLY | O_CLOEXEC));
    if (setting) writeFull(setting.get(), "1");
  }
  void activate(uint64_t features) {
    std::vector<Queue> queues;
    queues.push_back(receive_.queue());
    queues.push_back(transmit_.queue());
    device_->activate({memory_, host_, features, std::move(queues)});
  }
  static std::string frame(const MacAddress& source, size_t payload) {
    std::string text(6, '\xff');
    text.append(reinterpret_cast<const char*>(source.data()), source.size());
    text += "\x88\xb5";
    for (size_t i = 0; i < payload; ++i) text.push_back(static_cast<char>('a' + i % 26));
    return text;
  }
  void turn() {
    for (int i = 0; i < 10; ++i) {
      device_->notify();
      loop_.runOnce(std::chrono::milliseconds(1));
    }
  }
  std::string received() {
    std::string text(4096, '\0');
    const ssize_t got = recv(socket_.get(), text.data(), text.size(), MSG_DONTWAIT);
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return text;
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

  static constexpr uint16_t kProtocol = 0x88b5;  // IEEE: local experiments
  GuestMemory memory_{testing::kTestMemoryBytes};
  FakeDriver receive_{memory_, 16, 0x10000};
  FakeDriver transmit_{memory_, 16, 0x100000};
  FakeHost host_;
  EventLoop loop_;
  Fd tap_, socket_;
  std::optional<NetDevice> device_;
  uint16_t seen_ = 0;
};

TEST_F(TapTest, SendsWhatIsItsOwnAndDropsTheRest) {
  activate(kAll);
  const auto send = [&](const MacAddress& source, const NetHeader& header) {
    const std::string text = frame(source, 50);
    ChainBuilder(transmit_).readableValue(header).readable(text).send();
    turn();
    return received() == text;
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

TEST_F(TapTest, FrameIsSpreadOverMergeableBuffers) {
  activate(netBit(kNetMergeBuffers));
  std::map<uint32_t, GuestAddress> buffers;
  for (int i = 0; i < 16; ++i) {
    GuestAddress where = 0;
    const uint16_t head = ChainBuilder(receive_).writable(400, &where).send();
    buffers[head] = where;
  }
  const std::string text = frame({2, 0, 0, 0, 0, 9}, 1000);
  ASSERT_EQ(write(socket_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
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
  const std::string text = frame({2, 0, 0, 0, 0, 9}, 100);
  ASSERT_EQ(write(socket_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  turn();
  EXPECT_EQ(receive_.usedIndex(), 0);
  GuestAddress where = 0;
  ChainBuilder(receive_).writable(2000, &where).send();
  turn();
  const std::string got = nextUsed(where);
  ASSERT_EQ(got.size(), 12 + text.size());
  EXPECT_EQ(got.substr(12), text);
}

TEST_F(TapTest, BrokenRingsNeedReset) {
  activate(0);
  receive_.setAvailableIndex(1000);
  const std::string text = frame({2, 0, 0, 0, 0, 9}, 100);
  ASSERT_EQ(write(socket_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  turn();
  EXPECT_TRUE(host_.reset_reason);
}

}  // namespace
}  // namespace hull::vmm::virtio
