// What reaches what: network namespaces stand for guests, for a computer outside and for the host.
// Needs root, /dev/net/tun and nftables; skipped with the reason where they are missing.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "daemon/network/links.h"
#include "daemon/network/network.h"
#include "base/socket_address.h"

namespace hull::engine {
namespace {

// A network namespace, held by a process that does nothing else.
class Place {
 public:
  Place() {
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) throw sysError("pipe");
    const Fd reader(ready[0]), writer(ready[1]);
    pid_ = fork();
    if (pid_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (unshare(CLONE_NEWNET) != 0) _exit(1);
      [[maybe_unused]] const ssize_t said = write(writer.get(), "x", 1);
      for (;;) pause();
    }
    char byte = 0;
    if (read(reader.get(), &byte, 1) != 1) throw Error(ErrorKind::kInternal, "no namespace");
    ip({"link", "set", "lo", "up"});
  }
  ~Place() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  pid_t pid() const { return pid_; }
  void ip(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"nsenter", "-t", std::to_string(pid_), "-n", "ip"});
    checkCommand(arguments);
  }
  // Sockets belong to the namespace of the thread that made them.
  template <typename Work>
  auto within(Work&& work) -> decltype(work()) {
    decltype(work()) result;
    std::thread([&] {
      const Fd space = openFile("/proc/" + std::to_string(pid_) + "/ns/net", O_RDONLY);
      if (setns(space.get(), CLONE_NEWNET) == 0) result = work();
    }).join();
    return result;
  }

 private:
  pid_t pid_ = -1;
};

Fd serve(const std::string& address, uint16_t port, int type = SOCK_STREAM) {
  const auto at = *SocketAddress::parse(address, port);
  Fd server(socket(AF_INET, type | SOCK_CLOEXEC, 0));
  const timeval patience{60, 0};
  setsockopt(server.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  if (bind(server.get(), at.get(), at.length) < 0) throw sysError("bind " + address);
  if (type == SOCK_STREAM && listen(server.get(), 8) < 0) throw sysError("listen");
  return server;
}

// The error of connecting; 0 when it is connected.
int tryToConnect(const std::string& address, uint16_t port) {
  const auto to = *SocketAddress::parse(address, port);
  const Fd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return connect(client.get(), to.get(), to.length) == 0 ? 0 : errno;
}

std::string addressOf(const SocketAddress& from) {
  return formatAddress(from.ipv4());
}

class PacketRulesTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root to make a network namespace";
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP() << "needs /dev/net/tun";
    if (unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "cannot make a network namespace";
    checkCommand({"ip", "link", "set", "lo", "up"});
    outside_ = std::make_unique<Place>();
    // 198.51.100.0/24 is "outside" (RFC 5737): .1 the host, .2 somebody else.
    wire("uplink", *outside_, "eth0");
    checkCommand({"ip", "addr", "add", "198.51.100.1/24", "dev", "uplink"});
    checkCommand({"ip", "link", "set", "uplink", "up"});
    outside_->ip({"addr", "add", "198.51.100.2/24", "dev", "eth0"});
    outside_->ip({"addr", "add", "169.254.169.254/32", "dev", "eth0"});
    outside_->ip({"link", "set", "eth0", "up"});
    checkCommand({"ip", "route", "add", "169.254.0.0/16", "dev", "uplink"});
    options_.state_directory = root_.path() + "/network";
    network_ = Network::create(options_);
  }
  void TearDown() override {
    if (network_) network_->shutdown();
  }
  static void wire(const std::string& here, Place& there, const std::string& name) {
    checkCommand({"ip", "link", "add", here, "type", "veth", "peer", "name", name, "netns",
                  std::to_string(there.pid())});
  }
  NetworkSpec add(const std::string& id, bool internal = false) {
    NetworkSpec network;
    network.id = network.name = id;
    network.internal = internal;
    return network_->add(network);
  }
  // A guest with a card in the network: a wire of the tap's name instead of the tap.
  std::unique_ptr<Place> guest(const std::string& container, const EndpointSpec& endpoint,
                               std::string& address) {
    Attachment card = network_->attach(container, endpoint);
    card.tap.reset();
    checkCommand({"ip", "link", "del", card.interface});
    auto place = std::make_unique<Place>();
    wire(card.interface, *place, "eth0");
    Links().putIntoBridge(card.interface, network_->find(endpoint.network)->bridge, card.mtu);
    place->ip({"link", "set", "eth0", "address", formatMac(card.mac), "up"});
    place->ip(
        {"addr", "add", card.address + "/" + std::to_string(card.prefix_length), "dev", "eth0"});
    if (!card.gateway.empty()) place->ip({"route", "add", "default", "via", card.gateway});
    address = card.address;
    return place;
  }
  static int connectFrom(Place& place, const std::string& address, uint16_t port) {
    return place.within([&] { return tryToConnect(address, port); });
  }

  const TemporaryDirectory root_;
  NetworkOptions options_;
  std::unique_ptr<Place> outside_;
  std::unique_ptr<Network> network_;
};

constexpr uint16_t kPort = 8080;

TEST_F(PacketRulesTest, GuestsReachTheirOwnNetworkAndTheOutsideOnly) {
  add("one");
  add("two");
  add("closed", true);
  std::string a, b, c, d;
  EndpointSpec in_one, in_two, in_closed;
  in_one.network = "one";
  in_two.network = "two";
  in_closed.network = "closed";
  const auto first = guest("a", in_one, a), second = guest("b", in_one, b),
             other = guest("c", in_two, c), closed = guest("d", in_closed, d);
  const Fd at_second = second->within([&] { return serve("0.0.0.0", kPort); });
  const Fd at_other = other->within([&] { return serve("0.0.0.0", kPort); });
  const Fd at_closed = closed->within([&] { return serve("0.0.0.0", kPort); });
  const Fd at_outside = outside_->within([&] { return serve("0.0.0.0", kPort); });
  EXPECT_EQ(connectFrom(*first, b, kPort), 0);
  EXPECT_NE(connectFrom(*first, c, kPort), 0);
  EXPECT_NE(connectFrom(*first, d, kPort), 0);
  closed->ip({"route", "add", "default", "via", formatAddress(network_->find("closed")->gateway)});
  EXPECT_NE(connectFrom(*closed, "198.51.100.2", kPort), 0);
  EXPECT_NE(connectFrom(*first, "169.254.169.254", kPort), 0) << "a cloud's credentials";
  EXPECT_EQ(connectFrom(*first, "198.51.100.2", kPort), 0);
  SocketAddress from;
  from.length = sizeof from.storage;
  const Fd seen(accept4(at_outside.get(), from.get(), &from.length, SOCK_CLOEXEC));
  EXPECT_EQ(addressOf(from), "198.51.100.1") << "masqueraded";
}

TEST_F(PacketRulesTest, TheHostsServicesAreForThoseWhoMay) {
  std::string a, b;
  EndpointSpec trusted;
  trusted.reaches_host = true;
  const auto ordinary = guest("a", {}, a), allowed = guest("b", trusted, b);
  const Fd service = serve("0.0.0.0", kPort);
  const std::string gateway = network_->gateway();
  EXPECT_NE(connectFrom(*ordinary, gateway, kPort), 0);
  EXPECT_NE(connectFrom(*ordinary, "198.51.100.1", kPort), 0);
  EXPECT_EQ(connectFrom(*allowed, gateway, kPort), 0);
  EXPECT_EQ(connectFrom(*ordinary, gateway, 53), 0) << "names";
}

TEST_F(PacketRulesTest, PublishedPortsKeepTheClientsAddress) {
  std::string a, b;
  const auto web = guest("a", {}, a), neighbour = guest("b", {}, b);
  const Fd tcp = web->within([&] { return serve("0.0.0.0", kPort); });
  const Fd udp = web->within([&] { return serve("0.0.0.0", kPort, SOCK_DGRAM); });
  const auto real =
      network_->publish("a", {{"0.0.0.0", 0, kPort}, {"198.51.100.1", 0, kPort, "udp"}});
  const uint16_t port = real[0].host_port, udp_port = real[1].host_port;
  EXPECT_EQ(connectFrom(*outside_, "198.51.100.1", port), 0);
  SocketAddress from;
  from.length = sizeof from.storage;
  const Fd seen(accept4(tcp.get(), from.get(), &from.length, SOCK_CLOEXEC));
  EXPECT_EQ(addressOf(from), "198.51.100.2");
  EXPECT_EQ(tryToConnect("127.0.0.1", port), 0) << "from the host itself";
  EXPECT_EQ(connectFrom(*neighbour, network_->gateway(), port), 0) << "from another guest";

  const Fd client = outside_->within([&] {
    Fd made(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const auto to = *SocketAddress::parse("198.51.100.1", udp_port);
    sendto(made.get(), "question", 8, 0, to.get(), to.length);
    return made;
  });
  char buffer[16] = {};
  ASSERT_EQ(recvfrom(udp.get(), buffer, sizeof buffer, 0, from.get(), &from.length), 8);
  EXPECT_EQ(addressOf(from), "198.51.100.2");
  sendto(udp.get(), "answer", 6, 0, from.get(), from.length);
  pollfd polled{client.get(), POLLIN, 0};
  ASSERT_EQ(poll(&polled, 1, 60000), 1);
  from.length = sizeof from.storage;
  EXPECT_EQ(recvfrom(client.get(), buffer, sizeof buffer, 0, from.get(), &from.length), 6);
  EXPECT_EQ(addressOf(from), "198.51.100.1");

  network_->unpublish("a");
  EXPECT_NE(connectFrom(*outside_, "198.51.100.1", port), 0);
}

TEST_F(PacketRulesTest, WhereTheHostDropsWhatItForwardsPublishedPortsWorkAllTheSame) {
  checkCommand({"nft",
                "add table ip other; add chain ip other FORWARD { type filter hook forward "
                "priority 0; policy drop; }"});
  std::string a;
  const auto web = guest("a", {}, a);
  const Fd tcp = web->within([&] { return serve("0.0.0.0", kPort); });
  const uint16_t port = network_->publish("a", {{"0.0.0.0", 0, kPort}})[0].host_port;
  EXPECT_EQ(connectFrom(*outside_, "198.51.100.1", port), 0);
}

}  // namespace
}  // namespace hull::engine
