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

struct RunStep {
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // "K=V", complete
  std::string working_directory;
  std::string user;
  std::string stdin_text;  // heredoc bodies fed to a shell; empty: /dev/null
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
};

class StepRunner {
 public:
  virtual ~StepRunner() = default;
  // A VM whose root file system is the given stack of layers in the store.
  virtual std::unique_ptr<StageSession> open(const std::vector<image::Digest>& diff_ids,
                                             const SessionOptions& options) = 0;
};

}  // namespace hull::build
