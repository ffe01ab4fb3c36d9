// HTTP to the engine at its endpoint: plain calls, streamed bodies both ways, and hijacked
// connections for attach and exec. Boost.Beast stays in the .cc. One call at a time per object;
// every call opens its own connection.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/stream.h"
#include "cli/client/endpoint.h"

namespace hull::cli {

// What the engine answered with a status of 400 or more: its "message", and the status.
class ApiError : public std::runtime_error {
 public:
  ApiError(int status, const std::string& message) : std::runtime_error(message), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

using Headers = std::vector<std::pair<std::string, std::string>>;

struct Response {
  int status = 0;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
};

// A connection taken over from HTTP: what was read behind the header, and the socket.
struct Hijacked {
  Fd socket;
  std::string already_read;
};

class EngineClient {
 public:
  explicit EngineClient(Endpoint endpoint) : endpoint_(std::move(endpoint)) {}

  const std::string& where() const { return endpoint_.url; }  // for messages
  // Every byte to it is carried, over a network or into hull machine.
  bool far() const { return endpoint_.remote() || endpoint_.in_machine; }
  Fd connect() const { return connectTo(endpoint_); }

  // All throw ApiError for an HTTP error and hull::Error(kUnavailable) when the engine is gone.
  Response call(std::string_view method, const std::string& target, std::string_view body = {},
                const Headers& headers = {}) const;
  nlohmann::json get(const std::string& target) const;
  nlohmann::json post(const std::string& target, const nlohmann::json& body) const;

  // Sends `body` chunked when given; hands the answer's body to `on_data` as it arrives.
  using DataFunction = std::function<void(std::string_view)>;
  Response stream(std::string_view method, const std::string& target, Source* body,
                  const Headers& headers, const DataFunction& on_data) const;

  Hijacked hijack(const std::string& target, const nlohmann::json* body) const;

 private:
  Endpoint endpoint_;
};

std::string urlEncode(std::string_view text);

// "path?k=v&k=v" with empty values left out.
std::string withQuery(const std::string& path,
                      const std::vector<std::pair<std::string, std::string>>& query);

// Calls `on_line` with each JSON object of a stream; throws what a line's "error" says.
class JsonLines {
 public:
  explicit JsonLines(std::function<void(const nlohmann::json&)> on_line);
  void feed(std::string_view data);
  void finish();

 private:
  void line(std::string_view text);
  std::function<void(const nlohmann::json&)> on_line_;
  std::string pending_;
};

}  // namespace hull::cli
