// The engine: everything the API acts on, in one place. Made by main from its parts; one per
// process (the folder's lock says so). Any thread.
#pragma once

#include <string>

#include "base/fd.h"
#include "daemon/engine/containers.h"
#include "daemon/engine/door.h"
#include "daemon/engine/engine_parts.h"
#include "daemon/engine/events.h"
#include "daemon/engine/execs.h"
#include "daemon/engine/networks.h"

namespace hull::engine {

inline constexpr const char* kHullVersion = "0.1.0";

// Held while an engine uses `root`. Throws kConflict naming the process that has it.
class EngineLock {
 public:
  explicit EngineLock(const std::string& root);

 private:
  Fd file_;
};

class Engine {
 public:
  // Restores what an earlier engine left; returns when every running container is adopted.
  Engine(EngineLock lock, EngineParts parts, EngineOptions options);
  ~Engine();

  EngineParts& parts() { return parts_; }
  const EngineOptions& options() const { return options_; }
  image::ImageStore& images() { return *parts_.images; }
  EventBus& events() { return events_; }
  Networks& networks() { return networks_; }
  Containers& containers() { return containers_; }
  Execs& execs() { return execs_; }
  // Whoever serves the API opens it, and closes it before it goes.
  Door& door() { return door_; }
  const std::string& id() const { return id_; }  // of this installation, for /info

  void shutdown() { containers_.shutdown(); }

 private:
  EngineLock lock_;
  EngineOptions options_;
  EngineParts parts_;
  std::string id_;
  EventBus events_;
  Door door_;
  Networks networks_;
  Containers containers_;
  Execs execs_;
};

}  // namespace hull::engine
