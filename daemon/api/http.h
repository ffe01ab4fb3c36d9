// HTTP as the API's handlers see it: a request that was read, and the one answer to it. Implemented
// by http_connection.cc (the only file that knows Beast) and used by one thread, the connection's
// own; onDisconnect callbacks come from the server's watcher thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/stream.h"

namespace hull::engine::api {

inline constexpr size_t kMaxJsonBodyBytes = 4 << 20;
inline constexpr unsigned kMinApiMinor = 24;  // 1.24
inline constexpr unsigned kMaxApiMinor = 51;  // 1.51: later ones drop fields that clients read

using Headers = std::vector<std::pair<std::string, std::string>>;

// The part behind "?", decoded. Of a repeated key `get` gives the first value, `all` every one.
class Query {
 public:
  Query() = default;
  explicit Query(std::string_view text);  // throws kInvalidArgument on a bad escape

  bool has(std::string_view key) const;
  std::string get(std::string_view key, std::string_view otherwise = {}) const;
  std::vector<std::string> all(std::string_view key) const;
  // Docker's booleans: "", 0, no, false, none are false (any case), everything else is true.
  bool flag(std::string_view key, bool otherwise = false) const;
  std::optional<int64_t> number(std::string_view key) const;  // throws kInvalidArgument

 private:
  std::vector<std::pair<std::string, std::string>> values_;
};

// "%41" → "A"; throws kInvalidArgument on a bad escape. `plus_is_space` as in queries.
std::string percentDecode(std::string_view text, bool plus_is_space);

struct Request {
  std::string method;
  std::string path;                          // as sent: escaped, with its version prefix
  unsigned api_minor = kMaxApiMinor;         // set by the router
  std::vector<std::string> path_parameters;  // set by the router: the pattern's {…}, decoded
  Query query;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string id;                              // in log lines and X-Request-Id; set by the router
  bool upgrade = false;                        // "Connection: Upgrade": a 101 is expected

  std::string header(const std::string& lower_case_name) const;
};

// A connection taken over from HTTP. The descriptor stays the server's, which closes it when the
// handler returns.
struct RawConnection {
  int fd = -1;
  std::string already_read;  // what the client sent right behind its request
};

class Exchange {
 public:
  virtual ~Exchange() = default;

  const Request& request() const { return request_; }
  Request& request() { return request_; }
  const std::string& parameter(size_t index) const { return request_.path_parameters.at(index); }

  // The request's body, streamed. A client that goes away in the middle is kCancelled.
  virtual Source& body() = 0;
  // A whole body within kMaxJsonBodyBytes.
  std::string text() { return readAll(body(), kMaxJsonBodyBytes, "request body"); }

  // One of these, once:
  virtual void reply(int status, std::string_view content_type, std::string_view body,
                     const Headers& headers) = 0;
  // The header goes out at once, then each write is one chunk; the end is the handler's return.
  // Writing to a client that is gone throws kCancelled.
  virtual Sink& stream(int status, std::string_view content_type, const Headers& headers) = 0;
  // 101 when the client asked for an upgrade, else 200 with the connection's end as the end.
  virtual RawConnection hijack(std::string_view content_type) = 0;

  virtual bool answered() const = 0;        // one of the three was called
  virtual int status() const { return 0; }  // of the answer; 0: none yet

  // Calls `gone` when the client closes its end completely, until the token is destroyed (which
  // waits for a call that is under way). `gone` must be quick and must not throw.
  virtual std::shared_ptr<void> onDisconnect(std::function<void()> gone) = 0;
  virtual bool disconnected() const = 0;

  void json(int status, std::string_view body, const Headers& headers = {}) {
    reply(status, "application/json", body, headers);
  }
  void empty(int status, const Headers& headers = {}) { reply(status, {}, {}, headers); }

 protected:
  Request request_;
};

using Handler = std::function<void(Exchange&)>;

}  // namespace hull::engine::api
