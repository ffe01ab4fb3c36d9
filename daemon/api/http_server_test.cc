// The HTTP server over a real socket, with well-behaved and hostile clients.
#include "daemon/api/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <future>
#include <thread>

#include "base/error.h"
#include "base/file.h"

namespace hull::engine::api {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    limits_.header_bytes = 4096;
    limits_.header_timeout = std::chrono::milliseconds(200);
    limits_.body_timeout = std::chrono::milliseconds(200);
    limits_.connections = 4;
  }
  ~HttpServerTest() override {
    if (server_) server_->stop();
    if (thread_.joinable()) thread_.join();
  }
  void start(Handler handler) {
    std::vector<Fd> listeners;
    listeners.push_back(listenUnix(path()));
    server_ = std::make_unique<HttpServer>(std::move(listeners), std::move(handler), limits_);
    thread_ = std::thread([this] { server_->run(); });
  }
  void startEcho() {
    start([](Exchange& e) { e.reply(200, "text/plain", e.text(), {}); });
  }
  std::string path() const { return folder_.path() + "/s"; }
  Fd connect() const { return connectUnix(path()); }

  static std::string readAllOf(const Fd& fd) {
    std::string text;
    std::array<std::byte, 4096> buffer;
    try {
      while (const size_t got = readSome(fd.get(), buffer)) {
        text.append(reinterpret_cast<const char*>(buffer.data()), got);
      }
    } catch (const Error&) {
      // Reset: what came before counts.
    }
    return text;
  }
  std::string ask(std::string_view request) const {
    const Fd fd = connect();
    try {
      writeFull(fd.get(), request);
    } catch (const Error&) {
      // The server may refuse before it read everything.
    }
    shutdown(fd.get(), SHUT_WR);
    return readAllOf(fd);
  }

  TemporaryDirectory folder_{"hull-http"};
  HttpLimits limits_;
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
};

TEST_F(HttpServerTest, LengthAndChunkedBodies) {
  startEcho();
  EXPECT_THAT(ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"),
              HasSubstr("\r\n\r\nabc"));
  EXPECT_THAT(ask("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"),
              HasSubstr("\r\n\r\nabcde"));
}

TEST_F(HttpServerTest, ConnectionsOfAnotherWayInTakeNobodysPlace) {
  startEcho();
  std::vector<Fd> clients;
  for (size_t i = 0; i < 3 * limits_.connections; ++i) {
    FdPair pair = makeSocketPair(SOCK_STREAM);
    server_->serve(std::move(pair.second), nullptr);
    clients.push_back(std::move(pair.first));
  }
  const std::string request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";
  EXPECT_THAT(ask(request), HasSubstr("\r\n\r\nabc"));
  writeFull(clients.back().get(), request);
  shutdown(clients.back().get(), SHUT_WR);
  EXPECT_THAT(readAllOf(clients.back()), HasSubstr("\r\n\r\nabc"));
}

TEST_F(HttpServerTest, WhatComesAnotherWayIsHeldUntilItsEnd) {
  startEcho();
  FdPair pair = makeSocketPair(SOCK_STREAM);
  std::promise<void> let_go;
  server_->serve(std::move(pair.second), std::shared_ptr<void>(&let_go, [](void* held) {
                   static_cast<std::promise<void>*>(held)->set_value();
                 }));
  pair.first.reset();
  let_go.get_future().wait();
  server_->stop();
  FdPair late = makeSocketPair(SOCK_STREAM);
  server_->serve(std::move(late.second), nullptr);
  EXPECT_EQ(readAllOf(late.first), "") << "closed";
}

TEST_F(HttpServerTest, KeepsConnectionsAndSkipsBodiesNobodyRead) {
  start([](Exchange& e) { e.reply(200, "text/plain", e.request().path, {}); });
  const std::string answers =
      ask("POST /one HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
          "GET /two HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(answers, HasSubstr("/one"));
  EXPECT_THAT(answers, HasSubstr("/two"));
}

TEST_F(HttpServerTest, HeadHasNoBodyAndContinueIsAnswered) {
  startEcho();
  EXPECT_THAT(ask("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
              ::testing::EndsWith("\r\n\r\n"));
  EXPECT_THAT(ask("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n"
                  "\r\na"),
              ::testing::StartsWith("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200"));
}

TEST_F(HttpServerTest, StreamsAreChunkedAndFlushedAtOnce) {
  std::promise<void> go;
  start([&](Exchange& e) {
    Sink& out = e.stream(200, "text/plain", {});
    out.write("first");
    go.get_future().wait();
    out.write("second");
  });
  const Fd fd = connect();
  writeFull(fd.get(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  std::string seen;
  std::array<std::byte, 1024> buffer;
  while (seen.find("first") == std::string::npos) {
    const size_t got = readSome(fd.get(), buffer);
    ASSERT_GT(got, 0u);
    seen.append(reinterpret_cast<const char*>(buffer.data()), got);
  }
  go.set_value();
  shutdown(fd.get(), SHUT_WR);
  EXPECT_THAT(readAllOf(fd), HasSubstr("6\r\nsecond\r\n0\r\n\r\n"));
}

TEST_F(HttpServerTest, HijackWithAndWithoutUpgrade) {
  start([](Exchange& e) {
    const RawConnection raw = e.hijack("application/x");
    writeFull(raw.fd, "got:" + raw.already_read);
  });
  const std::string upgraded =
      ask("POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly");
  EXPECT_THAT(upgraded, ::testing::StartsWith("HTTP/1.1 101 UPGRADED\r\n"));
  EXPECT_THAT(upgraded, HasSubstr("\r\n\r\ngot:early"));
  const std::string plain = ask("POST / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(plain, ::testing::StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(plain, Not(HasSubstr("Content-Length")));
}

TEST_F(HttpServerTest, DisconnectIsToldWhileNobodyReads) {
  std::promise<void> gone;
  auto future = gone.get_future();
  start([&](Exchange& e) {
    std::promise<void> told;
    const auto watch = e.onDisconnect([&] { told.set_value(); });
    told.get_future().wait();
    EXPECT_TRUE(e.disconnected());
    gone.set_value();
  });
  {
    const Fd fd = connect();
    writeFull(fd.get(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    // A half-close is no disconnection: the end of input only.
    shutdown(fd.get(), SHUT_WR);
    EXPECT_EQ(future.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  }
  EXPECT_EQ(future.wait_for(std::chrono::seconds(60)), std::future_status::ready);
}

TEST_F(HttpServerTest, HostileRequests) {
  startEcho();
  EXPECT_THAT(ask("GET / HTTP/1.1\r\nA: " + std::string(10'000, 'x') + "\r\n\r\n"),
              HasSubstr(" 431 "));
  EXPECT_THAT(ask("nonsense\r\n\r\n"), HasSubstr(" 400 "));
  EXPECT_THAT(ask(std::string("\x16\x03\x01\0\0", 5) + "\r\n\r\n"), HasSubstr(" 400 "));
  EXPECT_THAT(ask("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
              HasSubstr(" 400 "));
  EXPECT_THAT(ask("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "ffffffffffffffffff\r\n"),
              HasSubstr(" 400 "));
  EXPECT_THAT(ask("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), HasSubstr(" 400 "));
  EXPECT_THAT(ask("POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" +
                  std::string(kMaxJsonBodyBytes + 1, 'x')),
              HasSubstr(" 413 "));
  EXPECT_THAT(ask("GET /?a=%zz HTTP/1.1\r\nHost: x\r\n\r\n"), HasSubstr(" 400 "));
  EXPECT_THAT(ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\na"),
              HasSubstr(" 200 "));
}

TEST_F(HttpServerTest, SlowClientsDoNotKeepTheirPlaces) {
  startEcho();
  std::vector<Fd> slow;
  for (int i = 0; i < 3; ++i) {
    slow.push_back(connect());
    writeFull(slow.back().get(), "GET / HTTP/1.1\r\nHos");  // and never the rest
  }
  slow.push_back(connect());
  writeFull(slow.back().get(), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab");
  // Every place is taken; the timeouts free them.
  EXPECT_THAT(ask("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"), HasSubstr(" 200 "));
  EXPECT_EQ(readAllOf(slow[0]), "");
  EXPECT_THAT(readAllOf(slow[3]), HasSubstr(" 504 "));
}

TEST_F(HttpServerTest, StopEndsOpenConnections) {
  startEcho();
  const Fd idle = connect();
  std::string answer = ask("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(answer, HasSubstr(" 200 "));
  server_->stop();
  thread_.join();
  EXPECT_EQ(readAllOf(idle), "");
}

}  // namespace
}  // namespace hull::engine::api
