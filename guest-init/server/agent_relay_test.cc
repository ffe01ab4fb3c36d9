#include "guest-init/server/agent_relay.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "base/file.h"

namespace hull::guest {
namespace {

using ssh_agent::framed;

class AgentRelayTest : public testing::Test {
 protected:
  AgentRelayTest() {
    FdPair pair = makeSocketPair(SOCK_STREAM);
    host_ = std::move(pair.first);
    relay_ = std::make_unique<AgentRelay>(loop_, std::move(pair.second), listenUnix(path_), path_,
                                          [this] { done_ = true; });
  }
  Fd connect() {
    Fd client = connectUnix(path_);
    setNonBlocking(client.get());
    turn();
    return client;
  }
  void turn() {  // until nothing happens any more
    for (int i = 0; i < 20; ++i) loop_.runOnce(std::chrono::milliseconds(0));
  }
  void say(const Fd& to, const std::string& bytes) {
    writeFull(to.get(), bytes);
    turn();
  }
  static std::string heard(const Fd& from) {
    std::string bytes(1 << 20, '\0');
    const ssize_t got = recv(from.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    return got < 0 ? "(nothing)" : got == 0 ? "(end)" : bytes.substr(0, static_cast<size_t>(got));
  }

  TemporaryDirectory folder_{"hull-agent-test"};
  const std::string path_ = folder_.path() + "/agent";
  EventLoop loop_;
  Fd host_;
  std::unique_ptr<AgentRelay> relay_;
  bool done_ = false;
};

TEST_F(AgentRelayTest, RequestsGoOneByOneAndAnswersToWhoAsked) {
  const Fd first = connect(), second = connect();
  say(first, framed("list"));
  say(second, framed("sign"));
  EXPECT_EQ(heard(host_), framed("list")) << "the second waits";
  say(host_, framed("keys"));
  EXPECT_EQ(heard(first), framed("keys"));
  EXPECT_EQ(heard(second), "(nothing)");
  EXPECT_EQ(heard(host_), framed("sign"));
  say(host_, framed("signature"));
  EXPECT_EQ(heard(second), framed("signature"));
}

TEST_F(AgentRelayTest, SeveralRequestsAtOnceAreAnsweredInOrder) {
  const Fd client = connect();
  say(client, framed("a") + framed("b"));
  EXPECT_EQ(heard(host_), framed("a"));
  say(host_, framed("1"));
  EXPECT_EQ(heard(host_), framed("b"));
  say(host_, framed("2"));
  EXPECT_EQ(heard(client), framed("1") + framed("2"));
}

TEST_F(AgentRelayTest, WhoLeavesWithoutItsAnswerHoldsNobodyUp) {
  Fd gone = connect(), waits = connect();
  const Fd stays = connect();
  say(gone, framed("x"));
  say(waits, framed("y"));
  say(stays, framed("z"));
  gone.reset();
  waits.reset();
  turn();
  EXPECT_EQ(heard(host_), framed("x"));
  say(host_, framed("for nobody"));
  EXPECT_EQ(heard(host_), framed("z"));
  say(host_, framed("here"));
  EXPECT_EQ(heard(stays), framed("here"));
}

TEST_F(AgentRelayTest, WhatIsNoMessageEndsThatConnectionAlone) {
  const Fd bad = connect(), good = connect();
  say(bad, std::string("\xff\xff\xff\xff", 4));
  EXPECT_EQ(heard(bad), "(end)");
  say(good, framed("list"));
  EXPECT_EQ(heard(host_), framed("list"));
}

TEST_F(AgentRelayTest, ConnectionsAreBounded) {
  std::vector<Fd> clients;
  for (size_t i = 0; i < kMaxAgentConnections; ++i) clients.push_back(connect());
  EXPECT_EQ(heard(connect()), "(end)");
  EXPECT_EQ(heard(clients.back()), "(nothing)");
  clients.clear();
  turn();
  EXPECT_EQ(heard(connect()), "(nothing)");
}

TEST_F(AgentRelayTest, AnAnswerThatNobodyAskedForEndsIt) {
  const Fd client = connect();
  say(host_, framed("surprise"));
  EXPECT_TRUE(done_);
  EXPECT_EQ(heard(client), "(end)");
}

TEST_F(AgentRelayTest, WhenTheHostLeavesTheSocketGoes) {
  const Fd client = connect();
  host_.reset();
  turn();
  EXPECT_TRUE(done_);
  EXPECT_EQ(heard(client), "(end)");
  EXPECT_FALSE(fileExists(path_));
}

}  // namespace
}  // namespace hull::guest
