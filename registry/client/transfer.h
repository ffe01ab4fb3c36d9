// One HTTP exchange through libcurl, pulled by its reader: the answer's head first, then its body
// as a Source with bounded buffering. Follows no redirects and adds no credentials. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/stream.h"
#include "registry/client/client.h"
#include "registry/http/url.h"

namespace hull::registry {

inline constexpr size_t kMaxResponseHeaderBytes = 256 << 10;
inline constexpr size_t kTransferBufferBytes = 1 << 20;  // received but not read yet
inline constexpr size_t kMaxIdleConnections = 8;         // of one pool
inline constexpr long kConnectLimitSeconds = 30;
inline constexpr long kSilenceLimitSeconds = 60;  // without one byte

struct TransferRequest {
  std::string method = "GET";  // GET, HEAD, POST, PUT, PATCH or DELETE
  Url url;
  std::vector<std::string> headers;  // "Name: value"
  std::string body;
  int file = -1;  // instead of `body`: file_bytes from its start; not owned
  uint64_t file_bytes = 0;
  std::function<void(uint64_t)> sent;  // bytes of the body so far
};

struct ResponseHead {
  int status = 0;
  std::multimap<std::string, std::string> headers;  // names in lower case

  std::string header(const std::string& name) const;  // the first; "" when absent
  std::vector<std::string> all(const std::string& name) const;
};

// A failed exchange. `retryable`: the peer was reached, and the connection broke or fell silent.
class TransferError : public Error {
 public:
  TransferError(ErrorKind kind, const std::string& message, bool retryable)
      : Error(kind, message), retryable_(retryable) {}
  bool retryable() const { return retryable_; }

 private:
  bool retryable_;
};

// Connections that wait for the next exchange with the same server, so that it needs no new
// handshake. Outlives the transfers that use it. Any thread.
class ConnectionPool {
 public:
  ConnectionPool();
  ~ConnectionPool();
  struct State;
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

class Transfer final : public Source {
 public:
  // Throws TransferError, or kCancelled. Returns when the head of the final answer is there.
  // Without a pool the connection is for this exchange alone.
  Transfer(TransferRequest request, const ClientOptions& options, ConnectionPool* pool = nullptr);
  ~Transfer() override;

  const ResponseHead& head() const;
  const Url& url() const;
  size_t read(std::span<std::byte> into) override;
  // The rest of the body; throws kTooLarge beyond `limit`.
  std::string text(size_t limit, std::string_view what);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hull::registry
