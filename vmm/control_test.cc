#include "vmm/control.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "base/file.h"

namespace hull::vmm {
namespace {

class ControlTest : public ::testing::Test {
 protected:
  void turn() {
    for (int i = 0; i < 8; ++i) loop_.runOnce(std::chrono::milliseconds(0));
  }
  void send(const Fd& client, const std::string& text, const std::vector<int>& fds = {}) {
    sendWithFds(client.get(), asBytes(text), fds);
    turn();
  }
  static bool closed(const Fd& client) {
    char byte;
    return recv(client.get(), &byte, 1, MSG_DONTWAIT) == 0;
  }

  TemporaryDirectory folder_;
  std::string path_ = folder_.path() + "/control";
  Fd listener_ = listenUnix(path_);
  EventLoop loop_;
  std::vector<std::string> commands_;
  std::vector<std::vector<Fd>> taken_;
  bool take_ = true;
  ControlServer server_{listener_.get(), loop_, [this](auto client, const auto& command, auto) {
                          commands_.push_back(command);
                          if (take_) taken_.push_back(server_.takeDescriptors(client));
                        }};
};

TEST_F(ControlTest, DescriptorsComeWithTheirCommand) {
  const Fd client = connectUnix(path_);
  const Fd file = makeMemfd("x");
  writeFull(file.get(), "hello");
  send(client, "{\"command\":\"save\"}\n", {file.get(), file.get()});
  ASSERT_EQ(commands_, std::vector<std::string>{"save"});
  ASSERT_EQ(taken_.at(0).size(), 2u);
  EXPECT_EQ(fileSize(taken_[0][1].get()), 5u);
}

TEST_F(ControlTest, DescriptorsBelongToOneCommandOnly) {
  take_ = false;
  const Fd client = connectUnix(path_);
  FdPair pipe = makePipe(O_NONBLOCK);
  send(client, "{\"command\":\"status\"}\n", {pipe.second.get()});
  pipe.second.reset();
  std::byte byte{};
  EXPECT_EQ(readSome(pipe.first.get(), {&byte, 1}), 0u);  // nobody holds the other end any more
  take_ = true;
  send(client, "{\"command\":\"save\"}\n");
  EXPECT_EQ(commands_.size(), 2u);
  EXPECT_TRUE(taken_.at(0).empty());
}

TEST_F(ControlTest, CommandInPiecesKeepsItsDescriptors) {
  const Fd client = connectUnix(path_);
  const Fd file = makeMemfd("x");
  send(client, "{\"command\":", {file.get()});
  EXPECT_TRUE(commands_.empty());
  send(client, "\"save\"}\n", {file.get()});
  ASSERT_EQ(taken_.size(), 1u);
  EXPECT_EQ(taken_[0].size(), 2u);
}

TEST_F(ControlTest, ClientWithTooManyDescriptorsIsGone) {
  const Fd client = connectUnix(path_);
  const Fd file = makeMemfd("x");
  send(client, " ", std::vector<int>(ControlServer::kMaxDescriptors, file.get()));
  EXPECT_FALSE(closed(client));
  send(client, " ", {file.get()});
  EXPECT_TRUE(closed(client));
}

TEST_F(ControlTest, ClientWithALineWithoutEndIsGone) {
  const Fd client = connectUnix(path_);
  for (size_t sent = 0; sent <= ControlServer::kMaxLineBytes; sent += 1024) {
    send(client, std::string(1024, 'x'));
  }
  EXPECT_TRUE(closed(client));
  EXPECT_TRUE(commands_.empty());
}

}  // namespace
}  // namespace hull::vmm
