// What the stages of one build share. Owned by buildImage(); its methods may be called from the
// threads of all stages.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "image/build/builder.h"
#include "image/build/cache.h"
#include "image/build/cache_transfer.h"
#include "image/build/rootfs.h"
#include "image/build/stages.h"

namespace hull::build {

class StageBuilder;

class BuildState {
 public:
  BuildState(image::ImageStore& images, StepRunner& steps, const BuildRequest& wanted,
             const BuildHooks& functions);
  ~BuildState();
  BuildState(const BuildState&) = delete;
  BuildState& operator=(const BuildState&) = delete;

  image::ImageStore& store;
  StepRunner& runner;
  const BuildRequest& request;
  const std::shared_ptr<BuildCache> cache;

  // Set before the stages begin, then read-only.
  Dockerfile file;
  StagePlan plan;
  std::unique_ptr<RootFs> context;
  std::map<std::string, std::unique_ptr<RootFs>> folder_contexts;  // "context://…" by name
  std::string now;  // RFC 3339; SOURCE_DATE_EPOCH when given
  int64_t now_seconds = 0;
  ImportedCache imported;                    // --cache-from
  std::vector<image::Image> history_caches;  // those of it that have a history only
  bool fixed_time = false;  // SOURCE_DATE_EPOCH: no time in a layer is later than it

  // Builds the stages of the plan; returns when the last one is done. Throws the first failure.
  void runStages();
  // The stage, once it is built. Throws when it failed, or the build was cancelled.
  StageBuilder& finishedStage(int index);

  void report(BuildEvent event);
  void report(BuildEvent::Kind kind, std::string text, uint64_t vertex = 0, std::string id = {});
  uint64_t newVertex() { return ++vertices_; }
  bool cancelled() const;  // by the client, or because a stage failed
  void checkCancelled() const;
  void pin(std::shared_ptr<void> token);
  // What a step was, for --cache-to.
  void recordStep(StepRecord record);
  // In the order of the Dockerfile's stages; kMin: only those that the target stands on.
  std::vector<StepRecord> stepRecords(CacheMode mode);
  void useArg(const std::string& name);
  bool usesArg(const std::string& name);
  // From the store, or fetched. One at a time.
  image::Image baseImage(const std::string& name, const image::Platform& platform);
  int firstStep(int stage) const;  // the number of its FROM among all steps
  int steps() const;

 private:
  void work(size_t worker);
  void fail(std::exception_ptr failure);

  const BuildHooks& hooks_;
  std::atomic<uint64_t> vertices_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex report_mutex_;
  std::mutex pull_mutex_;
  std::mutex mutex_;  // below
  std::condition_variable changed_;
  std::vector<std::unique_ptr<StageBuilder>> stages_;  // by index; null until begun
  std::set<int> finished_;
  size_t next_ = 0;  // in plan.order
  std::exception_ptr failure_;
  std::set<std::string> used_args_;
  std::vector<StepRecord> records_;
  std::vector<std::shared_ptr<void>> pins_;  // layers of this build are not collected meanwhile
};

}  // namespace hull::build
