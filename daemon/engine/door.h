// Where connections of clients come in that are not on one of the API's own listening sockets:
// those of containers that were given the engine's socket. The engine is there before what serves
// its API and after it: who comes too early waits, who comes too late is closed. Owned by the
// Engine; any thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/fd.h"

namespace hull::engine {

inline constexpr size_t kMaxEngineConnections = 128;  // of a container that has the engine's socket
std::string tooManyConnections();                     // the HTTP answer to who is beyond

class Door {
 public:
  // Takes a connection over; lets go of `place` when it has ended.
  using Admit = std::function<void(Fd connection, std::shared_ptr<void> place)>;

  void open(Admit admit);
  void close();  // for good; nobody is on the way in afterwards
  void enter(Fd connection, std::shared_ptr<void> place);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Admit admit_;
  bool closed_ = false;
  size_t entering_ = 0;
};

// Is the bind mount's source `path` (as cleanPath() has it) the engine's socket? It is one of
// `sockets`, or where Docker's clients look for their engine. /var/run is /run.
bool isEngineSocket(const std::string& path, const std::vector<std::string>& sockets);

}  // namespace hull::engine
