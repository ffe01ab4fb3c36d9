#include "vmm/virtio/vsock/vsock.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "vmm/testing/fake_driver.h"

namespace hull::vmm::virtio {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;
using testing::FakeHost;

constexpr uint32_t kCid = 7;
constexpr uint32_t kPort = 1000;  // of a service in the guest
constexpr uint16_t kSize = 64;
constexpr uint32_t kBufferBytes = 4096;

struct Packet {
  PacketHeader header{};
  std::string data;
};

// Client, device and guest driver on one thread; turn() lets the device do all it can.
class VsockTest : public ::testing::Test {
 protected:
  void activate() {
    std::vector<Queue> queues;
    queues.push_back(to_guest_.queue());
    queues.push_back(from_guest_.queue());
    queues.push_back(events_.queue());
    device_.activate({memory_, host_, 0, std::move(queues)});
    addBuffers(kSize / 2);
  }
  void addBuffers(int count, uint32_t bytes = kBufferBytes) {
    for (int i = 0; i < count; ++i) {
      GuestAddress where = 0;
      const uint16_t head = ChainBuilder(to_guest_).writable(bytes, &where).send();
      buffers_[head] = where;
    }
    turn();
  }
  void turn() {
    for (int i = 0; i < 20; ++i) {
      device_.notify();
      loop_.runOnce(std::chrono::milliseconds(0));
    }
  }
  Fd connect(const std::string& greeting = "CONNECT 1000\n") {
    Fd client = connectUnix(path_);
    setNonBlocking(client.get());
    writeFull(client.get(), greeting);
    turn();
    return client;
  }
  // The next packet the guest has received, if any.
  std::optional<Packet> next() {
    turn();
    if (seen_ == to_guest_.usedIndex()) return std::nullopt;
    const auto used = to_guest_.used(seen_++);
    const GuestAddress where = buffers_.at(static_cast<uint16_t>(used.id));
    Packet packet{to_guest_.get<PacketHeader>(where), {}};
    packet.data = to_guest_.text(where + kPacketHeaderBytes, used.length - kPacketHeaderBytes);
    EXPECT_EQ(packet.header.len, packet.data.size());
    EXPECT_EQ(packet.header.src_cid, kHostCid);
    EXPECT_EQ(packet.header.dst_cid, kCid);
    return packet;
  }
  uint16_t nextOperation() {
    const auto packet = next();
    return packet ? packet->header.op : uint16_t{VIRTIO_VSOCK_OP_INVALID};
  }
  PacketHeader headerTo(uint32_t host_port, uint16_t operation) {
    PacketHeader header{};
    header.src_cid = kCid;
    header.dst_cid = kHostCid;
    header.src_port = kPort;
    header.dst_port = host_port;
    header.type = VIRTIO_VSOCK_TYPE_STREAM;
    header.op = operation;
    header.buf_alloc = guest_credit_;
    header.fwd_cnt = guest_forwarded_;
    return header;
  }
  void send(const PacketHeader& header, std::string_view data = {}) {
    ChainBuilder builder(from_guest_);
    builder.readableValue(header);
    if (!data.empty()) builder.readable(data);
    builder.send();
    turn();
  }
  void send(uint32_t host_port, uint16_t operation, uint32_t flags = 0) {
    PacketHeader header = headerTo(host_port, operation);
    header.flags = flags;
    send(header);
  }
  void sendData(uint32_t host_port, std::string_view data) {
    PacketHeader header = headerTo(host_port, VIRTIO_VSOCK_OP_RW);
    header.len = static_cast<uint32_t>(data.size());
    send(header, data);
  }
  static std::string readAvailable(const Fd& client) {
    std::string text(1 << 20, '\0');
    const ssize_t got = recv(client.get(), text.data(), text.size(), MSG_DONTWAIT);
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return text;
  }
  static bool atEnd(const Fd& client) {
    char byte;
    return recv(client.get(), &byte, 1, MSG_DONTWAIT) == 0;
  }
  // A connection that the guest has accepted; gives its host port.
  std::pair<Fd, uint32_t> established() {
    Fd client = connect();
    const auto request = next();
    EXPECT_TRUE(request && request->header.op == VIRTIO_VSOCK_OP_REQUEST);
    const uint32_t port = request ? request->header.src_port : 0;
    send(port, VIRTIO_VSOCK_OP_RESPONSE);
    EXPECT_EQ(readAvailable(client), "OK " + std::to_string(port) + "\n");
    return {std::move(client), port};
  }

  TemporaryDirectory folder_;
  std::string path_ = folder_.path() + "/vsock";
  Fd listener_ = listenUnix(path_);
  GuestMemory memory_{16 << 20};
  FakeDriver to_guest_{memory_, kSize, 0x10000};
  FakeDriver from_guest_{memory_, kSize, 0x400000};
  FakeDriver events_{memory_, 16, 0x800000};
  FakeHost host_;
  EventLoop loop_;
  VsockDevice device_{VsockConfig{kCid, listener_.get()}, loop_};
  std::map<uint16_t, GuestAddress> buffers_;
  uint16_t seen_ = 0;
  uint32_t guest_credit_ = 1 << 20;
  uint32_t guest_forwarded_ = 0;
};

TEST_F(VsockTest, ConnectsAndCarriesBytesBothWays) {
  activate();
  auto [client, port] = established();
  writeFull(client.get(), "question");
  auto packet = next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->header.op, VIRTIO_VSOCK_OP_RW);
  EXPECT_EQ(packet->data, "question");
  EXPECT_EQ(packet->header.dst_port, kPort);
  sendData(port, "answer");
  EXPECT_EQ(readAvailable(client), "answer");
}

TEST_F(VsockTest, BytesBehindTheGreetingAreNotLost) {
  activate();
  Fd client = connect("CONNECT 1000\nearly");
  const auto request = next();
  ASSERT_TRUE(request);
  send(request->header.src_port, VIRTIO_VSOCK_OP_RESPONSE);
  const auto packet = next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->data, "early");
}

TEST_F(VsockTest, GreetingMayComeInPieces) {
  activate();
  Fd client = connect("CONN");
  EXPECT_FALSE(next());
  writeFull(client.get(), "ECT 1000\n");
  EXPECT_EQ(nextOperation(), VIRTIO_VSOCK_OP_REQUEST);
}

TEST_F(VsockTest, BadGreetingsAreAnswered) {
  activate();
  for (const char* greeting : {"GET / HTTP/1.1\n", "CONNECT\n", "CONNECT x\n", "CONNECT 1x\n",
                               "CONNECT 99999999999\n", "CONNECT 1000 and much more\n"}) {
    Fd client = connect(greeting);
    EXPECT_EQ(readAvailable(client).substr(0, 4), "ERR ") << greeting;
    EXPECT_TRUE(atEnd(client));
  }
  Fd endless = connect(std::string(64, 'x'));
  EXPECT_EQ(readAvailable(endless).substr(0, 4), "ERR ");
  EXPECT_EQ(device_.streams(), 0u);
  EXPECT_FALSE(next());
}

TEST_F(VsockTest, ConnectionWaitsForTheGuestsDriver) {
  Fd client = connect();
  EXPECT_EQ(readAvailable(client), "");
  activate();
  EXPECT_EQ(nextOperation(), VIRTIO_VSOCK_OP_REQUEST);
}

TEST_F(VsockTest, RefusedByTheGuest) {
  activate();
  Fd client = connect();
  const auto request = next();
  ASSERT_TRUE(request);
  send(request->header.src_port, VIRTIO_VSOCK_OP_RST);
  EXPECT_EQ(readAvailable(client).substr(0, 4), "ERR ");
  EXPECT_TRUE(atEnd(client));
  EXPECT_FALSE(next());  // a reset is never answered with one
}

TEST_F(VsockTest, ClientThatGivesUpTakesItsRequestBack) {
  activate();
  Fd client = connect();
  const auto request = next();
  ASSERT_TRUE(request);
  client.reset();
  EXPECT_EQ(nextOperation(), VIRTIO_VSOCK_OP_RST);
  EXPECT_EQ(device_.streams(), 0u);
}

// §5.10.6.5, both directions apart.
TEST_F(VsockTest, HalfCloseByTheClient) {
  activate();
  auto [client, port] = established();
  writeFull(client.get(), "last");
  shutdown(client.get(), SHUT_WR);
  EXPECT_EQ(next()->data, "last");
  const auto packet = next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->header.op, VIRTIO_VSOCK_OP_SHUTDOWN);
  EXPECT_EQ(packet->header.flags, kShutdownSend);
  sendData(port, "still here");
  EXPECT_EQ(readAvailable(client), "still here");
  send(port, VIRTIO_VSOCK_OP_SHUTDOWN, kShutdownBoth);
  EXPECT_TRUE(atEnd(client));
  EXPECT_EQ(nextOperation(), VIRTIO_VSOCK_OP_RST);
  EXPECT_EQ(device_.streams(), 0u);
}

TEST_F(VsockTest, HalfCloseByTheGuest) {
  activate();
  auto [client, port] = established();
  sendData(port, "last");
  send(port, VIRTIO_VSOCK_OP_SHUTDOWN, kShutdownSend);
  EXPECT_EQ(readAvailable(client), "last");
  EXPECT_TRUE(atEnd(client));
  writeFull(client.get(), "reply");
  EXPECT_EQ(next()->data, "reply");
}

TEST_F(VsockTest, ClosedClientEndsWithShutdownAndReset) {
  activate();
  auto [client, port] = established();
  writeFull(client.get(), "bye");
  client.reset();
  EXPECT_EQ(next()->data, "bye");
  const auto packet = next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->header.op, VIRTIO_VSOCK_OP_SHUTDOWN);
  EXPECT_EQ(packet->header.flags, kShutdownBoth);
  EXPECT_EQ(device_.streams(), 1u);
  send(port, VIRTIO_VSOCK_OP_RST);
  EXPECT_EQ(device_.streams(), 0u);
}

TEST_F(VsockTest, SlowClientGetsEveryByteEvenAfterTheGuestHasGone) {
  activate();
  auto [client, port] = established();
  const int small = 4096;
  setsockopt(client.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  std::string sent;
  for (int i = 0; i < 16; ++i) {
    const std::string piece(8192, static_cast<char>('a' + i));
    sendData(port, piece);
    sent += piece;
  }
  send(port, VIRTIO_VSOCK_OP_RST);
  std::string got;
  for (int i = 0; i < 1000 && got.size() < sent.size(); ++i) {
    got += readAvailable(client);
    turn();
  }
  EXPECT_TRUE(got == sent);
  EXPECT_TRUE(atEnd(client));
  EXPECT_EQ(device_.streams(), 0u);
}

// ---- credit (§5.10.6.3) -------------------------------------------------------------------------

TEST_F(VsockTest, NeverSendsMoreThanTheGuestCanTake) {
  guest_credit_ = 10;
  activate();
  auto [client, port] = established();
  writeFull(client.get(), "0123456789abcdef");
  EXPECT_EQ(next()->data, "0123456789");
  EXPECT_FALSE(next());
  guest_forwarded_ = 4;
  send(port, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
  EXPECT_EQ(next()->data, "abcd");
  guest_credit_ = 2;  // shrunk in flight
  send(port, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
  EXPECT_FALSE(next());
  guest_forwarded_ = 14;
  send(port, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
  EXPECT_EQ(next()->data, "ef");
}

TEST_F(VsockTest, ClientEndIsSeenAfterCreditReturns) {
  guest_credit_ = 2;
  activate();
  auto [client, port] = established();
  writeFull(client.get(), "abcd");
  client.reset();
  EXPECT_EQ(next()->data, "ab");
  EXPECT_FALSE(next());
  guest_forwarded_ = 2;
  send(port, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
  EXPECT_EQ(next()->data, "cd");
  EXPECT_EQ(nextOperation(), VIRTIO_VSOCK_OP_SHUTDOWN);
}

TEST_F(VsockTest, GuestThatOverdrawsItsCreditLosesTheStream) {
  activate();
  auto [client, port] = established();
  const int small = 4096;
  setsockopt(client.get(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  int sent = 0;
  while (device_.streams() == 1 && sent < 100) {
    sendData(port, std::string(8192, 'x'));
    ++sent;
  }
  // The client's socket takes a part, then at most kBufferBytes are held.
  EXPECT_LT(sent, 100);
  uint16_t operation = nextOperation();
  while (operation == VIRTIO_VSOCK_OP_CREDIT_UPDATE) operation = nextOperation();
  EXPECT_EQ(operation, VIRTIO_VSOCK_OP_RST);
}

TEST_F(VsockTest, GuestThatForwardsWhatWasNeverSentLosesTheStream) {
  activate();
  auto [client, port] = established();
  guest_forwarded_ = 1;
  send(port, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
  EXPECT_EQ(device_.streams(), 0u);
}

TEST_F(VsockTest, CreditRequestIsAnswered) {
  activate();
  auto [client, port] = established();
  send(port, VIRTIO_VSOCK_OP_CREDIT_REQUEST);
  const auto packet = next();
  ASSERT_TRUE(packet);
  EXPECT_EQ(packet->header.op, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
  EXPECT_EQ(packet->header.buf_alloc, ReceiveCredit::kBufferBytes);
}

TEST(SendCreditTest, CountersWrap) {
  SendCredit credit;
  ASSERT_TRUE(credit.update(100, 0));
  uint32_t total = 0;
  for (uint64_t sent = 0; sent < (uint64_t{1} << 33); sent += uint64_t{1} << 30) {
    credit.spend(1u << 30);
    total += 1u << 30;
    EXPECT_EQ(credit.available(), 0u);
    ASSERT_TRUE(credit.update(100, total));
    EXPECT_EQ(credit.available(), 100u);
  }
  EXPECT_FALSE(credit.update(100, total + 1));
  EXPECT_FALSE(credit.update(100, total - 1));  // cannot go back either
}

// ---- hostile guests -----------------------------------------------------------------------------

TEST_F(VsockTest, ForeignAddressesAreDroppedInSilence) {
  activate();
  auto [client, port] = established();
  PacketHeader header = headerTo(port, VIRTIO_VSOCK_OP_RST);
  header.src_cid = kCid + 1;
  send(header);
  header = headerTo(port, VIRTIO_VSOCK_OP_RST);
  header.dst_cid = 9;
  send(header);
  header = headerTo(port, VIRTIO_VSOCK_OP_RST);
  header.src_cid |= uint64_t{1} << 32;  // the upper half is reserved, but not ours to ignore
  send(header);
  EXPECT_EQ(device_.streams(), 1u);
  EXPECT_FALSE(next());
}

TEST_F(VsockTest, UnknownAndSpoofedStreamsAreReset) {
  activate();
  auto [client, port] = established();
  send(4711, VIRTIO_VSOCK_OP_RW);
  EXPECT_EQ(nextOperation(), VIRTIO_VSOCK_OP_RST);
  send(4711, VIRTIO_VSOCK_OP_REQUEST);
  EXPECT_EQ(nextOperation(), VIRTIO_VSOCK_OP_RST);
  PacketHeader header = headerTo(port, VIRTIO_VSOCK_OP_RW);
  header.src_port = kPort + 1;
  send(header);
  EXPECT_EQ(nextOperation(), VIRTIO_VSOCK_OP_RST);
  EXPECT_EQ(device_.streams(), 1u);
  EXPECT_EQ(readAvailable(client), "");
}

TEST_F(VsockTest, NonsenseOnAStreamResetsIt) {
  activate();
  const auto resets = [&](auto change) {
    auto [client, port] = established();
    PacketHeader header = headerTo(port, VIRTIO_VSOCK_OP_RW);
    change(header);
    send(header);
    EXPECT_EQ(nextOperation(), VIRTIO_VSOCK_OP_RST);
    EXPECT_EQ(device_.streams(), 0u);
  };
  resets([](auto& h) { h.op = VIRTIO_VSOCK_OP_INVALID; });
  resets([](auto& h) { h.op = 999; });
  resets([](auto& h) { h.op = VIRTIO_VSOCK_OP_REQUEST; });
  resets([](auto& h) { h.op = VIRTIO_VSOCK_OP_RESPONSE; });
  resets([](auto& h) { h.type = 3; });
  resets([](auto& h) { h.len = 1; });  // more than the buffer holds
  resets([](auto& h) { h.len = UINT32_MAX; });
}

TEST_F(VsockTest, ResponseBeforeTheRequestIsNotBelieved) {
  activate();
  auto first = established();
  // No buffers: the next request cannot have reached the guest.
  while (to_guest_.usedIndex() < kSize / 2) {
    send(1, VIRTIO_VSOCK_OP_RW);
  }
  Fd client = connect();
  send(first.second + 1, VIRTIO_VSOCK_OP_RESPONSE);
  EXPECT_EQ(readAvailable(client), "");
}

TEST_F(VsockTest, TinyBuffersAndShortPacketsHarmNobody) {
  std::vector<Queue> queues;
  queues.push_back(to_guest_.queue());
  queues.push_back(from_guest_.queue());
  queues.push_back(events_.queue());
  device_.activate({memory_, host_, 0, std::move(queues)});
  addBuffers(4, 10);
  ChainBuilder(from_guest_).readable("short").send();
  turn();
  Fd client = connect();
  EXPECT_EQ(to_guest_.usedIndex(), 4);  // wasted
  EXPECT_EQ(to_guest_.used(0).length, 0u);
  seen_ = 4;
  addBuffers(1);
  EXPECT_EQ(nextOperation(), VIRTIO_VSOCK_OP_REQUEST);
  EXPECT_FALSE(host_.reset_reason);
}

// What the guest does not take is not kept: of all the resets it asks for, a bounded number waits.
TEST_F(VsockTest, FloodForUnknownStreamsHoldsABoundedNumberOfResets) {
  std::vector<Queue> queues;
  queues.push_back(to_guest_.queue());
  queues.push_back(from_guest_.queue());
  queues.push_back(events_.queue());
  device_.activate({memory_, host_, 0, std::move(queues)});
  for (size_t i = 0; i < VsockDevice::kMaxResets * 3; ++i) {
    PacketHeader header = headerTo(static_cast<uint32_t>(i), VIRTIO_VSOCK_OP_RW);
    ChainBuilder(from_guest_).readableValue(header).send();
    device_.notify();
  }
  size_t resets = 0;
  do {
    addBuffers(1, kPacketHeaderBytes);
  } while (nextOperation() == VIRTIO_VSOCK_OP_RST && ++resets < VsockDevice::kMaxResets * 3);
  EXPECT_EQ(resets, VsockDevice::kMaxResets);
}

TEST_F(VsockTest, GuestThatConnectsWithoutEndIsResetEachTime) {
  activate();
  for (uint32_t i = 0; i < kSize * 4; ++i) {
    PacketHeader header = headerTo(80, VIRTIO_VSOCK_OP_REQUEST);
    header.src_port = i;
    send(header);
    EXPECT_EQ(device_.streams(), 0u);
    const auto packet = next();
    ASSERT_TRUE(packet);
    EXPECT_EQ(packet->header.op, VIRTIO_VSOCK_OP_RST);
    EXPECT_EQ(packet->header.dst_port, i);
    addBuffers(1, kPacketHeaderBytes);
  }
}

TEST_F(VsockTest, BrokenRingNeedsReset) {
  activate();
  from_guest_.setAvailableIndex(kSize + 1);
  device_.notify();
  EXPECT_TRUE(host_.reset_reason);
}

TEST_F(VsockTest, DriverResetEndsStreamsAndTheNextDriverServes) {
  activate();
  auto [client, port] = established();
  device_.reset();
  EXPECT_TRUE(atEnd(client));
  EXPECT_EQ(device_.streams(), 0u);
}

TEST_F(VsockTest, StreamsAreBounded) {
  activate();
  std::vector<Fd> clients;
  for (size_t i = 0; i < VsockDevice::kMaxStreams + 8; ++i) {
    try {
      Fd client = connectUnix(path_);
      clients.push_back(std::move(client));
    } catch (const Error&) {
      break;  // the backlog is full, too
    }
    loop_.runOnce(std::chrono::milliseconds(0));
  }
  turn();
  EXPECT_EQ(device_.streams(), VsockDevice::kMaxStreams);
  clients.clear();
  turn();
  EXPECT_LT(device_.streams(), VsockDevice::kMaxStreams);
}

TEST_F(VsockTest, LoadTellsTheGuestToForgetItsConnections) {
  activate();
  ByteWriter out;
  device_.save(out);
  GuestAddress event = 0;
  ChainBuilder(events_).writable(4, &event).send();
  events_.put<uint32_t>(event, 99);
  ByteReader in(out.bytes());
  ASSERT_TRUE(device_.load(in));
  EXPECT_EQ(events_.usedIndex(), 1);
  EXPECT_EQ(events_.get<uint32_t>(event), uint32_t{VIRTIO_VSOCK_EVENT_TRANSPORT_RESET});
}

// Or the new connection would end with those that it is to forget.
TEST_F(VsockTest, ConnectionsAfterALoadWaitUntilTheGuestHasForgottenTheOldOnes) {
  activate();
  for (int i = 0; i < 3; ++i) ChainBuilder(events_).writable(4).send();
  ByteWriter out;
  device_.save(out);
  ByteReader in(out.bytes());
  ASSERT_TRUE(device_.load(in));
  const Fd client = connect();
  EXPECT_FALSE(next());
  ChainBuilder(events_).writable(4).send();  // the guest has read the event
  EXPECT_EQ(nextOperation(), VIRTIO_VSOCK_OP_REQUEST);
}

TEST_F(VsockTest, DriverThatStartsAnewAfterALoadHasNothingToForget) {
  activate();
  ByteWriter out;
  device_.save(out);
  ByteReader in(out.bytes());
  ASSERT_TRUE(device_.load(in));  // without a buffer for the event
  const Fd client = connect();
  EXPECT_FALSE(next());
  device_.reset();
  activate();
  EXPECT_EQ(nextOperation(), VIRTIO_VSOCK_OP_REQUEST);
}

}  // namespace
}  // namespace hull::vmm::virtio
