// Addresses, DNS messages and the forwarder, relays and published ports, on the loopback
// interface: no privilege needed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <future>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "daemon/network/address.h"
#include "daemon/network/dns_forwarder.h"
#include "daemon/network/loop_thread.h"
#include "daemon/network/name_table.h"
#include "daemon/network/published_ports.h"
#include "daemon/network/tcp_relay.h"
#include "base/udp_relay.h"

namespace hull::engine {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Address, ParsesAndFormats) {
  EXPECT_EQ(parseAddress("172.17.0.2"), 0xac110002u);
  EXPECT_EQ(formatAddress(0xac110002), "172.17.0.2");
  EXPECT_EQ(formatSubnet(*parseSubnet("172.17.0.0/16")), "172.17.0.0/16");
  EXPECT_EQ(formatMac(macOf(0xac110002)), "02:42:ac:11:00:02");
  for (const char* bad : {"", "172.17.0.0", "172.17.0.1/16", "172.17.0.0/33", "172.17.0.0/30",
                          "0.0.0.0/0", "172.17.0.0/16x", "172.17/16"}) {
    EXPECT_EQ(parseSubnet(bad), std::nullopt) << bad;
  }
}

TEST(Address, TakenSubnetIsLeftToTheNextFreeOne) {
  const auto subnet = [](const char* text) { return *parseSubnet(text); };
  const Subnet wanted = subnet("172.17.0.0/16");
  EXPECT_EQ(chooseSubnet(wanted, {subnet("10.0.0.0/8")}), wanted);
  EXPECT_EQ(chooseSubnet(wanted, {subnet("172.17.4.0/24"), subnet("172.16.0.0/16")}),
            subnet("172.18.0.0/16"));
  EXPECT_EQ(chooseSubnet(wanted, {Subnet{0xac100000, 12}}), std::nullopt);  // all of 172.16/12
}

// --- DNS ---

std::string dnsQuery(uint16_t id, const std::string& name = "example") {
  std::string message{static_cast<char>(id >> 8), static_cast<char>(id)};
  message += std::string("\1\0\0\1\0\0\0\0\0\0", 10);
  message += static_cast<char>(name.size());
  return message + name + std::string("\0\0\1\0\1", 5);
}

std::string dnsReply(const std::string& query, char answer) {
  std::string reply = query;
  reply[2] = static_cast<char>(0x81);
  return reply + answer;  // what follows the question is not the forwarder's business
}

TEST(DnsMessage, TakesQueriesOnly) {
  const std::string good = dnsQuery(0x1234);
  ASSERT_TRUE(parseDnsQuery(good));
  EXPECT_EQ(parseDnsQuery(good)->id, 0x1234);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(parseDnsQuery(good.substr(0, size)), std::nullopt) << size;
  }
  EXPECT_EQ(parseDnsQuery(dnsReply(good, 'x')), std::nullopt);
  EXPECT_EQ(parseDnsQuery(good + std::string(kMaxDnsQueryBytes, 'x')), std::nullopt);
  std::string pointer = good;
  pointer[12] = static_cast<char>(0xc0);
  EXPECT_EQ(parseDnsQuery(pointer), std::nullopt);
  std::string two = good;
  two[5] = 2;
  EXPECT_EQ(parseDnsQuery(two), std::nullopt);
  std::string endless = good.substr(0, 12);
  for (int i = 0; i < 20; ++i) endless += '\x3f' + std::string(63, 'a');
  EXPECT_EQ(parseDnsQuery(endless + std::string(5, '\0')), std::nullopt);
}

TEST(DnsMessage, ReplyMustBelongToTheQuery) {
  const std::string query = dnsQuery(7);
  const auto parsed = *parseDnsQuery(query);
  EXPECT_TRUE(answersDnsQuery(parsed, dnsReply(query, 'x')));
  EXPECT_TRUE(answersDnsQuery(parsed, dnsServerFailure(parsed, query)));
  EXPECT_FALSE(answersDnsQuery(parsed, query));
  EXPECT_FALSE(answersDnsQuery(parsed, dnsReply(dnsQuery(8), 'x')));
  EXPECT_FALSE(answersDnsQuery(parsed, dnsReply(dnsQuery(7, "elsewhere"), 'x')));
  EXPECT_FALSE(answersDnsQuery(parsed, "short"));
}

TEST(DnsResolvers, ReadFromResolvConf) {
  const auto found = parseResolvers(
      "# comment\nnameserver 127.0.0.53\nsearch x\nnameserver 172.17.0.1\nnameserver nonsense\n"
      "nameserver ::1\n",
      0xac110001);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].ipv4(), 0x7f000035u);
  EXPECT_EQ(found[1].family(), AF_INET6);
}

Fd udpSocket(const char* host) {
  Fd made(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto address = *SocketAddress::parse(host, 0);
  EXPECT_EQ(bind(made.get(), address.get(), address.length), 0);
  const timeval patience{20, 0};
  setsockopt(made.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  return made;
}

class DnsTest : public testing::Test {
 protected:
  // Resolvers all use one port, so they are told apart by their loopback address.
  void start(const std::string& resolv_conf, uint16_t port) {
    std::ofstream(root_.path() + "/resolv.conf") << resolv_conf;
    options_.resolv_conf = root_.path() + "/resolv.conf";
    options_.resolver_port = port;
    options_.attempt_timeout = std::chrono::milliseconds(200);
    forwarder_ = loop_.run(
        [&] { return std::make_unique<DnsForwarder>(loop_.loop(), 0x7f000001, 0, options_); });
    guest_ = udpSocket("127.0.0.1");
    const auto address = *SocketAddress::parse("127.0.0.1", forwarder_->port());
    ASSERT_EQ(connect(guest_.get(), address.get(), address.length), 0);
  }
  void TearDown() override {
    if (forwarder_) loop_.run([&] { forwarder_.reset(); });
  }
  std::string receive() {
    std::string buffer(4096, '\0');
    const ssize_t got = recv(guest_.get(), buffer.data(), buffer.size(), 0);
    buffer.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return buffer;
  }
  void ask(const std::string& message) {
    EXPECT_EQ(send(guest_.get(), message.data(), message.size(), 0),
              static_cast<ssize_t>(message.size()));
  }
  static std::pair<std::string, SocketAddress> take(const Fd& resolver) {
    std::string buffer(4096, '\0');
    SocketAddress from;
    from.length = sizeof from.storage;
    const ssize_t got =
        recvfrom(resolver.get(), buffer.data(), buffer.size(), 0, from.get(), &from.length);
    buffer.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return {buffer, from};
  }
  static void answer(const Fd& resolver, const std::string& reply, const SocketAddress& to) {
    sendto(resolver.get(), reply.data(), reply.size(), 0, to.get(), to.length);
  }

  TemporaryDirectory root_;
  LoopThread loop_;
  DnsOptions options_;
  std::unique_ptr<DnsForwarder> forwarder_;
  Fd guest_;
};

TEST_F(DnsTest, AnswersComeBackToTheGuestWhoAsked) {
  const Fd resolver = udpSocket("127.0.0.2");
  start("nameserver 127.0.0.2\n", SocketAddress::local(resolver.get()).port());
  ask("nonsense");
  ask(dnsQuery(1));
  const auto [query, from] = take(resolver);
  EXPECT_EQ(query, dnsQuery(1));
  answer(resolver, dnsReply(dnsQuery(2), 'w'), from);  // a forged one
  answer(resolver, dnsReply(query, 'a'), from);
  EXPECT_EQ(receive(), dnsReply(query, 'a'));
}

TEST_F(DnsTest, NamesOfTheNetworkAreAnsweredHere) {
  NetworkSpec network;
  network.id = network.name = "app";
  network.subnet = parseSubnet("127.0.0.0/16");
  network.gateway = 0x7f00fffe;
  Lease lease;
  lease.container = "c";
  lease.network = "app";
  lease.address = 0x7f000001;
  lease.names = {"example"};
  lease.servers = {"127.0.0.2"};
  NameTable names(root_.path() + "/hosts");
  names.set({network}, {lease});
  options_.names = &names;
  const Fd resolver = udpSocket("127.0.0.2");
  start("nameserver 127.0.0.9\n", SocketAddress::local(resolver.get()).port());
  ask(dnsQuery(1, "Example"));
  const std::string reply = receive();
  ASSERT_TRUE(answersDnsQuery(*parseDnsQuery(dnsQuery(1, "Example")), reply));
  EXPECT_EQ(reply.substr(reply.size() - 4), std::string("\x7f\0\0\1", 4));
  ask(dnsQuery(2, "elsewhere"));
  EXPECT_EQ(take(resolver).first, dnsQuery(2, "elsewhere")) << "its own server is asked";
  loop_.run([&] { forwarder_.reset(); });  // before the names
}

TEST_F(DnsTest, DeadResolverIsSkippedAndTheLivingOneRemembered) {
  const Fd resolver = udpSocket("127.0.0.2");
  start("nameserver 127.0.0.3\nnameserver 127.0.0.2\n",
        SocketAddress::local(resolver.get()).port());
  for (uint16_t id = 1; id < 3; ++id) {
    ask(dnsQuery(id));
    const auto [query, from] = take(resolver);
    answer(resolver, dnsReply(query, 'a'), from);
    EXPECT_EQ(receive(), dnsReply(dnsQuery(id), 'a'));
  }
}

TEST_F(DnsTest, NoResolverIsAServerFailure) {
  start("", 53);
  ask(dnsQuery(9));
  EXPECT_EQ(receive(), dnsServerFailure(*parseDnsQuery(dnsQuery(9)), dnsQuery(9)));
  // The file is read again once it has changed.
  const Fd resolver = udpSocket("127.0.0.2");
  loop_.run([&] { forwarder_.reset(); });
  start("nameserver 127.0.0.2\n", SocketAddress::local(resolver.get()).port());
  ask(dnsQuery(10));
  EXPECT_EQ(take(resolver).first, dnsQuery(10));
}

TEST_F(DnsTest, SilentResolversEndInAServerFailureAndNothingIsLeft) {
  const Fd resolver = udpSocket("127.0.0.2");
  start("nameserver 127.0.0.2\n", SocketAddress::local(resolver.get()).port());
  ask(dnsQuery(3));
  EXPECT_EQ(receive(), dnsServerFailure(*parseDnsQuery(dnsQuery(3)), dnsQuery(3)));
  EXPECT_EQ(loop_.run([&] { return forwarder_->inFlight(); }), 0u);
}

TEST_F(DnsTest, OneGuestCannotTakeEveryPlace) {
  const Fd resolver = udpSocket("127.0.0.2");
  options_.attempt_timeout = std::chrono::minutes(10);
  std::ofstream(root_.path() + "/resolv.conf") << "nameserver 127.0.0.2\n";
  options_.resolv_conf = root_.path() + "/resolv.conf";
  options_.resolver_port = SocketAddress::local(resolver.get()).port();
  forwarder_ = loop_.run(
      [&] { return std::make_unique<DnsForwarder>(loop_.loop(), 0x7f000001, 0, options_); });
  guest_ = udpSocket("127.0.0.1");
  const auto address = *SocketAddress::parse("127.0.0.1", forwarder_->port());
  ASSERT_EQ(connect(guest_.get(), address.get(), address.length), 0);
  for (uint16_t id = 0; id < 2 * kMaxDnsQueriesPerGuest; ++id) ask(dnsQuery(id));
  for (size_t i = 0; i < kMaxDnsQueriesPerGuest; ++i) take(resolver);
  EXPECT_EQ(loop_.run([&] { return forwarder_->inFlight(); }), kMaxDnsQueriesPerGuest);
}

// --- TCP ---

Fd tcpListener(uint16_t& port) {
  Fd listener = listenTcp(*SocketAddress::parse("127.0.0.1", 0));
  setNonBlocking(listener.get(), false);
  port = SocketAddress::local(listener.get()).port();
  return listener;
}
Fd tcpConnect(uint16_t port) {
  Fd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto address = *SocketAddress::parse("127.0.0.1", port);
  const timeval patience{20, 0};
  setsockopt(client.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (connect(client.get(), address.get(), address.length) < 0) client.reset();
  return client;
}
std::string readAllOf(int fd) {
  std::string all;
  std::array<char, 65536> buffer;
  for (ssize_t got; (got = recv(fd, buffer.data(), buffer.size(), 0)) > 0;) {
    all.append(buffer.data(), static_cast<size_t>(got));
  }
  return all;
}

class RelayTest : public testing::Test {
 protected:
  uint16_t start(TcpRelay::TargetFunction target, RelayLimits limits = {}) {
    uint16_t port = 0;
    Fd listener = tcpListener(port);
    relay_ = loop_.run([&] {
      return std::make_unique<TcpRelay>(loop_.loop(), std::move(listener), std::move(target),
                                        limits);
    });
    return port;
  }
  TcpRelay::TargetFunction to(uint16_t port) {
    return [port](size_t attempt) {
      return attempt == 0 ? SocketAddress::parse("127.0.0.1", port) : std::nullopt;
    };
  }
  void TearDown() override {
    loop_.run([&] { relay_.reset(); });
  }

  LoopThread loop_;
  std::unique_ptr<TcpRelay> relay_;
};

TEST_F(RelayTest, MuchDataBothWaysWithHalfClose) {
  uint16_t server_port = 0;
  const Fd server = tcpListener(server_port);
  const uint16_t port = start(to(server_port));
  std::string request(8 << 20, 'q'), answer(9 << 20, 'a');
  std::thread serving([&] {
    const Fd peer(accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_EQ(readAllOf(peer.get()).size(), request.size());  // ends by the client's half-close
    writeFull(peer.get(), answer);
  });
  const Fd client = tcpConnect(port);
  writeFull(client.get(), request);
  shutdown(client.get(), SHUT_WR);
  EXPECT_EQ(readAllOf(client.get()), answer);
  serving.join();
  // Both ends have closed: nothing is kept.
  while (loop_.run([&] { return relay_->connections(); }) != 0) std::this_thread::yield();
}

TEST_F(RelayTest, RefusedTargetClosesTheConnection) {
  uint16_t unused = 0;
  tcpListener(unused).reset();
  const Fd client = tcpConnect(start(to(unused)));
  EXPECT_EQ(readAllOf(client.get()), "");
}

TEST_F(RelayTest, NextTargetIsTriedWhenOneRefuses) {
  uint16_t unused = 0, server_port = 0;
  tcpListener(unused).reset();
  const Fd server = tcpListener(server_port);
  const uint16_t port = start([&](size_t attempt) {
    return SocketAddress::parse("127.0.0.1", attempt == 0 ? unused : server_port);
  });
  const Fd client = tcpConnect(port);
  const Fd peer(accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
  writeFull(peer.get(), "hello");
  shutdown(peer.get(), SHUT_RDWR);
  EXPECT_EQ(readAllOf(client.get()), "hello");
}

TEST_F(RelayTest, ConnectionsBeyondTheLimitWaitForAPlace) {
  uint16_t server_port = 0;
  const Fd server = tcpListener(server_port);
  const uint16_t port =
      start(to(server_port), {1, std::chrono::seconds(20), std::chrono::milliseconds(0)});
  Fd first = tcpConnect(port);
  Fd peer(accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const Fd second = tcpConnect(port);
  pollfd waiting{server.get(), POLLIN, 0};
  EXPECT_EQ(poll(&waiting, 1, 50), 0);
  first.reset();
  peer.reset();
  EXPECT_EQ(poll(&waiting, 1, 60000), 1);
}

TEST_F(RelayTest, ResetReachesTheOtherSide) {
  uint16_t server_port = 0;
  const Fd server = tcpListener(server_port);
  const uint16_t port = start(to(server_port));
  Fd client = tcpConnect(port);
  const Fd peer(accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC));
  const linger hard{1, 0};
  setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
  client.reset();
  EXPECT_EQ(readAllOf(peer.get()), "");
}

// --- published ports ---

class PublishTest : public testing::Test {
 protected:
  LoopThread loop_;
  PublishedPorts ports_{loop_, ""};
};

TEST_F(PublishTest, RelaysToTheGuestUntilUnpublished) {
  uint16_t guest_port = 0;
  const Fd guest = tcpListener(guest_port);
  const auto real = ports_.publish("c", 0x7f000001, {{"127.0.0.1", 0, guest_port}});
  ASSERT_EQ(real.size(), 1u);
  ASSERT_NE(real[0].host_port, 0);
  const Fd client = tcpConnect(real[0].host_port);
  const Fd peer(accept4(guest.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_TRUE(peer.valid());
  ports_.unpublish("c");
  EXPECT_EQ(readAllOf(client.get()), "");
  EXPECT_FALSE(tcpConnect(real[0].host_port).valid());
}

TEST_F(PublishTest, OfARangeTheFirstFreePortIsTaken) {
  uint16_t taken_port = 0;
  const Fd taken = tcpListener(taken_port);
  if (taken_port > 65000) GTEST_SKIP() << "no room for a range above port " << taken_port;
  PortMapping wanted{"127.0.0.1", taken_port, 80};
  wanted.host_port_last = static_cast<uint16_t>(taken_port + 500);
  const auto real = ports_.publish("c", 0x7f000001, {wanted});
  EXPECT_GT(real[0].host_port, taken_port);
  EXPECT_LE(real[0].host_port, wanted.host_port_last);
}

TEST_F(PublishTest, TheSamePortOfAnotherProtocolIsFree) {
  const auto tcp = ports_.publish("c", 0x7f000001, {{"127.0.0.1", 0, 80}});
  PortMapping wanted{"127.0.0.1", tcp[0].host_port, 80, "udp"};
  try {
    EXPECT_EQ(ports_.publish("c", 0x7f000001, {wanted})[0].host_port, tcp[0].host_port);
  } catch (const Error& error) {
    GTEST_SKIP() << "somebody else has that UDP port: " << error.what();
  }
  EXPECT_THROW(ports_.publish("d", 0x7f000001, {wanted}), Error);
}

TEST_F(PublishTest, TakenPortIsDockersErrorAndNothingIsKept) {
  uint16_t taken = 0, free = 0;
  const Fd holder = tcpListener(taken);
  tcpListener(free).reset();
  try {
    ports_.publish("0123456789abcdef", 0x7f000001,
                   {{"127.0.0.1", free, 80}, {"127.0.0.1", taken, 80}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConflict);
    EXPECT_EQ(std::string(error.what()),
              "driver failed programming external connectivity on endpoint 0123456789ab: Bind for "
              "127.0.0.1:" +
                  std::to_string(taken) + " failed: port is already allocated");
  }
  EXPECT_FALSE(tcpConnect(free).valid());
  EXPECT_NO_THROW(ports_.publish("c", 0x7f000001, {{"127.0.0.1", free, 80}}));
}

TEST_F(PublishTest, BadAddressIsAnInvalidArgument) {
  try {
    ports_.publish("c", 0x7f000001, {{"nowhere", 0, 80}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
  }
}

// Inside `hull machine`: the outer host's relay is a thread here.
class MachinePublishTest : public testing::Test {
 protected:
  // Takes one request, answers it, and tells when the connection ends.
  std::future<std::string> serveOnce(const std::string& answer) {
    return std::async(std::launch::async, [this, answer] {
      const Fd peer(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      std::string line;
      for (char c = 0; c != '\n' && recv(peer.get(), &c, 1, 0) == 1; line += c) {
      }
      writeFull(peer.get(), answer + "\n");
      readAllOf(peer.get());
      return line;
    });
  }
  TemporaryDirectory root_;
  std::string path_ = root_.path() + "/publisher.sock";
  Fd listener_ = listenUnix(path_);
  LoopThread loop_;
  PublishedPorts ports_{loop_, path_};
};

TEST_F(MachinePublishTest, PortIsAskedForOutsideAndHeldByTheConnection) {
  auto served = serveOnce(R"({"ok":true,"port":8080})");
  const auto real = ports_.publish("c", 0x7f000001, {{"0.0.0.0", 8080, 80}});
  EXPECT_EQ(real[0].host_port, 8080);
  EXPECT_EQ(served.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  ports_.unpublish("c");
  const std::string request = served.get();
  EXPECT_THAT(request, HasSubstr(R"("address":"0.0.0.0")"));
  EXPECT_THAT(request, HasSubstr(R"("port":8080)"));
  EXPECT_THAT(request, HasSubstr(R"("target":"127.0.0.1:)"));
}

TEST_F(MachinePublishTest, RefusalOutsideIsAConflict) {
  auto served = serveOnce(R"({"error":"address already in use"})");
  try {
    ports_.publish("c", 0x7f000001, {{"0.0.0.0", 8080, 80}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConflict);
    EXPECT_THAT(error.what(), HasSubstr("Bind for 0.0.0.0:8080 failed: port is already allocated"));
  }
}

}  // namespace
}  // namespace hull::engine
