// The network for real, in a network namespace of its own: bridge, taps, packet rules. Needs root
// and /dev/net/tun; skipped with the reason where they are missing.
#include "daemon/network/network.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "daemon/network/address.h"
#include "daemon/network/links.h"

namespace hull::engine {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr size_t kVnetHeaderBytes = 10;

class NetworkTest : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root to make a network namespace";
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP() << "needs /dev/net/tun";
    if (unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "cannot make a network namespace";
    run({"ip", "link", "set", "lo", "up"});
    options_.state_directory = root_.path() + "/network";
  }
  static std::string run(const std::vector<std::string>& command) { return checkCommand(command); }
  std::unique_ptr<Network> create() { return Network::create(options_); }
  static std::vector<std::string> taps() {
    std::vector<std::string> names;
    for (const auto& link : Links().list("ht")) names.push_back(link.name);
    return names;
  }
  // This engine's packet rules.
  static std::string rules(const std::string& family) {
    std::string found;
    const std::string tables = run({"nft", "list", "tables", family});
    for (size_t at = 0; (at = tables.find("hull_", at)) != std::string::npos; ++at) {
      found += run({"nft", "list", "table", family, tables.substr(at, 10)});
    }
    return found;
  }
  static NetworkSpec wanted(const std::string& id) {
    NetworkSpec network;
    network.id = network.name = id;
    return network;
  }

  TemporaryDirectory root_;
  NetworkOptions options_;
};

// An ARP request from a guest, as it would come out of its virtio-net device.
std::string arpFrame(const std::array<uint8_t, 6>& ethernet,
                     const std::array<uint8_t, 6>& sender_mac, uint32_t sender) {
  std::string frame(kVnetHeaderBytes, '\0');
  const auto put = [&](const void* bytes, size_t size) {
    frame.append(static_cast<const char*>(bytes), size);
  };
  frame += std::string(6, '\xff');
  put(ethernet.data(), 6);
  frame += std::string("\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01", 10);
  put(sender_mac.data(), 6);
  const uint32_t address = htonl(sender);
  put(&address, 4);
  frame += std::string(6, '\0') + std::string("\xac\x11\x00\x63", 4);
  return frame;
}

// Whether `frame`, sent by one guest, arrives at another.
bool arrives(const Attachment& from, const Attachment& at, const std::string& frame) {
  writeFull(from.tap.get(), frame);
  // Something else that certainly arrives marks the end: frames keep their order.
  writeFull(from.tap.get(), arpFrame(from.mac, from.mac, *parseAddress(from.address)));
  for (bool found = false;;) {
    pollfd polled{at.tap.get(), POLLIN, 0};
    if (poll(&polled, 1, 60000) <= 0) {
      ADD_FAILURE() << "the marker did not arrive";
      return found;
    }
    std::string got(2048, '\0');
    const ssize_t size = read(at.tap.get(), got.data(), got.size());
    if (size < 0) continue;
    got.resize(static_cast<size_t>(size));
    const std::string payload = got.substr(kVnetHeaderBytes);
    if (payload.starts_with(
            arpFrame(from.mac, from.mac, *parseAddress(from.address)).substr(kVnetHeaderBytes))) {
      return found;
    }
    if (payload.starts_with(frame.substr(kVnetHeaderBytes))) found = true;
  }
}

TEST_F(NetworkTest, AttachGivesATapAndDetachTakesItAway) {
  const auto network = create();
  EXPECT_EQ(network->subnet(), "172.17.0.0/16");
  EXPECT_EQ(network->gateway(), "172.17.0.1");
  const Attachment first = network->attach("aaaa", {});
  EXPECT_EQ(first.address, "172.17.0.2");
  EXPECT_EQ(formatMac(first.mac), "02:42:ac:11:00:02");
  EXPECT_EQ(first.gateway, "172.17.0.1");
  EXPECT_TRUE(first.tap.valid());
  EXPECT_EQ(network->attach("bbbb", {}).address, "172.17.0.3");
  EXPECT_THAT(run({"ip", "-o", "link", "show", "master", "hull0"}), HasSubstr(first.interface));
  EXPECT_EQ(taps().size(), 2u);
  network->detach("aaaa");
  network->detach("aaaa");
  EXPECT_EQ(taps().size(), 1u);
  EXPECT_EQ(network->attach("cccc", {}).address, "172.17.0.2");
}

TEST_F(NetworkTest, ShutdownLeavesNothing) {
  run({"nft", "add table inet other"});
  {
    const auto network = create();
    const Attachment attachment = network->attach("aaaa", {});
    EXPECT_THAT(rules("inet"), HasSubstr("hull0"));
    network->shutdown();
  }
  EXPECT_EQ(run({"nft", "list", "ruleset"}), "table inet other {\n}\n");
  EXPECT_TRUE(taps().empty());
  EXPECT_FALSE(Links().exists("hull0"));
}

TEST_F(NetworkTest, TakenSubnetIsAvoided) {
  run({"ip", "link", "add", "lan", "type", "bridge"});
  run({"ip", "addr", "add", "172.17.8.1/24", "dev", "lan"});
  run({"ip", "link", "set", "lan", "up"});
  run({"ip", "route", "add", "172.18.0.0/16", "dev", "lan"});
  EXPECT_EQ(create()->subnet(), "172.16.0.0/16");
}

TEST_F(NetworkTest, NextEngineKeepsLiveGuestsAndSweepsDeadOnes) {
  Attachment live, dead;
  {
    const auto network = create();
    live = network->attach("live", {});
    dead = network->attach("dead", {});
  }
  dead.tap.reset();  // its VMM has ended
  const auto network = create();
  const auto cards = network->reattach("live");
  ASSERT_EQ(cards.size(), 1u);
  const Attachment& again = cards[0];
  EXPECT_EQ(again.address, live.address);
  EXPECT_EQ(again.interface, live.interface);
  EXPECT_FALSE(again.tap.valid());
  EXPECT_THROW(network->reattach("dead"), Error);
  EXPECT_EQ(taps(), std::vector<std::string>{live.interface});
  EXPECT_THAT(rules("bridge"), HasSubstr(live.interface));
}

TEST_F(NetworkTest, OneEngineAfterAnotherFindsItsOwnBridge) {
  create();
  EXPECT_EQ(create()->subnet(), "172.17.0.0/16");
}

TEST_F(NetworkTest, GuestsSendOnlyAsThemselves) {
  const auto network = create();
  if (rules("bridge").empty()) {
    GTEST_SKIP() << "this kernel has no nftables for bridges";
  }
  const Attachment a = network->attach("aaaa", {}), b = network->attach("bbbb", {});
  const uint32_t own = *parseAddress(a.address), foreign = *parseAddress("172.17.0.1");
  const auto gateway_mac = macOf(foreign);
  // The marker within arrives() is what a guest may send; these are what it may not.
  EXPECT_FALSE(arrives(a, b, arpFrame(a.mac, a.mac, foreign)));
  EXPECT_FALSE(arrives(a, b, arpFrame(a.mac, gateway_mac, own)));
  EXPECT_FALSE(arrives(a, b, arpFrame(gateway_mac, gateway_mac, foreign)));
  std::string ipv6(kVnetHeaderBytes, '\0');
  ipv6 += std::string(6, '\xff') + std::string(reinterpret_cast<const char*>(a.mac.data()), 6) +
          "\x86\xdd" + std::string(60, 'x');
  EXPECT_FALSE(arrives(a, b, ipv6));
}

TEST_F(NetworkTest, TakenDnsPortIsRedirected) {
  run({"ip", "addr", "add", "172.17.0.1/32", "dev", "lo"});
  const Fd taken(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_port = htons(53);
  ASSERT_EQ(bind(taken.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any), 0);
  run({"ip", "addr", "del", "172.17.0.1/32", "dev", "lo"});
  const auto network = create();
  EXPECT_THAT(rules("inet"), HasSubstr("dport 53 redirect to"));
}

// --- networks of the user's ---

TEST_F(NetworkTest, ANetworkIsMadeUsedAndDropped) {
  const auto network = create();
  NetworkSpec asked = wanted("0123456789ab");
  asked.mtu = 1400;
  const NetworkSpec made = network->add(asked);
  EXPECT_EQ(formatSubnet(*made.subnet), "172.16.0.0/16");
  EXPECT_THAT(run({"ip", "-o", "addr", "show", made.bridge}), HasSubstr("172.16.0.1/16"));
  EXPECT_THAT(run({"ip", "-o", "link", "show", made.bridge}), HasSubstr("mtu 1400"));
  EndpointSpec endpoint;
  endpoint.network = made.id;
  endpoint.address = "172.16.5.5";
  const Attachment card = network->attach("aaaa", endpoint);
  EXPECT_EQ(card.slot, 0u);
  EXPECT_EQ(card.gateway, "172.16.0.1");
  EXPECT_EQ(network->attach("aaaa", {}).slot, 1u);
  EXPECT_THROW(network->attach("aaaa", {}), Error) << "in it already";
  EXPECT_THROW(network->drop(made.id), Error) << "in use";
  network->detach("aaaa");
  network->drop(made.id);
  network->drop(made.id);
  EXPECT_FALSE(Links().exists(made.bridge));
  EXPECT_THAT(rules("inet"), Not(HasSubstr(made.bridge)));
  EXPECT_FALSE(network->find(made.id));
}

TEST_F(NetworkTest, ARunningGuestsSpareCardMovesBetweenNetworks) {
  const auto network = create();
  const std::string id = network->add(wanted("0123456789ab")).id;
  EndpointSpec endpoint;
  endpoint.network = id;
  const Attachment first = network->attach("aaaa", {});
  EXPECT_THROW(network->attach("aaaa", endpoint, true), Error) << "no spare card";
  const Attachment spare = *network->addSpare("aaaa");
  EXPECT_EQ(spare.slot, 1u);
  EXPECT_THAT(run({"ip", "-o", "link", "show", spare.interface}), HasSubstr("state DOWN"));
  const Attachment card = network->attach("aaaa", endpoint, true);
  EXPECT_EQ(card.slot, 1u);
  EXPECT_FALSE(card.tap.valid());
  EXPECT_THAT(run({"ip", "-o", "link", "show", "master", network->find(id)->bridge}),
              HasSubstr(spare.interface));
  const auto freed = network->disconnect("aaaa", kDefaultNetwork);
  ASSERT_TRUE(freed);
  EXPECT_EQ(freed->slot, 0u);
  EXPECT_FALSE(network->disconnect("aaaa", kDefaultNetwork));
  EXPECT_EQ(network->attach("aaaa", {}, true).slot, 0u);
  EXPECT_EQ(taps().size(), 2u);
}

TEST_F(NetworkTest, NextEngineHasTheSameNetworksAndSweepsOthers) {
  NetworkSpec kept, forgotten;
  Attachment card, spare;
  {
    const auto network = create();
    kept = network->add(wanted("0123456789ab"));
    forgotten = network->add(wanted("ba9876543210"));
    EndpointSpec endpoint;
    endpoint.network = kept.id;
    card = network->attach("live", endpoint);
    spare = *network->addSpare("live");
  }
  const auto network = create();
  network->restore({kept});
  EXPECT_TRUE(Links().exists(kept.bridge));
  EXPECT_FALSE(Links().exists(forgotten.bridge));
  const auto cards = network->reattach("live");
  ASSERT_EQ(cards.size(), 2u);
  EXPECT_EQ(cards[0].address, card.address);
  EXPECT_EQ(cards[0].network, kept.id);
  EXPECT_EQ(cards[1].interface, spare.interface);
  EXPECT_THAT(rules("bridge"), HasSubstr(card.interface));
}

TEST_F(NetworkTest, TwoEnginesOnOneHostKeepOutOfEachOthersWay) {
  const auto first = create();
  const Attachment card = first->attach("aaaa", {});
  options_.state_directory = root_.path() + "/other";
  {
    const auto second = create();
    EXPECT_EQ(second->subnet(), "172.16.0.0/16");
    EXPECT_TRUE(Links().exists("hull1"));
    second->attach("bbbb", {});
    EXPECT_EQ(taps().size(), 2u);
    second->shutdown();
  }
  EXPECT_EQ(taps(), std::vector<std::string>{card.interface});
  EXPECT_THAT(rules("bridge"), HasSubstr(card.interface));
  EXPECT_TRUE(Links().exists("hull0"));
}

TEST_F(NetworkTest, RulesThatAreFlushedComeBack) {
  const auto network = create();
  const Attachment card = network->attach("aaaa", {});
  for (const char* command : {"flush ruleset", "flush table inet"}) {
    const std::string table = rules("inet").substr(0, rules("inet").find('{'));
    const bool whole = std::string(command) == "flush ruleset";
    run({"nft", whole ? command : "flush " + table});
    while (rules("inet").find("masquerade") == std::string::npos) usleep(10000);
  }
  if (rules("bridge").empty()) GTEST_SKIP() << "this kernel has no nftables for bridges";
  EXPECT_THAT(rules("bridge"), HasSubstr(card.interface));
}

TEST_F(NetworkTest, TwoHundredNetworks) {
  const auto network = create();
  for (int i = 0; i < 200; ++i) network->add(wanted(std::to_string(100000 + i)));
  EXPECT_EQ(Links().list("hb").size(), 200u);
  network->shutdown();
  EXPECT_EQ(Links().list("hb").size(), 0u);
}

TEST_F(NetworkTest, BadOptionsAreNamed) {
  options_.bridge = "a\"; flush ruleset";
  EXPECT_THROW(create(), Error);
  options_.bridge = "hull0";
  options_.subnet = "172.17.0.0";
  EXPECT_THROW(create(), Error);
}

}  // namespace
}  // namespace hull::engine
