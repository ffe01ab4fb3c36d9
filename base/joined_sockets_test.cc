#include "base/joined_sockets.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>
#include <string>

#include "base/file.h"

namespace hull {
namespace {

constexpr size_t kMuch = 4 << 20;  // beyond what sockets and the join hold

class JoinedSocketsTest : public testing::Test {
 protected:
  JoinedSocketsTest() {
    FdPair left = makeSocketPair(SOCK_STREAM), right = makeSocketPair(SOCK_STREAM);
    left_ = std::move(left.first);
    right_ = std::move(right.first);
    joined_ = std::make_unique<JoinedSockets>(loop_, std::move(left.second),
                                              std::move(right.second), [this] {
                                                ++done_;
                                                joined_.reset();
                                              });
  }
  void turn() {  // until nothing happens any more
    for (int i = 0; i < 20; ++i) loop_.runOnce(std::chrono::milliseconds(0));
  }
  // What goes without waiting.
  static size_t say(const Fd& to, const std::string& bytes) {
    const ssize_t put = send(to.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return put < 0 ? 0 : static_cast<size_t>(put);
  }
  static std::string heard(const Fd& from) {
    std::string bytes(1 << 20, '\0');
    const ssize_t got = recv(from.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    return got < 0 ? "(nothing)" : got == 0 ? "(end)" : bytes.substr(0, static_cast<size_t>(got));
  }

  EventLoop loop_;
  Fd left_, right_;
  std::unique_ptr<JoinedSockets> joined_;
  int done_ = 0;
};

TEST_F(JoinedSocketsTest, BytesGoBothWays) {
  say(left_, "question");
  turn();
  EXPECT_EQ(heard(right_), "question");
  say(right_, "answer");
  turn();
  EXPECT_EQ(heard(left_), "answer");
  EXPECT_EQ(done_, 0);
}

TEST_F(JoinedSocketsTest, AnEndOfInputIsOneAndTheOtherWayGoesOn) {
  say(left_, "all");
  shutdown(left_.get(), SHUT_WR);
  turn();
  EXPECT_EQ(heard(right_), "all");
  EXPECT_EQ(heard(right_), "(end)");
  say(right_, "late answer");
  turn();
  EXPECT_EQ(heard(left_), "late answer");
  EXPECT_EQ(done_, 0);
  shutdown(right_.get(), SHUT_WR);
  turn();
  EXPECT_EQ(heard(left_), "(end)");
  EXPECT_EQ(done_, 1);
}

TEST_F(JoinedSocketsTest, WhoClosesIsClosedOnTheOtherSideToo) {
  say(left_, "last words");
  left_.reset();
  turn();
  EXPECT_EQ(done_, 1);
  EXPECT_EQ(heard(right_), "last words");
  EXPECT_EQ(heard(right_), "(end)");
  EXPECT_EQ(say(right_, "x"), 0u) << "closed, not only at its end";
}

TEST_F(JoinedSocketsTest, WhoClosesAfterAnEndOfInputIsNoticed) {
  shutdown(left_.get(), SHUT_WR);
  turn();
  EXPECT_EQ(done_, 0);
  left_.reset();
  turn();
  EXPECT_EQ(done_, 1);
}

TEST_F(JoinedSocketsTest, ASlowReaderStopsItsWriterAndLosesNothing) {
  const std::string block(64 * 1024, 'x');
  size_t sent = 0;
  for (size_t put = 1; put > 0;) {
    put = say(left_, block);
    sent += put;
    turn();
  }
  EXPECT_LT(sent, kMuch) << "it is not read without end";
  say(right_, "the other way is free");
  turn();
  EXPECT_EQ(heard(left_), "the other way is free");
  // Its end does not hurry anything: what it wrote is still delivered.
  left_.reset();
  turn();
  size_t got = 0;
  for (std::string bytes; (bytes = heard(right_)) != "(end)"; turn()) {
    ASSERT_NE(bytes, "(nothing)");
    got += bytes.size();
  }
  EXPECT_EQ(got, sent);
  EXPECT_EQ(done_, 1);
}

TEST_F(JoinedSocketsTest, WhoReadsNoMoreStillGivesWhatItHas) {
  shutdown(right_.get(), SHUT_RD);
  say(left_, "in vain");
  turn();
  EXPECT_EQ(say(left_, "again"), 0u) << "the writer is told";
  say(right_, "still here");
  turn();
  EXPECT_EQ(heard(left_), "still here");
  EXPECT_EQ(done_, 0);
  right_.reset();
  turn();
  EXPECT_EQ(done_, 1);
}

TEST_F(JoinedSocketsTest, NothingSpinsWhileItWaits) {
  shutdown(left_.get(), SHUT_WR);
  say(right_, std::string(32 * 1024, 'x'));
  turn();
  int turns = 0;
  loop_.after(std::chrono::milliseconds(20), [this] { loop_.stop(); });
  while (loop_.runOnce(std::chrono::milliseconds::max())) ++turns;
  EXPECT_LE(turns, 2);
}

}  // namespace
}  // namespace hull
