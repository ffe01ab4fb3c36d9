#include "guest-init/server/connection_stream.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "guest-init/protocol/protocol.h"

namespace hull::guest {
namespace {

class ConnectionStreamTest : public testing::Test {
 protected:
  // The host asks for a connection.
  Fd ask() {
    FdPair pair = makeSocketPair(SOCK_STREAM | SOCK_NONBLOCK);
    streams_.add([&](StreamDone done) {
      return std::make_unique<ConnectionStream>(loop_, std::move(pair.second), sockets_->get("s"),
                                                std::move(done));
    });
    turn();
    return std::move(pair.first);
  }
  Fd connect() {
    Fd client = connectUnix(folder_.path() + "/s");
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
  const std::string connected_ = std::string(1, kConnected);

  TemporaryDirectory folder_{"hull-socket-test"};
  EventLoop loop_;
  StreamSet streams_{loop_};
  std::unique_ptr<Sockets> sockets_ = std::make_unique<Sockets>(loop_, folder_.path());
};

TEST_F(ConnectionStreamTest, TheHostIsToldAndThenTheyTalk) {
  const Fd host = ask();
  EXPECT_EQ(heard(host), "(nothing)");
  Fd client = connect();
  EXPECT_EQ(heard(host), connected_);
  say(client, "question");
  EXPECT_EQ(heard(host), "question");
  say(host, "answer");
  EXPECT_EQ(heard(client), "answer");
  shutdown(client.get(), SHUT_WR);
  turn();
  EXPECT_EQ(heard(host), "(end)");
  say(host, "after the end of the question");
  EXPECT_EQ(heard(client), "after the end of the question");
  client.reset();
  turn();
  EXPECT_LT(send(host.get(), "x", 1, MSG_NOSIGNAL), 0) << "the host learns of it";
}

TEST_F(ConnectionStreamTest, WhoConnectsWhileNobodyServesWaits) {
  ask().reset();  // an engine that was killed
  turn();
  const Fd early = connect();
  say(early, "hello");
  EXPECT_EQ(heard(early), "(nothing)");
  const Fd host = ask();
  EXPECT_EQ(heard(host), connected_ + "hello");
}

TEST_F(ConnectionStreamTest, EachConnectionIsAStreamOfItsOwn) {
  std::vector<Fd> hosts, clients;
  for (int i = 0; i < 100; ++i) {
    hosts.push_back(ask());
    clients.push_back(connect());
    say(clients.back(), std::to_string(i));
  }
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(heard(hosts[static_cast<size_t>(i)]), connected_ + std::to_string(i));
  }
  hosts[50].reset();
  turn();
  EXPECT_EQ(heard(clients[50]), "(end)");
  EXPECT_EQ(heard(clients[51]), "(nothing)");
}

// The end of an engine that was killed may not be known yet when the next one asks.
TEST_F(ConnectionStreamTest, WhoAsksLastIsServedFirst) {
  const Fd old = ask(), fresh = ask();
  const Fd client = connect();
  EXPECT_EQ(heard(fresh), connected_);
  EXPECT_EQ(heard(old), "(nothing)");
}

TEST_F(ConnectionStreamTest, AHostThatTalksFirstIsCutOff) {
  const Fd host = ask();
  say(host, "too early");
  EXPECT_EQ(heard(host), "(nothing)");
  turn();
  EXPECT_LT(send(host.get(), "x", 1, MSG_NOSIGNAL), 0);
  const Fd client = connect();
  EXPECT_EQ(heard(ask()), connected_);
}

TEST_F(ConnectionStreamTest, TheContainersEndIsTheEndOfWhoWaits) {
  const Fd host = ask();
  const Fd busy = ask();
  const Fd client = connect();
  sockets_.reset();
  turn();
  EXPECT_EQ(heard(host), "(end)");
  EXPECT_EQ(heard(busy), connected_);
  say(busy, "talk goes on");
  EXPECT_EQ(heard(client), "talk goes on");
}

TEST_F(ConnectionStreamTest, NamesArePlainAndBounded) {
  for (const char* name : {"", "../s", "a/b", "UP", "."}) {
    EXPECT_THROW(sockets_->get(name), Error) << name;
  }
  for (size_t i = 0; i < kMaxSockets; ++i) sockets_->get("s-" + std::to_string(i));
  EXPECT_THROW(sockets_->get("one-more"), Error);
  EXPECT_NO_THROW(sockets_->get("s-0"));
}

}  // namespace
}  // namespace hull::guest
