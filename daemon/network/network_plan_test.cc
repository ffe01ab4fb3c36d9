// What is decided before anything is made: subnets, addresses, names, packet rules. No privilege
// needed.
#include "daemon/network/network_plan.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "daemon/network/firewall.h"
#include "daemon/network/leases.h"
#include "daemon/network/name_table.h"

namespace hull::engine {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Address, Ipv6) {
  EXPECT_EQ(formatAddress6(*parseAddress6("FD00::1")), "fd00::1");
  const Subnet6 subnet = *parseSubnet6("fd00:1:2:3::/64");
  EXPECT_EQ(formatSubnet6(subnet), "fd00:1:2:3::/64");
  EXPECT_EQ(formatAddress6(subnet.host(0x102)), "fd00:1:2:3::102");
  EXPECT_TRUE(subnet.contains(subnet.host(~uint64_t{0})));
  EXPECT_FALSE(subnet.contains(*parseAddress6("fd00:1:2:4::1")));
  EXPECT_TRUE(parseSubnet6("fd00:1::/48")->overlaps(*parseSubnet6("fd00:1:0:8000::/49")));
  EXPECT_EQ(formatAddress6(linkLocalOf(macOf(0xac110002))), "fe80::42:acff:fe11:2");
  for (const char* bad : {"", "fd00::1/64", "fd00::/47", "fd00::/121", "172.17.0.0/16"}) {
    EXPECT_EQ(parseSubnet6(bad), std::nullopt) << bad;
  }
}

TEST(Address, Macs) {
  EXPECT_EQ(formatMac(*parseMac("02:42:AC:11:00:02")), "02:42:ac:11:00:02");
  for (const char* bad : {"", "02:42:ac:11:00", "01:42:ac:11:00:02", "00:00:00:00:00:00",
                          "02:42:ac:11:00:0g", "02.42.ac.11.00.02"}) {
    EXPECT_EQ(parseMac(bad), std::nullopt) << bad;
  }
}

// --- planning ---

NetworkSpec wantedNetwork(const std::string& id, const char* subnet = nullptr) {
  NetworkSpec network;
  network.id = network.name = id;
  if (subnet) network.subnet = parseSubnet(subnet);
  return network;
}

ErrorKind kindOf(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.kind();
  }
  ADD_FAILURE() << "no error";
  return ErrorKind::kInternal;
}

TEST(NetworkPlan, SubnetsComeFromDockersPoolsAndMissWhatIsTaken) {
  std::vector<NetworkSpec> networks;
  const auto add = [&](NetworkSpec wanted) {
    wanted.ipv6 = true;
    networks.push_back(completeNetwork(wanted, networks, {*parseSubnet("172.20.0.0/16")}, "tag"));
    return networks.back();
  };
  EXPECT_EQ(formatSubnet(*add(wantedNetwork("n0")).subnet), "172.16.0.0/16");
  for (int i = 1; i < 200; ++i) add(wantedNetwork("n" + std::to_string(i)));
  for (size_t i = 0; i < networks.size(); ++i) {
    EXPECT_NE(formatSubnet(*networks[i].subnet), "172.20.0.0/16");
    EXPECT_EQ(networks[i].gateway, networks[i].subnet->gateway());
    for (size_t j = 0; j < i; ++j) {
      EXPECT_FALSE(networks[i].subnet->overlaps(*networks[j].subnet));
      EXPECT_FALSE(networks[i].subnet6->overlaps(*networks[j].subnet6));
    }
  }
  for (int i = 200; i < 271; ++i) add(wantedNetwork("n" + std::to_string(i)));
  EXPECT_EQ(kindOf([&] { add(wantedNetwork("one too many")); }), ErrorKind::kConflict);
}

TEST(NetworkPlan, BadRequestsAreNamed) {
  const auto present = completeNetwork(wantedNetwork("n", "10.1.0.0/16"), {}, {}, "tag");
  const auto kind = [&](const NetworkSpec& wanted) {
    return kindOf(
        [&] { completeNetwork(wanted, {present}, {*parseSubnet("192.168.1.0/24")}, "tag"); });
  };
  EXPECT_EQ(kind(wantedNetwork("m", "10.1.2.0/24")), ErrorKind::kConflict);
  EXPECT_EQ(kind(wantedNetwork("m", "192.168.0.0/16")), ErrorKind::kConflict);
  NetworkSpec wanted = wantedNetwork("m", "10.2.0.0/16");
  wanted.gateway = *parseAddress("10.3.0.1");
  EXPECT_EQ(kind(wanted), ErrorKind::kInvalidArgument);
  wanted.gateway = 0;
  wanted.range = parseSubnet("10.0.0.0/8");
  EXPECT_EQ(kind(wanted), ErrorKind::kInvalidArgument);
  wanted.range.reset();
  wanted.mtu = 67;
  EXPECT_EQ(kind(wanted), ErrorKind::kInvalidArgument);
}

TEST(NetworkPlan, EndpointsGetTheLowestFreeAddressOrTheOneAskedFor) {
  NetworkSpec wanted = wantedNetwork("n", "10.1.0.0/29");
  wanted.ipv6 = true;
  wanted.subnet6 = parseSubnet6("fd00::/64");
  const auto network = completeNetwork(wanted, {}, {}, "tag");
  std::vector<Lease> leases;
  const auto add = [&](const EndpointSpec& endpoint) {
    leases.push_back(planEndpoint(network, leases, "c" + std::to_string(leases.size()), endpoint));
    return leases.back();
  };
  EXPECT_EQ(formatAddress(add({}).address), "10.1.0.2");
  EndpointSpec fixed;
  fixed.address = "10.1.0.3";
  fixed.address6 = "fd00::77";
  fixed.mac = "02:00:00:00:00:01";
  fixed.names = {"DB.", "db", "alias"};
  const Lease lease = add(fixed);
  EXPECT_EQ(formatAddress6(*lease.address6), "fd00::77");
  EXPECT_EQ(lease.names, (std::vector<std::string>{"db", "alias"}));
  EXPECT_EQ(attachmentOf(lease, &network).gateway, "10.1.0.1");
  EXPECT_EQ(formatAddress(add({}).address), "10.1.0.4");
  EXPECT_EQ(kindOf([&] { add(fixed); }), ErrorKind::kForbidden);
  fixed.address = "10.1.0.1";
  EXPECT_EQ(kindOf([&] { add(fixed); }), ErrorKind::kForbidden) << "the gateway's";
  fixed.address = "10.2.0.1";
  EXPECT_EQ(kindOf([&] { add(fixed); }), ErrorKind::kInvalidArgument);
  fixed.address = "10.1.0.5";
  fixed.address6.clear();
  EXPECT_EQ(kindOf([&] { add(fixed); }), ErrorKind::kConflict) << "the MAC";
  leases.back().mac = macOf(*parseAddress("10.1.0.5"));  // a card that came from there
  EXPECT_NE(formatMac(add({}).mac), "02:42:0a:01:00:05");
  add({});
  EXPECT_EQ(kindOf([&] { add({}); }), ErrorKind::kConflict) << "full";
}

TEST(LeasesTest, SurviveTheEngine) {
  const TemporaryDirectory root;
  const std::string path = root.path() + "/leases.json";
  Lease lease;
  lease.container = "a";
  lease.interface = "tap0";
  lease.network = "n";
  lease.address = 0xac110002;
  lease.address6 = parseAddress6("fd00::2");
  lease.mac = macOf(lease.address);
  lease.names = {"db"};
  {
    Leases leases(path);
    leases.put(lease);
    lease.names = {"db", "www"};
    leases.put(lease);
    lease.slot = 1;
    lease.network.clear();
    leases.put(lease);
  }
  Leases again(path);
  ASSERT_EQ(again.of("a").size(), 2u);
  EXPECT_EQ(again.find("a", "n")->names.size(), 2u);
  EXPECT_EQ(again.find("a", "n")->address6, parseAddress6("fd00::2"));
  EXPECT_TRUE(again.of("a")[1].spare());
  again.remove("a", 0);
  EXPECT_EQ(again.find("a", "n"), nullptr);
}

TEST(LeasesTest, DamagedFileHoldsNone) {
  const TemporaryDirectory root;
  for (const char* text : {"", "{", "[]", R"({"cards":1})", R"({"cards":[{"container":"a"}]})"}) {
    std::ofstream(root.path() + "/leases.json", std::ios::trunc) << text;
    EXPECT_TRUE(Leases(root.path() + "/leases.json").all().empty()) << text;
  }
}

TEST(FirewallText, NamesOnlyItsOwnTables) {
  FirewallRules rules;
  rules.table = "hull_x";
  rules.tap_prefix = "htx-";
  rules.networks.push_back({"hull0", *parseSubnet("172.17.0.0/16"), 0xac110001, 5353});
  rules.guests.push_back({"htx-01", macOf(0xac110002), 0xac110002, parseAddress6("fd00::2")});
  rules.published.push_back({"udp", 0, 53, 0xac110002, 5300});
  const std::string inet = Firewall::inetTable(rules), bridge = Firewall::bridgeTable(rules);
  EXPECT_THAT(inet, HasSubstr("elements = { 172.17.0.0/16 }"));
  EXPECT_THAT(
      inet,
      HasSubstr("ip daddr 172.17.0.1 meta l4proto { tcp, udp } th dport 53 redirect to :5353"));
  EXPECT_THAT(inet, HasSubstr("udp . 53 : 172.17.0.2 . 5300"));
  EXPECT_THAT(bridge, HasSubstr("\"htx-01\" . 02:42:ac:11:00:02 . 172.17.0.2"));
  EXPECT_THAT(bridge, HasSubstr("\"htx-01\" . 02:42:ac:11:00:02 . fd00::2"));
  EXPECT_THAT(inet + bridge, Not(HasSubstr("flush")));
}

// --- names ---

DnsQuery query(const std::string& name, uint16_t type = kDnsA) {
  return {1, "", name, type, kDnsInternet};
}

class NameTableTest : public testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(hosts_) << "127.0.0.1 localhost\n10.9.9.9 Intranet # comment\n::1 six\nbroken\n";
    for (const char* id : {"a", "b"}) {
      networks_.push_back(completeNetwork(wantedNetwork(id), networks_, {}, "tag"));
    }
    networks_[1].internal = true;
  }
  uint32_t join(const std::string& container, size_t network, std::vector<std::string> names) {
    EndpointSpec endpoint;
    endpoint.names = std::move(names);
    leases_.push_back(planEndpoint(networks_[network], leases_, container, endpoint));
    leases_.back().slot = static_cast<unsigned>(leases_.size());
    table_.set(networks_, leases_);
    return leases_.back().address;
  }
  // Addresses, "-" when it is not known here.
  std::string find(uint32_t guest, const std::string& name, uint16_t type = kDnsA) {
    const auto answer = table_.find(guest, query(name, type));
    if (!answer) return "-";
    std::string text;
    for (const auto& record : answer->records) {
      uint32_t address = 0;
      std::memcpy(&address, record.data.data(), sizeof address);
      text += formatAddress(ntohl(address)) + " ";
    }
    return text;
  }
  const TemporaryDirectory root_;
  const std::string hosts_ = root_.path() + "/hosts";
  NameTable table_{hosts_};
  std::vector<NetworkSpec> networks_;
  std::vector<Lease> leases_;
};

TEST_F(NameTableTest, NamesAreKnownWithinTheNetworksOfTheAsker) {
  const uint32_t web = join("web", 0, {"web"}), both = join("both", 0, {"both"});
  const uint32_t db = join("db", 1, {"db", "store"});
  const uint32_t both_in_b = join("both", 1, {"both"});
  EXPECT_EQ(find(web, "both"), formatAddress(both) + " ");
  EXPECT_EQ(find(web, "db"), "-");
  EXPECT_EQ(find(both, "store"), formatAddress(db) + " ");
  EXPECT_EQ(find(both_in_b, "web"), formatAddress(web) + " ");
  EXPECT_EQ(find(db, "web"), "-");
  EXPECT_EQ(find(web, "both", kDnsAaaa), "") << "known, but without such an address";
  EXPECT_EQ(find(*parseAddress("10.0.0.1"), "web"), "-") << "no guest";
  EXPECT_TRUE(table_.mayAskElsewhere(web));
  EXPECT_FALSE(table_.mayAskElsewhere(db));
}

TEST_F(NameTableTest, OneNameMayStandForSeveral) {
  const uint32_t first = join("1", 0, {"web"}), second = join("2", 0, {"web"});
  EXPECT_THAT(find(first, "web"), HasSubstr(formatAddress(first)));
  EXPECT_THAT(find(first, "web"), HasSubstr(formatAddress(second)));
}

TEST_F(NameTableTest, TheHostsOwnNamesAndTheHostItself) {
  const uint32_t web = join("web", 0, {"web"}), db = join("db", 1, {"db"});
  EXPECT_EQ(find(web, "intranet"), "10.9.9.9 ");
  EXPECT_EQ(find(web, "localhost"), "-");
  EXPECT_EQ(find(web, "six", kDnsAaaa), "-");
  EXPECT_EQ(find(db, "intranet"), "-") << "from an internal network nothing leads out";
  EXPECT_EQ(find(web, "host.docker.internal"), formatAddress(networks_[0].gateway) + " ");
}

TEST_F(NameTableTest, AddressesHaveNames) {
  const uint32_t web = join("web", 0, {"web"});
  const auto answer = table_.find(web, query("2.0.16.172.in-addr.arpa", kDnsPtr));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->records, (std::vector<DnsRecord>{{kDnsPtr, dnsWireName("web.a")}}));
}

}  // namespace
}  // namespace hull::engine
