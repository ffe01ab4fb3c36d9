// The bytes of one accepted connection, plain or TLS, with a time limit on every wait: a peer that
// stops reading or writing costs one thread for at most that long. Owned by its connection; one
// thread, except that the server may shut the socket down from another.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.h"

namespace hull::registry {

class Transport {
 public:
  using Clock = std::chrono::steady_clock;

  Transport(int socket, std::chrono::milliseconds limit);  // does not own
  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  // Both throw kTimeout or kUnavailable.
  virtual size_t read(std::span<std::byte> into) = 0;  // 0 at the end
  virtual void write(std::span<const std::byte> bytes) = 0;
  void write(std::string_view text) { write(asBytes(text)); }
  // `length` bytes of a file; sendfile(2) where the transport allows.
  virtual void sendFile(int fd, uint64_t offset, uint64_t length);

  // Ends the connection so that the peer can read what was sent: closes our side, then reads a
  // little of what the peer is still sending.
  void finish();
  // All waits end here, however busy the peer; nullopt: only the limit of each wait.
  void setDeadline(std::optional<Clock::time_point> deadline) { deadline_ = deadline; }
  int fd() const { return socket_; }

 protected:
  virtual void sayGoodbye() {}
  void wait(short events);

 private:
  int socket_;
  std::chrono::milliseconds limit_;
  std::optional<Clock::time_point> deadline_;
};

// The server's certificate and key. Any thread; connections keep the ones they began with.
class TlsContext {
 public:
  TlsContext(const std::string& certificate_file, const std::string& key_file);  // PEM; throws
  ~TlsContext();
  // Throws, and keeps the old ones, when the new ones are no good.
  void reload(const std::string& certificate_file, const std::string& key_file);
  struct State;
  std::shared_ptr<State> state() const;

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<State> state_;  // guarded by mutex_
};

std::unique_ptr<Transport> makePlainTransport(int socket, std::chrono::milliseconds limit);
// Shakes hands; throws when that fails.
std::unique_ptr<Transport> makeTlsTransport(int socket, std::chrono::milliseconds limit,
                                            const TlsContext& context);

}  // namespace hull::registry
