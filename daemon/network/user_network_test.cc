// Networks of an engine without root: what passt is told, and what is refused.
#include "daemon/network/user_network.h"

#include <gmock/gmock.h>
#include <sys/socket.h>

#include "base/error.h"
#include "base/socket_address.h"
#include "base/udp_relay.h"
#include "daemon/network/passt.h"
#include "daemon/network/tcp_relay.h"

namespace hull::engine {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

// "--option value" pairs of a command line, joined.
std::vector<std::string> pairsOf(const std::vector<std::string>& words) {
  std::vector<std::string> pairs;
  for (size_t i = 0; i + 1 < words.size(); ++i) pairs.push_back(words[i] + " " + words[i + 1]);
  return pairs;
}

TEST(Passt, IsToldEverythingAndAsksNobody) {
  PasstOptions options;
  options.program = "/usr/bin/passt";
  options.subnet = *parseSubnet("172.17.0.0/16");
  options.guest = *parseAddress("172.17.0.2");
  options.gateway = *parseAddress("172.17.0.1");
  EXPECT_THAT(passtCommand(options),
              ElementsAre("/usr/bin/passt", "--foreground", "--quiet", "--ipv4-only", "--address",
                          "172.17.0.2", "--netmask", "16", "--gateway", "172.17.0.1", "--mac-addr",
                          "02:42:ac:11:00:01", "--mtu", "65520", "--dns-forward", "172.17.0.1",
                          "--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra", "--no-map-gw",
                          "--tcp-ports", "none", "--udp-ports", "none"));
}

TEST(Passt, ForwardsPortsAtTheirHostAddresses) {
  PasstOptions options;
  options.ports = {{"0.0.0.0", 18080, 80, "tcp", 0},
                   {"127.0.0.1", 2222, 22, "tcp", 0},
                   {"0.0.0.0", 5353, 53, "udp", 0}};
  const auto pairs = pairsOf(passtCommand(options));
  EXPECT_THAT(pairs, IsSupersetOf({"--tcp-ports 0.0.0.0/18080:80", "--tcp-ports 127.0.0.1/2222:22",
                                   "--udp-ports 0.0.0.0/5353:53"}));
  EXPECT_THAT(pairs, Not(Contains(HasSubstr("none"))));
}

TEST(Passt, LeadsToTheHostOnlyWhenAskedTo) {
  PasstOptions options;
  EXPECT_THAT(passtCommand(options), Contains("--no-map-gw"));
  options.reaches_host = true;
  EXPECT_THAT(passtCommand(options), Not(Contains("--no-map-gw")));
}

class UserNetworkTest : public ::testing::Test {
 protected:
  static NetworkOptions options() {
    NetworkOptions options;
    options.without_root = true;
    options.passt = "/usr/bin/passt";
    return options;
  }
  static UserNetwork::Host host() {
    UserNetwork::Host host;
    host.subnets = [] { return std::vector<Subnet>{*parseSubnet("172.17.0.0/16")}; };
    host.addresses = [] { return std::vector<uint32_t>{*parseAddress("192.0.2.7")}; };
    host.first_user_port = [] { return uint16_t{1024}; };
    return host;
  }
  static NetworkSpec named(const std::string& name) {
    NetworkSpec network;
    network.id = "id";
    network.name = name;
    return network;
  }
  static uint16_t freePort() {
    return SocketAddress::local(listenTcp(*SocketAddress::parse("127.0.0.1", 0)).get()).port();
  }
  Attachment attach(const std::string& container, std::vector<PortMapping> ports) {
    EndpointSpec endpoint;
    endpoint.ports = std::move(ports);
    return network_.attach(container, endpoint, false);
  }
  template <typename Work>
  static std::string refusal(ErrorKind kind, Work&& work) {
    try {
      work();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind);
      return error.what();
    }
    return "done";
  }

  UserNetwork network_{options(), host()};
};

TEST_F(UserNetworkTest, AContainerGetsAPasstOfItsOwnInASubnetTheHostHasNot) {
  const Attachment card = attach("c1", {});
  EXPECT_EQ(card.address, "172.16.0.2");
  EXPECT_EQ(card.gateway, "172.16.0.1");
  EXPECT_EQ(card.resolver, "172.16.0.1");
  EXPECT_EQ(card.network, kDefaultNetwork);
  EXPECT_EQ(card.mtu, kPasstMtu);
  EXPECT_FALSE(card.tap.valid());
  EXPECT_THAT(pairsOf(card.passt),
              IsSupersetOf({"--address 172.16.0.2", "--gateway 172.16.0.1", "--tcp-ports none"}));
  EXPECT_EQ(attach("c2", {}).address, "172.16.0.2");  // each is alone
  EXPECT_FALSE(network_.addSpare("c1"));
}

TEST_F(UserNetworkTest, WhatMayNotBeReachedIsForTheVmmToDrop) {
  const auto subnet = [](const char* address, uint8_t bits) {
    return Subnet{*parseAddress(address), bits};
  };
  EXPECT_THAT(attach("c1", {}).blocked,
              ElementsAre(subnet("0.0.0.0", 8), subnet("127.0.0.0", 8),
                          subnet("169.254.169.254", 32), subnet("192.0.2.7", 32)));
  EndpointSpec endpoint;
  endpoint.reaches_host = true;
  const Attachment open = network_.attach("c2", endpoint, false);
  EXPECT_THAT(open.blocked, ElementsAre(subnet("0.0.0.0", 8), subnet("127.0.0.0", 8),
                                        subnet("169.254.169.254", 32)));
  EXPECT_THAT(open.passt, Not(Contains("--no-map-gw")));
}

TEST_F(UserNetworkTest, PortsAreChosenBeforePasstStarts) {
  const uint16_t fixed = freePort();
  const Attachment card =
      attach("c1", {{"127.0.0.1", fixed, 80, "tcp", 0}, {"127.0.0.1", 0, 53, "udp", 0}});
  const auto ports = network_.publish("c1", {});
  ASSERT_EQ(ports.size(), 2u);
  EXPECT_EQ(ports[0].host_port, fixed);
  EXPECT_GE(ports[1].host_port, 1024);
  EXPECT_THAT(
      pairsOf(card.passt),
      IsSupersetOf({"--tcp-ports 127.0.0.1/" + std::to_string(fixed) + ":80",
                    "--udp-ports 127.0.0.1/" + std::to_string(ports[1].host_port) + ":53"}));
}

TEST_F(UserNetworkTest, ATakenPortIsRefusedInDockersWords) {
  const Fd listener = listenTcp(*SocketAddress::parse("127.0.0.1", 0));
  const uint16_t port = SocketAddress::local(listener.get()).port();
  const auto text =
      "Bind for 127.0.0.1:" + std::to_string(port) + " failed: port is already allocated";
  EXPECT_THAT(refusal(ErrorKind::kConflict,
                      [&] {
                        attach("c1", {{"127.0.0.1", port, 80, "tcp", 0}});
                      }),
              HasSubstr(text));
  // Of a range, the next one.
  attach("c2", {{"127.0.0.1", port, 80, "tcp", static_cast<uint16_t>(port + 20)}});
  EXPECT_GT(network_.publish("c2", {}).at(0).host_port, port);
}

// passt binds a little later: until then, and after a restart of the engine, the list counts.
TEST_F(UserNetworkTest, APortOfAnotherContainerIsTaken) {
  const uint16_t port = freePort();
  attach("c1", {{"127.0.0.1", port, 80, "tcp", 0}});
  const auto again = [&](const char* address) {
    return refusal(ErrorKind::kConflict, [&] { attach("c2", {{address, port, 80, "tcp", 0}}); });
  };
  EXPECT_THAT(again("127.0.0.1"), HasSubstr("port is already allocated"));
  EXPECT_THAT(again("0.0.0.0"), HasSubstr("port is already allocated"));
  attach("c2", {{"127.0.0.1", port, 80, "udp", 0}});  // another protocol, another port
  network_.detach("c1");
  EXPECT_THAT(again("127.0.0.1"), HasSubstr("done"));
}

TEST_F(UserNetworkTest, LowPortsSayWhyAndWhatToDo) {
  EXPECT_THAT(refusal(ErrorKind::kForbidden,
                      [&] {
                        attach("c1", {{"0.0.0.0", 80, 80, "tcp", 0}});
                      }),
              AllOf(HasSubstr("Bind for 0.0.0.0:80 failed"), HasSubstr("from 1024 on"),
                    HasSubstr("net.ipv4.ip_unprivileged_port_start=80")));
}

TEST_F(UserNetworkTest, WhatPasstCannotDoIsRefusedWithASentence) {
  EXPECT_THAT(refusal(ErrorKind::kNotSupported, [&] { network_.add(named("app")); }),
              AllOf(HasSubstr("network app"), HasSubstr("runs as root")));
  EXPECT_THAT(refusal(ErrorKind::kNotSupported, [&] { network_.attach("c1", {}, true); }),
              HasSubstr("stop it"));
  EXPECT_THAT(
      refusal(ErrorKind::kNotSupported, [&] { network_.disconnect("c1", kDefaultNetwork); }),
      HasSubstr("stop it first"));
  EXPECT_THAT(refusal(ErrorKind::kNotSupported,
                      [&] {
                        attach("c1", {{"::1", 8080, 80, "tcp", 0}});
                      }),
              HasSubstr("IPv4 addresses only"));
  NetworkOptions open = options();
  open.open_host_ports = {"5432/tcp"};
  EXPECT_THAT(refusal(ErrorKind::kNotSupported, [&] { UserNetwork(open, host()); }),
              HasSubstr("host.docker.internal"));
  NetworkOptions without = options();
  without.passt.clear();
  EXPECT_THAT(refusal(ErrorKind::kUnavailable, [&] { UserNetwork(without, host()); }),
              HasSubstr("apt-get install passt"));
}

TEST_F(UserNetworkTest, ThereIsTheDefaultNetworkAlone) {
  network_.restore({named("app")});
  ASSERT_TRUE(network_.find(kDefaultNetwork));
  EXPECT_FALSE(network_.find("id"));
  EXPECT_EQ(network_.subnet(), "172.16.0.0/16");
}

}  // namespace
}  // namespace hull::engine
