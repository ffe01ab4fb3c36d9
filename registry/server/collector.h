// Garbage collection and retention, beside a server that goes on answering: marks without a lock,
// then removes one thing at a time, each only if nobody touched it since the grace period began.
// Pushing, mounting and asking for a blob touch it, so what a push relies on stays. One run at a
// time; any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "registry/server/configuration.h"
#include "registry/server/repositories.h"

namespace hull::registry {

struct CollectionReport {
  uint64_t tags = 0;                     // by retention
  uint64_t manifests = 0;                // nothing led to them
  uint64_t blobs = 0;                    // taken out of a repository
  uint64_t contents = 0;                 // removed from the disk
  uint64_t bytes = 0;                    // of contents
  std::string text(bool dry_run) const;  // one line
};

struct CollectionRun {
  CollectionOptions options;
  bool dry_run = false;
  // One line per thing that goes: "tag team/app:1.0".
  std::function<void(const std::string&)> report;
  const std::atomic<bool>* stopping = nullptr;
  std::vector<std::string> immutable_tags = {};  // retention leaves them alone
};

CollectionReport collectGarbage(RepositoryStore& store, const CollectionRun& run);

}  // namespace hull::registry
