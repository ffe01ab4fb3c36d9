#include "daemon/api/build_agents.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <future>
#include <thread>

#include "base/error.h"
#include "base/fd.h"
#include "base/ssh_agent.h"

namespace hull::engine::api {
namespace {

using ssh_agent::framed;
const std::string kSession(32, 'a');

// One request on one connection, which is taken over.
class Taken final : public Exchange {
 public:
  Taken(const std::string& query, int fd) : fd_(fd) { request().query = Query(query); }
  Source& body() override { throw std::logic_error("no body"); }
  void reply(int, std::string_view, std::string_view, const Headers&) override {}
  Sink& stream(int, std::string_view, const Headers&) override { throw std::logic_error("none"); }
  RawConnection hijack(std::string_view) override { return {fd_, {}}; }
  bool answered() const override { return false; }
  std::shared_ptr<void> onDisconnect(std::function<void()>) override { return nullptr; }
  bool disconnected() const override { return false; }

 private:
  int fd_;
};

bool never() {
  return false;
}

class BuildAgentsTest : public testing::Test {
 protected:
  BuildAgentsTest() : pair_(makeSocketPair(SOCK_STREAM)) {
    server_ = std::thread([this] {
      Taken exchange("session=" + kSession + "&id=default", pair_.second.get());
      agents_.serve(exchange);
    });
    EXPECT_EQ(read(ssh_agent::kSizeBytes), std::string(4, '\0'));
  }
  ~BuildAgentsTest() override {
    pair_.first.reset();
    server_.join();
  }
  std::string read(size_t bytes) {
    std::string text(bytes, '\0');
    text.resize(readFull(pair_.first.get(), std::as_writable_bytes(std::span(text))));
    return text;
  }
  std::shared_ptr<build::SshAgent> agent() {
    return agents_.find(kSession, {"default"}).at("default");
  }
  ErrorKind failure(const std::function<void()>& work) {
    try {
      work();
    } catch (const Error& error) {
      return error.kind();
    }
    return ErrorKind::kInternal;
  }

  BuildAgents agents_;
  FdPair pair_;
  std::thread server_;
};

TEST_F(BuildAgentsTest, AsksTheClientAndHandsOnItsAnswer) {
  auto answer = std::async(std::launch::async, [&] { return agent()->answer("\x0b", never); });
  EXPECT_EQ(read(5), framed("\x0b"));
  writeFull(pair_.first.get(), framed("the keys"));
  EXPECT_EQ(answer.get(), "the keys");
}

TEST_F(BuildAgentsTest, AnAbandonedRequestsAnswerIsNobodysElse) {
  std::atomic<bool> over = false;
  auto first = std::async(std::launch::async, [&] {
    return failure([&] { agent()->answer("\x0b", [&] { return over.load(); }); });
  });
  EXPECT_EQ(read(5), framed("\x0b"));
  over = true;
  EXPECT_EQ(first.get(), ErrorKind::kCancelled);
  auto second = std::async(std::launch::async, [&] { return agent()->answer("\x0dx", never); });
  writeFull(pair_.first.get(), framed("late"));
  EXPECT_EQ(read(6), framed("\x0dx"));
  writeFull(pair_.first.get(), framed("signature"));
  EXPECT_EQ(second.get(), "signature");
}

TEST_F(BuildAgentsTest, AClientThatLeavesEndsWhatIsUnderWay) {
  const auto kept = agent();
  auto asked =
      std::async(std::launch::async, [&] { return failure([&] { kept->answer("\x0b", never); }); });
  EXPECT_EQ(read(5), framed("\x0b"));
  shutdown(pair_.first.get(), SHUT_RDWR);
  EXPECT_EQ(asked.get(), ErrorKind::kUnavailable);
  EXPECT_EQ(failure([&] { kept->answer("\x0b", never); }), ErrorKind::kUnavailable);
}

TEST_F(BuildAgentsTest, OnlyTheSessionThatLendsOneFindsIt) {
  EXPECT_TRUE(agents_.find("", {}).empty());
  for (const std::string& session : {std::string(), std::string(32, 'b')}) {
    EXPECT_EQ(failure([&] { agents_.find(session, {"default"}); }), ErrorKind::kInvalidArgument);
  }
  EXPECT_EQ(failure([&] { agents_.find(kSession, {"other"}); }), ErrorKind::kInvalidArgument);
  EXPECT_EQ(failure([&] {
              agents_.find(kSession, std::vector<std::string>(kMaxBuildAgents + 1, "default"));
            }),
            ErrorKind::kTooLarge);
}

TEST_F(BuildAgentsTest, BadAndDoubleOnesAreRefused) {
  const auto served = [&](const std::string& query) {
    return failure([&] {
      Taken exchange(query, -1);
      agents_.serve(exchange);
    });
  };
  EXPECT_EQ(served("session=" + kSession + "&id=default"), ErrorKind::kConflict);
  EXPECT_EQ(served("session=" + kSession), ErrorKind::kInvalidArgument);
  EXPECT_EQ(served("session=abc&id=x"), ErrorKind::kInvalidArgument);
  EXPECT_EQ(served("session=" + std::string(32, '/') + "&id=x"), ErrorKind::kInvalidArgument);
}

}  // namespace
}  // namespace hull::engine::api
