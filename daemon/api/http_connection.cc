// One HTTP/1.1 connection: Beast parses what comes in, what goes out is written plainly. Every wait
// for the client has a deadline while a request is being read.
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>

#include "base/error.h"
#include "base/log.h"
#include "daemon/api/http_server.h"
#include "daemon/api/router.h"

namespace hull::engine::api {

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kMaxDrainBytes = 1 << 20;  // of a body no handler read, to reuse a connection

// A Beast SyncReadStream over a socket, with a deadline for each wait.
class FdStream {
 public:
  explicit FdStream(int fd) : fd_(fd) {}

  void deadlineIn(std::chrono::milliseconds time) { deadline_ = Clock::now() + time; }

  template <typename Buffers>
  size_t read_some(const Buffers& buffers, error_code& failed) {
    const asio::mutable_buffer first = *asio::buffer_sequence_begin(buffers);
    for (;;) {
      const ssize_t got = recv(fd_, first.data(), first.size(), MSG_DONTWAIT);
      if (got > 0) return static_cast<size_t>(got);
      if (got == 0) {
        failed = asio::error::eof;
        return 0;
      }
      if (errno == EAGAIN && !waitReadable()) {
        failed = asio::error::timed_out;
        return 0;
      }
      if (errno != EAGAIN && errno != EINTR) {
        failed = error_code(errno, boost::system::system_category());
        return 0;
      }
    }
  }
  template <typename Buffers>
  size_t read_some(const Buffers& buffers) {
    error_code failed;
    const size_t got = read_some(buffers, failed);
    if (failed) throw boost::system::system_error(failed);
    return got;
  }

  bool waitReadable() const {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
    pollfd waiting{fd_, POLLIN, 0};
    const int ready = left <= 0 ? 0 : poll(&waiting, 1, static_cast<int>(left));
    if (ready < 0 && errno == EINTR) return true;
    errno = EAGAIN;
    return ready > 0;
  }

 private:
  int fd_;
  Clock::time_point deadline_;
};

void sendAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) throw Error(ErrorKind::kCancelled, "the client went away");
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

std::string responseHead(int status, std::string_view content_type, const Headers& headers) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(status));
  std::string head = "HTTP/1.1 " + std::to_string(status) + " " + std::string(reason) + "\r\n";
  head += "Server: Hull\r\nApi-Version: 1." + std::to_string(kMaxApiMinor) +
          "\r\nOstype: linux\r\nDocker-Experimental: false\r\n";
  if (!content_type.empty()) head += "Content-Type: " + std::string(content_type) + "\r\n";
  for (const auto& [name, value] : headers) {
    if (value.find_first_of("\r\n") != std::string::npos) continue;  // never split a header
    head += name + ": " + value + "\r\n";
  }
  return head;
}

class ChunkedSink final : public Sink {
 public:
  explicit ChunkedSink(int fd) : fd_(fd) {}
  using Sink::write;
  void write(std::span<const std::byte> bytes) override {
    if (bytes.empty()) return;  // an empty chunk would be the end
    char size[24];
    const int length = snprintf(size, sizeof size, "%zx\r\n", bytes.size());
    std::string chunk(size, static_cast<size_t>(length));
    chunk.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    chunk += "\r\n";
    sendAll(fd_, chunk);
  }
  void finish() { sendAll(fd_, "0\r\n\r\n"); }

 private:
  int fd_;
};

class Connection final : public Exchange, private Source {
 public:
  Connection(int fd, const HttpLimits& limits, DisconnectWatch& watch,
             boost::beast::flat_buffer& buffer)
      : fd_(fd), limits_(limits), watch_(watch), stream_(fd), buffer_(buffer), chunks_(fd) {}

  // False when there is no further request to answer.
  bool readHeader() {
    parser_.header_limit(static_cast<uint32_t>(limits_.header_bytes));
    parser_.body_limit(boost::none);
    stream_.deadlineIn(limits_.idle_timeout);
    if (buffer_.size() == 0 && !stream_.waitReadable()) return false;
    stream_.deadlineIn(limits_.header_timeout);
    error_code failed;
    http::read_header(stream_, buffer_, parser_, failed);
    if (failed == http::error::end_of_stream || failed == asio::error::eof ||
        failed == asio::error::timed_out || failed == asio::error::connection_reset) {
      return false;
    }
    if (failed) {
      const bool large =
          failed == http::error::header_limit || failed == http::error::buffer_overflow;
      json(large ? 431 : 400, errorBody("malformed request: " + failed.message()));
      return false;
    }
    describeRequest();
    return true;
  }

  // After the handler. True when the connection can carry another request.
  bool finish() {
    if (!answered_) json(500, errorBody("the request was not answered"));
    if (streaming_ && request_.method != "HEAD") chunks_.finish();
    if (hijacked_ || !parser_.get().keep_alive()) return false;
    return drain();
  }

  Source& body() override {
    if (!body_asked_ && expects_continue_) sendAll(fd_, "HTTP/1.1 100 Continue\r\n\r\n");
    body_asked_ = true;
    return *this;
  }

  void reply(int status, std::string_view content_type, std::string_view body,
             const Headers& headers) override {
    begin(status);
    std::string answer = responseHead(status, content_type, identified(headers));
    if (status != 204 && status != 304) {
      answer += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    }
    answer += "\r\n";
    if (request_.method != "HEAD") answer += body;
    sendAll(fd_, answer);
  }

  Sink& stream(int status, std::string_view content_type, const Headers& headers) override {
    begin(status);
    streaming_ = true;
    sendAll(fd_, responseHead(status, content_type, identified(headers)) +
                     "Transfer-Encoding: chunked\r\n\r\n");
    if (request_.method == "HEAD") return nothing_;
    return chunks_;
  }

  RawConnection hijack(std::string_view content_type) override {
    begin(request_.upgrade ? 101 : 200);
    hijacked_ = true;
    if (request_.upgrade) {
      sendAll(fd_, "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + std::string(content_type) +
                       "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
    } else {
      sendAll(fd_, responseHead(200, content_type, {}) + "Connection: close\r\n\r\n");
    }
    const auto rest = buffer_.data();
    return {fd_, {static_cast<const char*>(rest.data()), rest.size()}};
  }

  bool answered() const override { return answered_; }
  int status() const override { return status_; }

  std::shared_ptr<void> onDisconnect(std::function<void()> gone) override {
    return watch_.watch(fd_, std::move(gone));
  }

  bool disconnected() const override {
    pollfd state{fd_, 0, 0};
    return poll(&state, 1, 0) > 0 && (state.revents & (POLLHUP | POLLERR)) != 0;
  }

 private:
  Headers identified(Headers headers) const {
    if (!request_.id.empty()) headers.emplace_back("X-Request-Id", request_.id);
    return headers;
  }

  void begin(int status) {
    status_ = status;
    if (answered_) throw Error(ErrorKind::kInternal, "answer a request: it is answered already");
    answered_ = true;
  }

  void describeRequest() {
    const auto& message = parser_.get();
    request_.method = std::string(message.method_string());
    std::string target(message.target());
    const size_t question = target.find('?');
    if (question != std::string::npos) {
      query_text_ = target.substr(question + 1);
      target.resize(question);
    }
    request_.path = std::move(target);
    for (const auto& field : message) {
      request_.headers[lower(field.name_string())] = std::string(field.value());
    }
    // Docker's clients send "Connection: Upgrade" and "Upgrade: tcp".
    request_.upgrade = message.find(http::field::upgrade) != message.end();
    expects_continue_ = lower(request_.header("expect")) == "100-continue";
  }

 public:
  // Separate from readHeader: a bad escape is answered like any other error of a request.
  void parseQuery() { request_.query = Query(query_text_); }

 private:
  size_t read(std::span<std::byte> into) override {
    while (!parser_.is_done()) {
      parser_.get().body().data = into.data();
      parser_.get().body().size = into.size();
      stream_.deadlineIn(limits_.body_timeout);
      error_code failed;
      http::read_some(stream_, buffer_, parser_, failed);
      if (failed == http::error::need_buffer) failed = {};
      if (failed == asio::error::timed_out) {
        throw Error(ErrorKind::kTimeout, "read the request's body: the client sends nothing");
      }
      if (failed == http::error::partial_message || failed == asio::error::connection_reset) {
        throw Error(ErrorKind::kCancelled, "read the request's body: the client went away");
      }
      if (failed) {
        body_broken_ = true;
        throw Error(ErrorKind::kInvalidArgument, "read the request's body: " + failed.message());
      }
      const size_t got = into.size() - parser_.get().body().size;
      if (got > 0) return got;
    }
    return 0;
  }

  bool drain() {
    if (body_broken_) return false;
    if (!parser_.is_done() && expects_continue_ && !body_asked_) return false;
    std::array<std::byte, 16384> buffer;
    for (uint64_t drained = 0; drained < kMaxDrainBytes;) {
      const size_t got = read(buffer);
      if (got == 0) return true;
      drained += got;
    }
    return false;
  }

  int fd_;
  const HttpLimits& limits_;
  DisconnectWatch& watch_;
  FdStream stream_;
  boost::beast::flat_buffer& buffer_;
  http::request_parser<http::buffer_body> parser_;
  ChunkedSink chunks_;
  NullSink nothing_;
  std::string query_text_;
  bool expects_continue_ = false;
  bool body_asked_ = false;
  bool body_broken_ = false;
  bool answered_ = false;
  int status_ = 0;
  bool streaming_ = false;
  bool hijacked_ = false;
};

}  // namespace

void serveConnection(Fd socket, const HttpLimits& limits, DisconnectWatch& watch,
                     const Handler& handler) {
  boost::beast::flat_buffer buffer(limits.header_bytes + kStreamChunkBytes);
  for (bool more = true; more;) {
    Connection connection(socket.get(), limits, watch, buffer);
    if (!connection.readHeader()) return;
    try {
      connection.parseQuery();
      handler(connection);
    } catch (const Error& error) {
      if (connection.answered()) throw;
      connection.json(httpStatusOf(error.kind()), errorBody(error.what()));
    }
    more = connection.finish();
  }
}

}  // namespace hull::engine::api
