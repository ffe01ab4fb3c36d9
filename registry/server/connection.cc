#include "registry/server/connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/status.hpp>
#include <chrono>
#include <vector>

#include "base/error.h"
#include "base/log.h"

namespace hull::registry {

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using Parser = http::request_parser<http::buffer_body>;

// A Transport as Beast wants to read it. Its exceptions pass through Beast.
struct Stream {
  Transport& transport;

  template <typename Buffers>
  size_t read_some(const Buffers& buffers, boost::system::error_code& error) {
    const asio::mutable_buffer first = *asio::buffer_sequence_begin(buffers);
    const size_t got =
        transport.read(std::span(static_cast<std::byte*>(first.data()), first.size()));
    error = got == 0 ? asio::error::make_error_code(asio::error::eof) : boost::system::error_code();
    return got;
  }
  template <typename Buffers>
  size_t read_some(const Buffers& buffers) {
    boost::system::error_code error;
    const size_t got = read_some(buffers, error);
    if (error) throw boost::system::system_error(error);
    return got;
  }
};

// The body of the request being handled. Asks for it ("100 Continue") at the first read.
class Body final : public Source {
 public:
  Body(Transport& transport, boost::beast::flat_buffer& buffer, Parser& parser, bool wants_continue)
      : transport_(transport), buffer_(buffer), parser_(parser), wants_continue_(wants_continue) {
    if (const auto length = parser.content_length()) left_ = *length;
  }

  size_t read(std::span<std::byte> into) override {
    if (complete()) return 0;
    if (wants_continue_) {
      wants_continue_ = false;
      transport_.write("HTTP/1.1 100 Continue\r\n\r\n");
    }
    return parser_.chunked() ? readChunked(into) : readPlain(into);
  }

  bool complete() const { return parser_.chunked() ? parser_.is_done() : left_ == 0; }
  uint64_t received() const { return received_; }

 private:
  // The parser is not needed for a body of known length: past what it has buffered, bytes go
  // straight where they are wanted.
  size_t readPlain(std::span<std::byte> into) {
    into = into.first(static_cast<size_t>(std::min<uint64_t>(into.size(), left_)));
    size_t got = asio::buffer_copy(asio::buffer(into.data(), into.size()), buffer_.data());
    buffer_.consume(got);
    if (got == 0) got = transport_.read(into);
    if (got == 0) throw Error(ErrorKind::kUnavailable, "the peer closed in the middle of a body");
    left_ -= got;
    received_ += got;
    return got;
  }

  size_t readChunked(std::span<std::byte> into) {
    auto& body = parser_.get().body();
    Stream stream{transport_};
    while (!parser_.is_done()) {
      body.data = into.data();
      body.size = into.size();
      boost::system::error_code error;
      http::read_some(stream, buffer_, parser_, error);
      const size_t got = into.size() - body.size;
      if (error && error != http::error::need_buffer) {
        throw Error(ErrorKind::kUnavailable, "bad chunked body: " + error.message());
      }
      received_ += got;
      if (got > 0) return got;
    }
    return 0;
  }

  Transport& transport_;
  boost::beast::flat_buffer& buffer_;
  Parser& parser_;
  bool wants_continue_;
  uint64_t left_ = 0;
  uint64_t received_ = 0;
};

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return result;
}

std::string_view view(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

Request requestOf(const Parser& parser) {
  Request request;
  const auto& message = parser.get();
  request.method = std::string(view(message.method_string()));
  request.target = std::string(view(message.target()));
  for (const auto& field : message) {
    std::string& value = request.headers[lower(view(field.name_string()))];
    if (!value.empty()) value += ", ";
    value += view(field.value());
  }
  if (!parser.chunked()) request.content_length = parser.content_length().value_or(0);
  return request;
}

uint64_t bodySize(const Response& response) {
  if (response.stream) return response.stream_length;
  return response.file ? response.file->length : response.body.size();
}

std::string headOf(const Response& response, bool keep_alive) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(response.status));
  std::string head = "HTTP/1.1 " + std::to_string(response.status) + " " +
                     std::string(view(reason)) + "\r\nDocker-Distribution-Api-Version: " +
                     "registry/2.0\r\nX-Content-Type-Options: nosniff\r\n";
  for (const auto& [name, value] : response.headers) {
    // No value made of a request may end the line: header injection.
    if (value.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos) continue;
    head += name + ": " + value + "\r\n";
  }
  const bool has_body = response.status != 204 && response.status != 304;
  if (has_body) head += "Content-Length: " + std::to_string(bodySize(response)) + "\r\n";
  head += keep_alive ? "\r\n" : "Connection: close\r\n\r\n";
  return head;
}

void sendStream(Transport& transport, const Response& response) {
  std::vector<std::byte> buffer(
      static_cast<size_t>(std::min<uint64_t>(response.stream_length, kStreamChunkBytes)));
  for (uint64_t left = response.stream_length; left > 0;) {
    const size_t wanted = static_cast<size_t>(std::min<uint64_t>(left, buffer.size()));
    const size_t got = response.stream->read(std::span(buffer).first(wanted));
    if (got == 0) throw Error(ErrorKind::kUnavailable, "the content ended early");
    transport.write(std::span<const std::byte>(buffer).first(got));
    left -= got;
  }
}

void sendResponse(Transport& transport, const Response& response, bool head_only, bool keep_alive) {
  std::string head = headOf(response, keep_alive);
  const bool inlined = !response.file && !response.stream;
  if (!head_only && inlined) head += response.body;
  transport.write(head);
  if (head_only || inlined) return;
  if (response.stream) {
    sendStream(transport, response);
  } else if (response.file->length > 0) {
    transport.sendFile(response.file->fd.get(), response.file->offset, response.file->length);
  }
}

class Connection {
 public:
  Connection(Transport& transport, const Peer& peer, const Handler& handler,
             const Finished& finished)
      : transport_(transport), peer_(peer), handler_(handler), finished_(finished) {}

  // One request and its answer; false when the connection is over.
  bool serveOne() {
    Parser parser;
    parser.header_limit(kMaxRequestHeaderBytes);
    parser.body_limit(boost::none);  // bounded by the handlers
    if (!readHeader(parser)) return false;
    const auto start = std::chrono::steady_clock::now();
    Request request = requestOf(parser);
    request.peer = peer_.address;
    request.tls = peer_.tls;
    Body body(transport_, buffer_, parser, lower(request.header("expect")) == "100-continue");
    request.body = &body;
    const Response response = handler_(request);
    // What a handler left unread would be taken for the next request.
    const bool keep_alive = parser.get().keep_alive() && body.complete();
    Exchange exchange{request, response, body.received(), 0, {}, {}};
    try {
      sendResponse(transport_, response, request.method == "HEAD", keep_alive);
      exchange.sent = request.method == "HEAD" ? 0 : bodySize(response);
    } catch (const Error& error) {
      exchange.failure = error.what();
    }
    exchange.took = std::chrono::steady_clock::now() - start;
    finished_(exchange);
    return exchange.failure.empty() && keep_alive;
  }

 private:
  bool readHeader(Parser& parser) {
    if (buffer_.size() == 0) {  // idle until the first byte
      const auto space = buffer_.prepare(kMaxRequestHeaderBytes / 4);
      const size_t got =
          transport_.read(std::span(static_cast<std::byte*>(space.data()), space.size()));
      if (got == 0) return false;
      buffer_.commit(got);
    }
    transport_.setDeadline(Transport::Clock::now() + kHeaderLimit);
    Stream stream{transport_};
    boost::system::error_code error;
    http::read_header(stream, buffer_, parser, error);
    transport_.setDeadline(std::nullopt);
    if (!error) return true;
    if (error == http::error::end_of_stream || error == http::error::partial_message) return false;
    Response response;
    response.status = error == http::error::header_limit ? 431 : 400;
    response.headers.emplace_back("Content-Type", "text/plain");
    response.body = "bad request: " + error.message() + "\n";
    sendResponse(transport_, response, false, false);
    log::info(peer_.address + " " + std::to_string(response.status) + " " + error.message());
    return false;
  }

  Transport& transport_;
  const Peer& peer_;
  const Handler& handler_;
  const Finished& finished_;
  boost::beast::flat_buffer buffer_{kMaxRequestHeaderBytes + (64 << 10)};
};

}  // namespace

void serveConnection(Transport& transport, const Peer& peer, const Handler& handler,
                     const Finished& finished) {
  Connection connection(transport, peer, handler, finished);
  while (connection.serveOne()) {
  }
  transport.finish();
}

}  // namespace hull::registry
