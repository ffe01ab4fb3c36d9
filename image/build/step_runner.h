// What the Dockerfile builder needs from an engine: virtual machines to execute RUN in. The builder
// owns the interface, the engine implements it. A session is used by one thread; several sessions
// run in parallel.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/stream.h"
#include "image/types/digest.h"

namespace hull::build {

// A persistent directory that builds share (RUN --mount=type=cache).
struct MountCache {
  std::string id;
  // A private one is a new, empty cache when somebody uses the one of that id. Others wait for
  // their turn: a cache is a disk, and a disk is written by one machine at a time.
  bool is_private = false;

  bool operator==(const MountCache&) const = default;
};

// The client's ssh agent (RUN --mount=type=ssh). Any thread; one request at a time, others wait.
class SshAgent {
 public:
  virtual ~SshAgent() = default;
  // The answer to one message of the agent protocol that ssh_agent::mayPass() (base/ssh_agent.h).
  // `abandoned` is asked while it waits. Throws when there is no answer: the client is gone, or
  // nobody wants it any more.
  virtual std::string answer(const std::string& request,
                             const std::function<bool()>& abandoned) = 0;
};

// What one RUN sees besides the root file system. Nothing of it is in the step's layer.
struct RunMount {
  enum class Kind { kTmpfs, kTree, kCache, kFile, kAgent };
  Kind kind = Kind::kTmpfs;
  std::string target;  // absolute
  bool read_only = false;
  uint64_t size_bytes = 0;  // kTmpfs; 0: half of the memory
  // kTree: writes it as a tar. kCache: what a new one holds, below "data/"; empty: nothing.
  std::function<void(Sink&)> tree;
  std::string tree_key;             // kTree: equal for equal trees
  std::string tree_file;            // kTree: only this file of it is mounted
  MountCache cache;                 // kCache
  std::string content;              // kFile: in memory only
  std::shared_ptr<SshAgent> agent;  // kAgent: a socket in memory only
  uint32_t uid = 0;                 // kCache when it is new, kFile, kAgent
  uint32_t gid = 0;
  uint16_t mode = 0755;
};

struct RunStep {
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // "K=V", complete
  std::string working_directory;
  std::string user;
  std::string stdin_text;  // empty: /dev/null
  std::vector<RunMount> mounts;
  bool all_capabilities = false;  // --security=insecure
};

enum class OutputStream { kStdout, kStderr };
using OutputFunction = std::function<void(OutputStream, std::string_view)>;

struct StepResult {
  int exit_code = 0;
  bool out_of_memory = false;
};

struct SessionOptions {
  bool network = true;
  uint64_t memory_bytes = 0;  // 0: the engine's default
  uint32_t cpus = 0;
  std::vector<std::string> extra_hosts;  // "name:address"
  std::vector<MountCache> caches;        // what steps of the session may mount
  std::function<void()> check;           // called while open() waits for a cache; may throw
};

struct CacheUsage {
  std::string id;
  uint64_t bytes = 0;   // on disk
  int64_t used_at = 0;  // seconds since 1970
  bool in_use = false;
};

// One VM that executes the RUN steps of a stage. Its destruction ends the VM.
class StageSession {
 public:
  virtual ~StageSession() = default;
  virtual StepResult run(const RunStep& step, const OutputFunction& output) = 0;
  // What has changed since the session began or since the last readLayer/applyLayer, as an
  // uncompressed OCI layer tar.
  virtual void readLayer(Sink& tar) = 0;
  // Puts a layer made on the host (COPY, ADD, WORKDIR between two RUNs) on top.
  virtual void applyLayer(Source& tar) = 0;
  // Makes run() return early with exit code 137; any thread.
  virtual void cancel() = 0;
  // Somebody waits for a cache of this session.
  virtual bool contended() const { return false; }
};

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // A VM whose root file system is the given stack of layers in the store.
  virtual std::unique_ptr<StageSession> open(const std::vector<image::Digest>& diff_ids,
                                             const SessionOptions& options) = 0;
  virtual std::vector<CacheUsage> mountCaches() { return {}; }
  // Removes a cache that is not in use; returns the bytes it had.
  virtual uint64_t removeMountCache(const std::string&) { return 0; }
};

}  // namespace hull::build
