// One listening socket and the threads of its connections, within a limit. The destructor ends all
// of them and waits. Any thread.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "base/fd.h"
#include "registry/server/connection.h"

namespace hull::registry {

class Acceptor {
 public:
  // Serves one connection to its end; what it throws ends that connection.
  using Serve = std::function<void(int socket, const std::string& peer)>;

  // `listener` listens and does not block.
  Acceptor(Fd listener, size_t max_connections, Serve serve);
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  uint16_t port() const;        // 0 on a unix socket
  std::string address() const;  // "127.0.0.1:5000", with the real port
  size_t connections() const;

 private:
  void acceptLoop();
  void acceptOne();
  void run(Fd socket, const std::string& peer);
  void leave(int fd);

  Fd listener_;
  Fd wakeup_;
  const size_t max_connections_;
  const Serve serve_;
  std::atomic<bool> stopping_ = false;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  std::set<int> connections_;  // guarded by mutex_
  size_t running_ = 0;         // guarded by mutex_
  std::thread thread_;
};

// "ADDRESS:PORT", "[v6]:PORT", ":PORT"; throws naming what to do.
Fd listenOn(const std::string& listen_at);
// A unix socket for its owner only, replacing what is left of one nobody listens on.
Fd listenOnPath(const std::string& folder, const std::string& name);
// Throws kUnavailable when nobody listens.
Fd connectToPath(const std::string& folder, const std::string& name);

}  // namespace hull::registry
