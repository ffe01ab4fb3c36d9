#include "daemon/vm/step_agents.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <condition_variable>
#include <future>
#include <mutex>
#include <vector>

#include "base/error.h"
#include "base/ssh_agent.h"
#include "guest-init/protocol/protocol.h"

namespace hull::engine {
namespace {

using ssh_agent::framed;

class FakeAgent final : public build::SshAgent {
 public:
  std::string answer(const std::string& request, const std::function<bool()>& abandoned) override {
    if (gone) throw Error(ErrorKind::kUnavailable, "the client is gone");
    if (stuck) {
      begun.set_value();
      while (!abandoned()) std::this_thread::yield();
      throw Error(ErrorKind::kCancelled, "abandoned");
    }
    asked.push_back(request);
    return "answer to " + request;
  }
  std::vector<std::string> asked;
  bool gone = false, stuck = false;
  std::promise<void> begun;
};

class StepAgentsTest : public testing::Test {
 protected:
  StepAgentsTest() {
    FdPair pair = makeSocketPair(SOCK_STREAM);
    guest_ = std::move(pair.first);
    writeFull(guest_.get(), std::string_view(&guest::kConnected, 1));  // somebody connects
    agents_ = std::make_unique<StepAgents>();
    agents_->serve(
        [this, first = std::make_shared<Fd>(std::move(pair.second))]() mutable {
          if (*first) return std::move(*first);
          FdPair more = makeSocketPair(SOCK_STREAM);
          const std::lock_guard lock(mutex_);
          waiting_ = std::move(more.first);
          changed_.notify_all();
          return std::move(more.second);
        },
        agent_);
  }
  // One connection more.
  Fd connect() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return waiting_.valid(); });
    Fd taken = std::move(waiting_);
    writeFull(taken.get(), std::string_view(&guest::kConnected, 1));
    return taken;
  }
  std::string ask(const std::string& bytes) {
    writeFull(guest_.get(), bytes);
    ssh_agent::Framer answers;
    for (char c; readSome(guest_.get(), std::as_writable_bytes(std::span(&c, 1))) == 1;) {
      answers.feed({&c, 1});
      if (const auto answer = answers.next()) return *answer;
    }
    return "(end)";
  }
  const std::shared_ptr<FakeAgent> agent_ = std::make_shared<FakeAgent>();
  Fd guest_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Fd waiting_;  // the guest's end of the stream for the next connection
  std::unique_ptr<StepAgents> agents_;
};

TEST_F(StepAgentsTest, ListingAndSigningReachTheAgent) {
  EXPECT_EQ(ask(framed("\x0b")), "answer to \x0b");
  EXPECT_EQ(ask(framed("\x0dkey and data")), "answer to \x0dkey and data");
}

TEST_F(StepAgentsTest, NothingElseOfAHostileStepDoes) {
  for (int type = 0; type < 256; ++type) {
    if (type == 11 || type == 13) continue;
    EXPECT_EQ(ask(framed(std::string(1, static_cast<char>(type)) + "payload")),
              ssh_agent::refusal())
        << type;
  }
  agents_.reset();
  EXPECT_TRUE(agent_->asked.empty());
}

TEST_F(StepAgentsTest, AStreamThatIsNoneEnds) {
  EXPECT_EQ(ask("\xff\xff\xff\xff and so on"), "(end)");
}

TEST_F(StepAgentsTest, ConnectionsAreBounded) {
  std::vector<Fd> connections;
  for (size_t i = 1; i < kMaxAgentConnections; ++i) connections.push_back(connect());
  const Fd beyond = connect();
  char c;
  EXPECT_EQ(readSome(beyond.get(), std::as_writable_bytes(std::span(&c, 1))), 0u);
  EXPECT_EQ(ask(framed("\x0b")), "answer to \x0b") << "the others are served";
}

TEST_F(StepAgentsTest, AClientThatIsGoneIsARefusal) {
  agent_->gone = true;
  EXPECT_EQ(ask(framed("\x0b")), ssh_agent::refusal());
}

TEST_F(StepAgentsTest, TheEndOfTheStepAbandonsWhatIsUnderWay) {
  agent_->stuck = true;
  writeFull(guest_.get(), framed("\x0b"));
  agent_->begun.get_future().wait();
  agents_.reset();
  char c;
  EXPECT_EQ(readSome(guest_.get(), std::as_writable_bytes(std::span(&c, 1))), 0u);
}

}  // namespace
}  // namespace hull::engine
