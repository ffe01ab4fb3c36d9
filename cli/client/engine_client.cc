#include "cli/client/engine_client.h"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace hull::cli {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using nlohmann::json;

namespace {

constexpr size_t kMaxResponseBytes = size_t{256} << 20;  // one whole answer, e.g. `inspect`
constexpr const char* kApiPrefix = "/v1.44";

class Connection {
 public:
  explicit Connection(const Endpoint& endpoint) : socket_(context_) {
    Fd fd = connectTo(endpoint);  // a unix socket, or the near end of a tunnel
    socket_.assign(asio::local::stream_protocol(), fd.release());
  }

  template <typename Body>
  void write(http::request<Body>& request) {
    http::serializer<true, Body> serializer(request);
    http::write(socket_, serializer);
  }

  void writeChunked(http::request<http::empty_body>& request, Source& body) {
    request.chunked(true);
    http::serializer<true, http::empty_body> serializer(request);
    http::write_header(socket_, serializer);
    std::vector<std::byte> buffer(kStreamChunkBytes);
    boost::system::error_code failed;
    for (;;) {
      const size_t got = body.read(buffer);
      if (got == 0) break;
      asio::write(socket_, http::make_chunk(asio::buffer(buffer.data(), got)), failed);
      // The engine may answer with an error before it has read everything: its answer counts.
      if (failed) return;
    }
    asio::write(socket_, http::make_chunk_last(), failed);
  }

  template <typename Body>
  void readHeader(http::response_parser<Body>& parser) {
    parser.body_limit(boost::none);
    http::read_header(socket_, buffer_, parser);
  }

  template <typename Body>
  boost::system::error_code readSome(http::response_parser<Body>& parser) {
    boost::system::error_code status;
    http::read_some(socket_, buffer_, parser, status);
    return status;
  }

  Hijacked release() {
    Hijacked hijacked;
    const auto data = buffer_.data();
    hijacked.already_read.assign(static_cast<const char*>(data.data()), data.size());
    hijacked.socket = Fd(socket_.release());
    setNonBlocking(hijacked.socket.get(), false);
    return hijacked;
  }

 private:
  asio::io_context context_;
  asio::local::stream_protocol::socket socket_;
  boost::beast::flat_buffer buffer_;
};

template <typename Body>
http::request<Body> makeRequest(std::string_view method, const std::string& target,
                                const Headers& headers) {
  http::request<Body> request;
  request.method_string({method.data(), method.size()});
  request.target(kApiPrefix + target);
  request.version(11);
  request.set(http::field::host, "hull");
  request.set(http::field::user_agent, "Hull-Client");
  for (const auto& [name, value] : headers) request.set(name, value);
  return request;
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

template <typename Header>
Response describe(const Header& header) {
  Response response;
  response.status = static_cast<int>(header.result_int());
  for (const auto& field : header) {
    response.headers[lower({field.name_string().data(), field.name_string().size()})] =
        std::string(field.value());
  }
  return response;
}

[[noreturn]] void throwApiError(const Response& response) {
  const json body = json::parse(response.body, nullptr, false);
  if (body.is_object() && body.contains("message") && body["message"].is_string()) {
    throw ApiError(response.status, body["message"].get<std::string>());
  }
  throw ApiError(response.status, "the engine answered with status " +
                                      std::to_string(response.status) +
                                      (response.body.empty() ? "" : ": " + response.body));
}

// Reads the body, handing it on piece by piece; an error's body is collected instead.
Response readResponse(Connection& connection, const EngineClient::DataFunction& on_data,
                      bool head) {
  http::response_parser<http::buffer_body> parser;
  parser.skip(head);
  connection.readHeader(parser);
  Response response = describe(parser.get());
  const bool failed = response.status >= 400;
  char piece[65536];
  while (!parser.is_done()) {
    parser.get().body().data = piece;
    parser.get().body().size = sizeof piece;
    const auto status = connection.readSome(parser);
    if (status && status != http::error::need_buffer) throw boost::system::system_error(status);
    const std::string_view data(piece, sizeof piece - parser.get().body().size);
    if (failed || !on_data) {
      if (response.body.size() + data.size() > kMaxResponseBytes) {
        throw Error(ErrorKind::kTooLarge, "read the engine's answer: larger than 256 MiB");
      }
      response.body.append(data);
    } else {
      on_data(data);
    }
  }
  if (failed) throwApiError(response);
  return response;
}

template <typename Work>
auto talking(const std::string& path, Work&& work) {
  try {
    return work();
  } catch (const boost::system::system_error& error) {
    throw Error(ErrorKind::kUnavailable, "talk to the engine at " + path + ": " +
                                             error.code().message() +
                                             " (is it still running? see 'hull info')");
  }
}

}  // namespace

Response EngineClient::call(std::string_view method, const std::string& target,
                            std::string_view body, const Headers& headers) const {
  return talking(endpoint_.url, [&] {
    Connection connection(endpoint_);
    auto request = makeRequest<http::string_body>(method, target, headers);
    request.body() = std::string(body);
    if (!body.empty() && request.find(http::field::content_type) == request.end()) {
      request.set(http::field::content_type, "application/json");
    }
    request.prepare_payload();
    connection.write(request);
    return readResponse(connection, {}, method == "HEAD");
  });
}

json EngineClient::get(const std::string& target) const {
  return json::parse(call("GET", target).body);
}

json EngineClient::post(const std::string& target, const json& body) const {
  const Response response = call("POST", target, body.is_null() ? "" : body.dump());
  return response.body.empty() ? json() : json::parse(response.body);
}

Response EngineClient::stream(std::string_view method, const std::string& target, Source* body,
                              const Headers& headers, const DataFunction& on_data) const {
  return talking(endpoint_.url, [&] {
    Connection connection(endpoint_);
    auto request = makeRequest<http::empty_body>(method, target, headers);
    if (body) {
      connection.writeChunked(request, *body);
    } else {
      request.prepare_payload();
      connection.write(request);
    }
    return readResponse(connection, on_data, false);
  });
}

Hijacked EngineClient::hijack(const std::string& target, const json* body) const {
  return talking(endpoint_.url, [&] {
    Connection connection(endpoint_);
    auto request = makeRequest<http::string_body>("POST", target,
                                                  {{"Connection", "Upgrade"}, {"Upgrade", "tcp"}});
    if (body) {
      request.body() = body->dump();
      request.set(http::field::content_type, "application/json");
    }
    request.prepare_payload();
    connection.write(request);
    http::response_parser<http::string_body> parser;
    parser.skip(false);
    connection.readHeader(parser);
    if (parser.get().result_int() >= 400) {
      while (!parser.is_done()) {
        if (const auto status = connection.readSome(parser))
          throw boost::system::system_error(status);
      }
      Response response = describe(parser.get());
      response.body = parser.get().body();
      throwApiError(response);
    }
    return connection.release();
  });
}

std::string urlEncode(std::string_view text) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (std::isalnum(code) || c == '-' || c == '_' || c == '.' || c == '~') {
      encoded += c;
    } else {
      encoded += '%';
      encoded += kHex[code >> 4];
      encoded += kHex[code & 15];
    }
  }
  return encoded;
}

std::string withQuery(const std::string& path,
                      const std::vector<std::pair<std::string, std::string>>& query) {
  std::string target = path;
  char separator = '?';
  for (const auto& [key, value] : query) {
    if (value.empty()) continue;
    target += separator + key + "=" + urlEncode(value);
    separator = '&';
  }
  return target;
}

JsonLines::JsonLines(std::function<void(const json&)> on_line) : on_line_(std::move(on_line)) {}

void JsonLines::feed(std::string_view data) {
  pending_.append(data);
  size_t start = 0;
  for (size_t end; (end = pending_.find('\n', start)) != std::string::npos; start = end + 1) {
    line(std::string_view(pending_).substr(start, end - start));
  }
  pending_.erase(0, start);
}

void JsonLines::finish() {
  line(pending_);
  pending_.clear();
}

void JsonLines::line(std::string_view text) {
  if (text.find_first_not_of(" \r\t") == std::string_view::npos) return;
  const json object = json::parse(text);
  if (object.contains("error")) {
    throw Error(ErrorKind::kInternal, object["error"].get<std::string>());
  }
  on_line_(object);
}

}  // namespace hull::cli
