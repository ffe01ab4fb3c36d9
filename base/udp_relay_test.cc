// Senders, a relay and a server on loopback, in one thread.
#include "base/udp_relay.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <vector>

namespace hull {
namespace {

constexpr int kSteps = 6000;  // a minute: for a test that hangs, not for a slow host

class UdpRelayTest : public testing::Test {
 protected:
  static Fd socketOn(uint16_t port, bool connected) {
    Fd made(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto address = *SocketAddress::parse("127.0.0.1", port);
    EXPECT_EQ((connected ? ::connect : ::bind)(made.get(), address.get(), address.length), 0);
    return made;
  }
  // The port that senders use.
  uint16_t start(UdpRelayLimits limits = {}) {
    Fd bound = bindUdp(*SocketAddress::parse("127.0.0.1", 0));
    const uint16_t port = SocketAddress::local(bound.get()).port();
    const auto target = SocketAddress::local(server_.get());
    relay_.emplace(
        loop_, std::move(bound),
        [this, target](UdpRelay::Answer answer) {
          ++opened_;
          return converseWith(loop_, target, std::move(answer));
        },
        limits);
    return port;
  }
  template <typename Condition>
  bool until(Condition condition) {
    for (int i = 0; i < kSteps; ++i) {
      if (condition()) return true;
      loop_.runOnce(std::chrono::milliseconds(10));
    }
    return false;
  }
  // One byte; who sent it.
  char receive(const Fd& from, SocketAddress* sender = nullptr) {
    char byte = 0;
    SocketAddress address;
    EXPECT_TRUE(until([&] {
      address.length = sizeof address.storage;
      return recvfrom(from.get(), &byte, 1, 0, address.get(), &address.length) == 1;
    }));
    if (sender != nullptr) *sender = address;
    return byte;
  }

  EventLoop loop_;
  Fd server_ = socketOn(0, false);
  std::optional<UdpRelay> relay_;
  int opened_ = 0;
};

TEST_F(UdpRelayTest, EachSenderGetsItsOwnAnswers) {
  const uint16_t port = start();
  const Fd one = socketOn(port, true), two = socketOn(port, true);
  for (const Fd* sender : {&one, &two, &one}) {
    const char name = sender == &one ? '1' : '2';
    ASSERT_EQ(send(sender->get(), &name, 1, 0), 1);
    SocketAddress from;
    const char got = receive(server_, &from);
    sendto(server_.get(), &got, 1, 0, from.get(), from.length);
    EXPECT_EQ(receive(*sender), name);
  }
  EXPECT_EQ(relay_->flows(), 2u);
  EXPECT_EQ(opened_, 2);
}

TEST_F(UdpRelayTest, TheSenderIdleLongestMakesPlaceAndAllAreForgotten) {
  const uint16_t port = start({2, std::chrono::milliseconds(50)});
  std::vector<Fd> senders;
  for (int i = 0; i < 5; ++i) {
    senders.push_back(socketOn(port, true));
    ASSERT_EQ(send(senders.back().get(), "x", 1, 0), 1);
    EXPECT_EQ(receive(server_), 'x');
    EXPECT_LE(relay_->flows(), 2u);
  }
  EXPECT_TRUE(until([&] { return relay_->flows() == 0; }));
}

TEST_F(UdpRelayTest, AConversationThatIsOverMakesPlaceForANewOne) {
  struct Over final : UdpRelay::Conversation {
    bool send(std::string_view) override { return false; }
  };
  Fd bound = bindUdp(*SocketAddress::parse("127.0.0.1", 0));
  const Fd sender = socketOn(SocketAddress::local(bound.get()).port(), true);
  relay_.emplace(loop_, std::move(bound), [this](const UdpRelay::Answer&) {
    ++opened_;
    return std::make_unique<Over>();
  });
  for (int tries = 1; tries <= 3; ++tries) {
    ASSERT_EQ(send(sender.get(), "x", 1, 0), 1);
    EXPECT_TRUE(until([&] { return opened_ == tries; }));
    EXPECT_EQ(relay_->flows(), 0u);
  }
}

}  // namespace
}  // namespace hull
