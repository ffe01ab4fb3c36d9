// Tells when the other end of a socket is closed completely while nobody reads from it: one thread
// and one epoll for all connections of a server. Any thread may watch.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "base/fd.h"

namespace hull::engine::api {

class DisconnectWatch {
 public:
  DisconnectWatch();
  ~DisconnectWatch();

  // Calls `gone` (at most once, quick, not throwing) when the peer of `fd` has gone. Destroying the
  // token ends it and waits for a call under way; it must happen before `fd` is closed.
  std::shared_ptr<void> watch(int fd, std::function<void()> gone);

 private:
  void loop();
  void forget(uint64_t key);

  struct Entry {
    Fd duplicate;  // an epoll holds a descriptor once, and a connection may be watched twice
    std::function<void()> gone;
  };
  Fd epoll_;
  Fd stop_;
  std::mutex mutex_;
  std::map<uint64_t, Entry> entries_;
  uint64_t next_ = 1;
  std::thread thread_;
};

}  // namespace hull::engine::api
