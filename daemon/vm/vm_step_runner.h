// The builder's RUN steps, executed in virtual machines (image/build/step_runner.h): one VM for a
// session, the container in it called like the session. Owned by the engine; open() from any
// thread, a session from one (cancel() from any).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "daemon/network/network.h"
#include "daemon/vm/cache_disks.h"
#include "daemon/vm/vm.h"
#include "image/build/step_runner.h"

namespace hull::engine {

class VmStepRunner final : public build::StepRunner {
 public:
  struct Options {
    std::string work_directory;  // sessions make their folders here; exists or is made
    uint64_t memory_mib = 1024;  // when SessionOptions names none
    uint32_t vcpus = 1;
    uint64_t writable_bytes = uint64_t{20} << 30;
    std::string cache_directory;  // of RUN --mount=type=cache; empty: below work_directory
    uint64_t cache_bytes = uint64_t{20} << 30;  // the most one cache holds; sparse
  };
  using RootDiskFunction = std::function<image::RootDisk(const std::vector<image::Digest>&)>;

  // `root_disk` is ImageStore::rootDisk. `network` may be null (no session has one then) and
  // outlives the sessions.
  VmStepRunner(VmResources resources, Network* network, RootDiskFunction root_disk,
               Options options);

  std::unique_ptr<build::StageSession> open(const std::vector<image::Digest>& diff_ids,
                                            const build::SessionOptions& options) override;
  std::vector<build::CacheUsage> mountCaches() override { return caches_->list(); }
  uint64_t removeMountCache(const std::string& id) override { return caches_->remove(id); }

 private:
  const VmResources resources_;
  Network* const network_;
  const RootDiskFunction root_disk_;
  const Options options_;
  const std::shared_ptr<CacheDisks> caches_;  // sessions hold leases of it
};

// Names of networks and folders of sessions begin so; what a killed engine left can be swept.
inline constexpr const char* kBuildSessionPrefix = "build-";
// Of a stage, threads counted: many compilers, and no fork bomb that the machine cannot hold.
inline constexpr uint64_t kMaxStepProcesses = 2048;

}  // namespace hull::engine
