// The channel end to end: two muxes joined by a socket pair, relays on both, real unix sockets.
#include "machine/mux.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <map>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "machine/datagrams.h"
#include "machine/exec.h"
#include "machine/relay.h"

namespace hull::machine {
namespace {

constexpr auto kStep = std::chrono::milliseconds(10);
constexpr int kSteps = 6000;  // a minute: for a test that hangs, not for a slow host

class Channel : public ::testing::Test {
 protected:
  Channel() : listener_(listenUnix(directory_.path() + "/served")) {
    signal(SIGPIPE, SIG_IGN);  // as the supervisor and the agent do
    auto ends = makeSocketPair(SOCK_STREAM);
    raw_host_ = ends.first.get();
    host_.emplace(
        loop_, std::move(ends.first), Mux::Side::kHost,
        [](uint32_t, std::string_view) { return nullptr; },
        [this](const std::string& reason) { broken_ = reason; });
    machine_.emplace(
        loop_, std::move(ends.second), Mux::Side::kMachine,
        [this](uint32_t stream, std::string_view target) { return serve(stream, target); },
        [](const std::string&) {});
  }

  std::shared_ptr<StreamEvents> serve(uint32_t stream, std::string_view target) {
    if (target.starts_with("exec:")) return serveExec(loop_, *machine_, stream, target.substr(5));
    if (target.starts_with("udp:")) {
      return serveDatagrams(loop_, *machine_, stream, target.substr(4));
    }
    if (target != "served") return nullptr;
    return Relay::accept(loop_, *machine_, stream, connectUnix(directory_.path() + "/served"));
  }

  template <typename Condition>
  bool until(Condition condition) {
    for (int i = 0; i < kSteps; ++i) {
      if (condition()) return true;
      loop_.runOnce(kStep);
    }
    return false;
  }

  // A client of the host's side and the server's end of the same connection.
  struct Pair {
    Fd client, server;
  };
  Pair connect() {
    auto ends = makeSocketPair(SOCK_STREAM);
    EXPECT_TRUE(Relay::open(loop_, *host_, "served", std::move(ends.second)));
    Pair pair{std::move(ends.first), Fd()};
    setNonBlocking(listener_.get());
    EXPECT_TRUE(until([&] {
      pair.server.reset(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      return pair.server.valid();
    }));
    setNonBlocking(pair.client.get());
    setNonBlocking(pair.server.get());
    return pair;
  }

  // Everything readable now; true at end of file.
  static bool drain(int fd, std::string& into) {
    char buffer[65536];
    for (;;) {
      const ssize_t got = ::read(fd, buffer, sizeof buffer);
      if (got == 0) return true;
      if (got < 0) return errno != EAGAIN;
      into.append(buffer, static_cast<size_t>(got));
    }
  }
  static uint32_t pollNow(int fd) {
    pollfd polled{fd, POLLIN | POLLRDHUP, 0};
    poll(&polled, 1, 0);
    return static_cast<uint32_t>(polled.revents);
  }

  TemporaryDirectory directory_;
  EventLoop loop_;
  Fd listener_;
  std::optional<Mux> host_, machine_;
  int raw_host_ = -1;
  std::string broken_;
};

TEST_F(Channel, HalfCloseTravelsBothWaysAndTheOtherDirectionGoesOn) {
  auto [client, server] = connect();
  writeFull(client.get(), std::string_view("question"));
  shutdown(client.get(), SHUT_WR);
  std::string seen;
  ASSERT_TRUE(until([&] { return drain(server.get(), seen); }));
  EXPECT_EQ(seen, "question");
  EXPECT_EQ(pollNow(server.get()) & POLLHUP, 0U) << "a half-close must not look like a close";
  writeFull(server.get(), std::string_view("answer"));
  std::string answer;
  ASSERT_TRUE(until([&] {
    drain(client.get(), answer);
    return answer == "answer";
  }));
  server.reset();
  ASSERT_TRUE(until([&] { return drain(client.get(), answer); }));
  EXPECT_TRUE(until([&] { return host_->streams() == 0 && machine_->streams() == 0; }));
}

TEST_F(Channel, ServersHalfCloseLeavesTheClientWriting) {
  auto [client, server] = connect();
  shutdown(server.get(), SHUT_WR);
  std::string nothing, seen;
  ASSERT_TRUE(until([&] { return drain(client.get(), nothing); }));
  writeFull(client.get(), std::string_view("still here"));
  client.reset();
  ASSERT_TRUE(until([&] { return drain(server.get(), seen); }));
  EXPECT_EQ(seen, "still here");
  EXPECT_TRUE(until([&] { return host_->streams() == 0 && machine_->streams() == 0; }));
}

TEST_F(Channel, AClientThatVanishesIsSeenAsGone) {
  auto [client, server] = connect();
  writeFull(client.get(), std::string_view("last words"));
  client.reset();
  std::string seen;
  ASSERT_TRUE(until([&] { return drain(server.get(), seen); }));
  EXPECT_EQ(seen, "last words");
  EXPECT_TRUE(until([&, fd = server.get()] { return (pollNow(fd) & POLLHUP) != 0; }));
}

TEST_F(Channel, GoneAfterAHalfCloseIsSeenToo) {
  auto [client, server] = connect();
  shutdown(client.get(), SHUT_WR);
  std::string seen;
  ASSERT_TRUE(until([&] { return drain(server.get(), seen); }));
  client.reset();
  EXPECT_TRUE(until([&, fd = server.get()] { return (pollNow(fd) & POLLHUP) != 0; }));
  EXPECT_TRUE(until([&] { return host_->streams() == 0 && machine_->streams() == 0; }));
}

TEST_F(Channel, RefusedTargetClosesTheClient) {
  auto ends = makeSocketPair(SOCK_STREAM);
  setNonBlocking(ends.first.get());
  ASSERT_TRUE(Relay::open(loop_, *host_, "nothing", std::move(ends.second)));
  std::string seen;
  EXPECT_TRUE(until([&] { return drain(ends.first.get(), seen); }));
  EXPECT_EQ(seen, "");
}

TEST_F(Channel, ASlowReaderHoldsBackItsWriterAndNobodyElse) {
  auto slow = connect();
  auto quick = connect();
  const std::string block(65536, 's');
  size_t written = 0;
  // Ends when every window and buffer on the way is full.
  int idle = 0;
  for (int i = 0; i < kSteps && idle < 20; ++i) {
    const ssize_t put = ::write(slow.client.get(), block.data(), block.size());
    if (put > 0) written += static_cast<size_t>(put);
    idle = put > 0 ? 0 : idle + 1;
    loop_.runOnce(std::chrono::milliseconds(1));
  }
  EXPECT_LT(written, size_t{4} * kStreamWindowBytes);
  writeFull(quick.client.get(), std::string_view("through"));
  std::string seen;
  EXPECT_TRUE(until([&] {
    drain(quick.server.get(), seen);
    return seen == "through";
  }));
  std::string all;
  EXPECT_TRUE(until([&] {
    drain(slow.server.get(), all);
    return all.size() == written;
  }));
}

TEST_F(Channel, HundredsOfConnectionsLoseNothing) {
  constexpr size_t kConnections = 200;
  constexpr size_t kBytes = 300'000;
  struct One {
    Pair pair;
    size_t sent = 0;
    std::string up, down;
    size_t returned = 0;
    bool closed = false;
  };
  std::vector<One> all(kConnections);
  for (auto& one : all) one.pair = connect();
  const auto pattern = [](size_t connection, size_t at) {
    return static_cast<char>(connection * 31 + at * 7);
  };
  EXPECT_TRUE(until([&] {
    bool done = true;
    for (size_t n = 0; n < all.size(); ++n) {
      One& one = all[n];
      std::string block;
      for (size_t i = 0; i < std::min<size_t>(kBytes - one.sent, 5000); ++i) {
        block.push_back(pattern(n, one.sent + i));
      }
      const ssize_t put = ::write(one.pair.client.get(), block.data(), block.size());
      if (put > 0) one.sent += static_cast<size_t>(put);
      if (one.sent == kBytes && !std::exchange(one.closed, true)) {
        shutdown(one.pair.client.get(), SHUT_WR);
      }
      const bool up_ended = drain(one.pair.server.get(), one.up);
      // The server echoes.
      const ssize_t back = ::write(one.pair.server.get(), one.up.data() + one.returned,
                                   one.up.size() - one.returned);
      if (back > 0) one.returned += static_cast<size_t>(back);
      if (up_ended && one.returned == kBytes) shutdown(one.pair.server.get(), SHUT_WR);
      done = drain(one.pair.client.get(), one.down) && done;
    }
    return done;
  }));
  for (size_t n = 0; n < all.size(); ++n) {
    ASSERT_EQ(all[n].down.size(), kBytes) << n;
    for (size_t i = 0; i < kBytes; i += 997) ASSERT_EQ(all[n].down[i], pattern(n, i)) << n;
  }
  EXPECT_TRUE(until([&] { return host_->streams() == 0 && machine_->streams() == 0; }));
}

// What a hostile machine could send.
// A published UDP port: a relay on the host whose conversations go over the channel.
class Datagrams : public Channel {
 protected:
  Fd socketOn(uint16_t port, bool connected) {
    Fd made(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto address = *SocketAddress::parse("127.0.0.1", port);
    EXPECT_EQ((connected ? ::connect : ::bind)(made.get(), address.get(), address.length), 0);
    return made;
  }
  std::string receive(const Fd& from, SocketAddress* sender = nullptr) {
    SocketAddress address;
    std::string bytes(kMaxDatagramBytes, '\0');
    EXPECT_TRUE(until([&] {
      address.length = sizeof address.storage;
      const ssize_t got =
          recvfrom(from.get(), bytes.data(), bytes.size(), 0, address.get(), &address.length);
      if (got >= 0) bytes.resize(static_cast<size_t>(got));
      return got >= 0;
    }));
    if (sender != nullptr) *sender = address;
    return bytes;
  }

  Fd server_ = socketOn(0, false);
  std::string target_ =
      "udp:127.0.0.1:" + std::to_string(SocketAddress::local(server_.get()).port());
};

TEST_F(Datagrams, EachSenderGetsItsOwnAnswersWhole) {
  Fd bound = socketOn(0, false);
  const uint16_t port = SocketAddress::local(bound.get()).port();
  UdpRelay relay(loop_, std::move(bound), [&](UdpRelay::Answer answer) {
    return converseOver(*host_, target_, std::move(answer));
  });
  const Fd one = socketOn(port, true), two = socketOn(port, true);
  const std::string large(60'000, 'l');
  for (const auto& [client, text] : {std::pair{&one, std::string("first")},
                                     {&two, large},
                                     {&one, std::string()},
                                     {&two, std::string("last")}}) {
    ASSERT_EQ(::send(client->get(), text.data(), text.size(), 0),
              static_cast<ssize_t>(text.size()));
    SocketAddress sender;
    EXPECT_EQ(receive(server_, &sender), text);
    sendto(server_.get(), text.data(), text.size(), 0, sender.get(), sender.length);
    EXPECT_EQ(receive(*client), text);
  }
  EXPECT_EQ(host_->streams(), 2U);
}

TEST_F(Datagrams, WhatIsRefusedEndsTheConversationAndTheNextOneIsNew) {
  std::string answered;
  const auto refused =
      converseOver(*host_, "nowhere", [&](std::string_view datagram) { answered = datagram; });
  ASSERT_NE(refused, nullptr);
  EXPECT_TRUE(until([&] { return !refused->send("x"); }));
  EXPECT_EQ(host_->streams(), 0U);
  auto kept =
      converseOver(*host_, target_, [&](std::string_view datagram) { answered = datagram; });
  kept->send("hello");
  EXPECT_EQ(receive(server_), "hello");
  kept.reset();
  EXPECT_TRUE(until([&] { return machine_->streams() == 0; }));
}

class Hostile : public ::testing::Test {
 protected:
  Hostile() {
    auto ends = makeSocketPair(SOCK_STREAM);
    peer_ = std::move(ends.second);
    host_.emplace(
        loop_, std::move(ends.first), Mux::Side::kHost,
        [this](uint32_t, std::string_view) { return acceptor_ ? acceptor_() : nullptr; },
        [this](const std::string& reason) { broken_ = reason; });
  }
  void send(const std::string& bytes) {
    writeFull(peer_.get(), bytes);
    for (int i = 0; i < 20; ++i) loop_.runOnce(std::chrono::milliseconds(1));
  }
  struct Silent final : StreamEvents {
    void onData(std::string_view) override {}
    void onFin() override {}
    void onClosed(bool) override {}
    void onWritable() override {}
  };

  EventLoop loop_;
  Fd peer_;
  std::optional<Mux> host_;
  std::function<std::shared_ptr<StreamEvents>()> acceptor_;
  std::string broken_;
};

TEST_F(Hostile, StreamNumbersOfTheWrongSideBreakTheChannel) {
  std::string bytes;
  appendFrame(bytes, FrameType::kOpen, 1, "publish");
  send(bytes);
  EXPECT_NE(broken_.find("stream number"), std::string::npos) << broken_;
}

TEST_F(Hostile, DataBeyondTheWindowBreaksTheChannel) {
  acceptor_ = [] { return std::make_shared<Silent>(); };  // never gives back
  std::string bytes;
  appendFrame(bytes, FrameType::kOpen, 2, "x");
  for (size_t sent = 0; sent < kStreamWindowBytes; sent += kMaxPayloadBytes) {
    appendFrame(bytes, FrameType::kData, 2, std::string(kMaxPayloadBytes, 'x'));
  }
  // In pieces: the socket pair does not hold it all.
  for (size_t at = 0; at < bytes.size(); at += 65536) send(bytes.substr(at, 65536));
  EXPECT_EQ(broken_, "");
  bytes.clear();
  appendFrame(bytes, FrameType::kData, 2, "y");
  send(bytes);
  EXPECT_NE(broken_.find("window"), std::string::npos) << broken_;
}

TEST_F(Hostile, AWindowBeyondItsLimitBreaksTheChannel) {
  const uint32_t id = host_->open("x", std::make_shared<Silent>());
  std::string bytes;
  appendFrame(bytes, FrameType::kWindow, id, uint32_t{1});
  send(bytes);
  EXPECT_NE(broken_.find("window"), std::string::npos) << broken_;
  EXPECT_EQ(host_->streams(), 0U);
}

TEST_F(Hostile, FramesForUnknownStreamsAreIgnored) {
  std::string bytes;
  for (const uint32_t id : {0U, 7U, 8U, 0xffffffffU}) {
    appendFrame(bytes, FrameType::kData, id, "x");
    appendFrame(bytes, FrameType::kWindow, id, 0xffffffffU);
    appendFrame(bytes, FrameType::kFin, id, 0);
    appendFrame(bytes, FrameType::kReset, id, 0);
  }
  send(bytes);
  EXPECT_EQ(broken_, "");
}

TEST_F(Hostile, TooManyStreamsAreRefusedOneByOne) {
  acceptor_ = [] { return std::make_shared<Silent>(); };
  std::string bytes;
  for (uint32_t i = 1; i <= kMaxStreams + 10; ++i) {
    appendFrame(bytes, FrameType::kOpen, i * 2, "x");
  }
  for (size_t at = 0; at < bytes.size(); at += 32768) send(bytes.substr(at, 32768));
  EXPECT_EQ(host_->streams(), kMaxStreams);
  EXPECT_EQ(broken_, "");
  EXPECT_EQ(host_->open("x", std::make_shared<Silent>()), 0U);
}

TEST_F(Channel, ExecCarriesInputOutputErrorsAndStatus) {
  auto ends = makeSocketPair(SOCK_STREAM);
  setNonBlocking(ends.first.get());
  ExecRequest request;
  request.arguments = {"/bin/sh", "-c", "cat; echo \"$WORD\" >&2; pwd; exit 7"};
  request.environment = {"WORD=wrong"};
  request.working_directory = "/";
  ASSERT_TRUE(
      Relay::open(loop_, *host_, "exec:" + encodeExecRequest(request), std::move(ends.second)));
  const std::string input(400'000, 'i');
  std::map<ExecChannel, std::string> got;
  ExecParser parser([&](ExecChannel channel, std::string_view bytes) { got[channel] += bytes; });
  size_t sent = 0;
  bool closed = false;
  ASSERT_TRUE(until([&] {
    const ssize_t put = ::write(ends.first.get(), input.data() + sent, input.size() - sent);
    if (put > 0) sent += static_cast<size_t>(put);
    if (sent == input.size() && !std::exchange(closed, true)) shutdown(ends.first.get(), SHUT_WR);
    std::string bytes;
    drain(ends.first.get(), bytes);
    EXPECT_TRUE(parser.feed(bytes));
    return parser.status().has_value();
  }));
  EXPECT_EQ(*parser.status(), 7);
  EXPECT_EQ(got[ExecChannel::kOutput], input + "/\n");
  EXPECT_EQ(got[ExecChannel::kErrors], "wrong\n");
  EXPECT_TRUE(until([&] { return host_->streams() == 0 && machine_->streams() == 0; }));
}

TEST_F(Channel, ExecOfAMissingProgramSaysSo) {
  auto ends = makeSocketPair(SOCK_STREAM);
  setNonBlocking(ends.first.get());
  ExecRequest request;
  request.arguments = {"/does/not/exist"};
  request.working_directory = "/";
  ASSERT_TRUE(
      Relay::open(loop_, *host_, "exec:" + encodeExecRequest(request), std::move(ends.second)));
  ExecParser parser([](ExecChannel, std::string_view) {});
  ASSERT_TRUE(until([&] {
    std::string bytes;
    drain(ends.first.get(), bytes);
    EXPECT_TRUE(parser.feed(bytes));
    return !parser.failure().empty();
  }));
  EXPECT_NE(parser.failure().find("/does/not/exist"), std::string::npos) << parser.failure();
}

TEST_F(Channel, ExecIsKilledWhenItsClientGoes) {
  auto ends = makeSocketPair(SOCK_STREAM);
  setNonBlocking(ends.first.get());
  ExecRequest request;
  request.arguments = {"/bin/sh", "-c", "echo $$; sleep 1000"};
  request.working_directory = "/";
  ASSERT_TRUE(
      Relay::open(loop_, *host_, "exec:" + encodeExecRequest(request), std::move(ends.second)));
  std::string pid;
  ExecParser parser([&](ExecChannel, std::string_view bytes) { pid += bytes; });
  ASSERT_TRUE(until([&] {
    std::string bytes;
    drain(ends.first.get(), bytes);
    EXPECT_TRUE(parser.feed(bytes));
    return pid.find('\n') != std::string::npos;
  }));
  ends.first.reset();
  EXPECT_TRUE(until([&] { return ::kill(std::stoi(pid), 0) < 0; }));
  EXPECT_TRUE(until([&] { return host_->streams() == 0 && machine_->streams() == 0; }));
}

TEST(ExecParser, RefusesWhatIsNotTheProtocol) {
  const auto feed = [](std::string_view bytes) {
    ExecParser parser([](ExecChannel, std::string_view) {});
    return parser.feed(bytes);
  };
  EXPECT_FALSE(feed(std::string_view("\x09\x01\x00\x00\x00x", 6)));
  EXPECT_FALSE(feed(std::string_view("\x03\x02\x00\x00\x00xx", 7))) << "a status has four bytes";
  std::string after;
  appendExecMessage(after, ExecChannel::kExit, std::string_view("\0\0\0\0", 4));
  EXPECT_TRUE(feed(after));
  EXPECT_FALSE(feed(after + "x")) << "nothing follows the end";
  std::string huge;
  appendExecMessage(huge, ExecChannel::kFailure, std::string(5000, 'f'));
  EXPECT_FALSE(feed(huge));
}

}  // namespace
}  // namespace hull::machine
