#include "image/build/build_state.h"

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "image/build/stage_builder.h"

namespace hull::build {

namespace {

// Stages at once: each may have a virtual machine.
constexpr unsigned kLeastParallelStages = 2;
constexpr unsigned kMostParallelStages = 4;
constexpr auto kCancelPoll = std::chrono::milliseconds(200);

}  // namespace

BuildState::BuildState(image::ImageStore& images, StepRunner& steps, const BuildRequest& wanted,
                       const BuildHooks& functions)
    : store(images),
      runner(steps),
      request(wanted),
      cache(BuildCache::open(images)),
      hooks_(functions) {}

BuildState::~BuildState() = default;

void BuildState::runStages() {
  stages_.resize(plan.stages.size());
  const size_t most =
      std::clamp(std::thread::hardware_concurrency(), kLeastParallelStages, kMostParallelStages);
  std::vector<std::thread> workers;
  for (size_t i = 1; i < std::min(most, plan.order.size()); ++i)
    workers.emplace_back([this, i] { work(i); });
  work(0);
  for (auto& worker : workers) worker.join();
  if (failure_) std::rethrow_exception(failure_);
}

// Stages are taken in the plan's order, in which what a stage needs comes before it: so the first
// of those that are not done never waits, and there is no deadlock.
void BuildState::work(size_t) {
  for (;;) {
    StageBuilder* stage = nullptr;
    int index = 0;
    {
      const std::lock_guard lock(mutex_);
      if (failed_ || next_ == plan.order.size()) return;
      index = plan.order[next_++];
      auto& slot = stages_[static_cast<size_t>(index)];
      slot = std::make_unique<StageBuilder>(*this, plan.stages[static_cast<size_t>(index)]);
      stage = slot.get();
    }
    try {
      stage->run();
    } catch (...) {
      return fail(std::current_exception());
    }
    BuildEvent done{BuildEvent::Kind::kStageFinished};
    done.stage = index;
    report(std::move(done));
    const std::lock_guard lock(mutex_);
    finished_.insert(index);
    changed_.notify_all();
  }
}

void BuildState::fail(std::exception_ptr failure) {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = std::move(failure);  // the others only end because of it
  failed_ = true;
  changed_.notify_all();
}

StageBuilder& BuildState::finishedStage(int index) {
  std::unique_lock lock(mutex_);
  while (!finished_.contains(index)) {
    if (cancelled()) throw Error(ErrorKind::kCancelled, "build cancelled");
    changed_.wait_for(lock, kCancelPoll);
  }
  return *stages_[static_cast<size_t>(index)];
}

void BuildState::report(BuildEvent event) {
  if (!hooks_.report) return;
  const std::lock_guard lock(report_mutex_);
  hooks_.report(event);
}

void BuildState::report(BuildEvent::Kind kind, std::string text, uint64_t vertex, std::string id) {
  BuildEvent event{kind, std::move(text)};
  event.id = std::move(id);
  event.vertex = vertex;
  report(std::move(event));
}

bool BuildState::cancelled() const {
  return failed_ || (hooks_.cancelled && hooks_.cancelled());
}

void BuildState::checkCancelled() const {
  if (cancelled()) throw Error(ErrorKind::kCancelled, "build cancelled");
}

void BuildState::pin(std::shared_ptr<void> token) {
  const std::lock_guard lock(mutex_);
  pins_.push_back(std::move(token));
}

void BuildState::recordStep(StepRecord record) {
  const std::lock_guard lock(mutex_);
  records_.push_back(std::move(record));
}

std::vector<StepRecord> BuildState::stepRecords(CacheMode mode) {
  std::set<int> wanted;
  for (int stage = plan.order.back(); mode == CacheMode::kMin && stage >= 0;
       stage = plan.stages[static_cast<size_t>(stage)].base_stage)
    wanted.insert(stage);
  std::vector<StepRecord> records;
  {
    const std::lock_guard lock(mutex_);
    std::copy_if(records_.begin(), records_.end(), std::back_inserter(records),
                 [&](const StepRecord& record) {
                   return mode == CacheMode::kMax || wanted.contains(record.stage);
                 });
  }
  std::stable_sort(records.begin(), records.end(),
                   [](const StepRecord& a, const StepRecord& b) { return a.stage < b.stage; });
  return records;
}

void BuildState::useArg(const std::string& name) {
  const std::lock_guard lock(mutex_);
  used_args_.insert(name);
}

bool BuildState::usesArg(const std::string& name) {
  const std::lock_guard lock(mutex_);
  return used_args_.contains(name);
}

image::Image BuildState::baseImage(const std::string& name, const image::Platform& platform) {
  const std::lock_guard lock(pull_mutex_);
  std::optional<image::Image> found = request.pull ? std::nullopt : store.find(name);
  if (found && (found->config.platform.os != platform.os ||
                found->config.platform.architecture != platform.architecture))
    found.reset();
  if (!found) found = hooks_.pull_image(image::Reference::parse(name), platform);
  pin(store.pinLayers(found->config.diff_ids));
  return *found;
}

int BuildState::firstStep(int stage) const {
  int step = 1;
  for (const int index : plan.order) {
    if (index == stage) return step;
    step += 1 + static_cast<int>(plan.stages[static_cast<size_t>(index)].steps.size());
  }
  return step;
}

int BuildState::steps() const {
  return firstStep(-1) - 1;
}

}  // namespace hull::build
