// Executes the instructions of one stage. Metadata and file selection happen here on the host; the
// RUN steps of the stage share one StageSession, opened when the first of them is not cached. The
// instructions are in stage_run.cc, stage_copy.cc and stage_metadata.cc.
// One stage, one thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "image/build/builder.h"
#include "image/build/cache.h"
#include "image/build/copy.h"
#include "image/build/rootfs.h"
#include "image/build/stages.h"

namespace hull::build {

class StageBuilder;

// What all stages of one build share. Owned by buildImage().
struct BuildState {
  image::ImageStore& store;
  StepRunner& runner;
  const BuildRequest& request;
  const BuildHooks& hooks;
  const Dockerfile& file;
  const StagePlan& plan;
  BuildCache& cache;
  RootFs& context;
  std::vector<std::unique_ptr<StageBuilder>> stages;  // by index; null until built
  int step = 0;
  int steps = 0;
  std::set<std::string> used_args;
  std::vector<std::shared_ptr<void>> pins;  // layers of this build are not collected meanwhile
  std::string now;                          // RFC 3339; SOURCE_DATE_EPOCH when given
  int64_t now_seconds = 0;

  void report(BuildEvent::Kind kind, std::string text, std::string id = {}) const;
  void checkCancelled() const;
};

class StageBuilder {
 public:
  StageBuilder(BuildState& build, const Stage& stage);
  ~StageBuilder();

  void run();
  image::Image finish(const std::vector<image::Reference>& names);  // records the image
  RootFs& root() { return *root_; }

 private:
  void start();  // FROM
  void startFromImage(const image::Image& image);
  void execute(const Instruction& at);
  void dispatch(const Instruction& at);

  // instructions
  void runArg(const Instruction& at);
  void runEnv(const Instruction& at);
  void runLabel(const Instruction& at);
  void runCommand(const Instruction& at);  // RUN
  void runCopy(const Instruction& at);     // COPY, ADD
  void runWorkdir(const Instruction& at);
  void runMetadata(const Instruction& at);  // USER, EXPOSE, VOLUME, CMD, …
  void runHealthCheck(const Instruction& at);

  // steps
  struct LayerSource {
    std::function<image::IngestedLayer()> make;
    bool in_session = false;  // the VM has it already (RUN)
  };
  void configStep(const Instruction& at, const std::string& meaning);
  void layerStep(const std::string& key, const std::string& created_by, const LayerSource& source);
  void pushLayer(const image::IngestedLayer& layer, bool in_session);
  StageSession& session();

  std::vector<CopyPlan> planCopies(const Instruction& at,
                                   std::vector<std::unique_ptr<RootFs>>& owned);
  RootFs& copySource(const Instruction& at, const std::string& from,
                     std::vector<std::unique_ptr<RootFs>>& owned);
  std::unique_ptr<RootFs> unpackIfArchive(RootFs& source, const std::string& path);
  std::unique_ptr<RootFs> heredocFiles(const Instruction& at);

  std::optional<std::string> lookUp(std::string_view name);
  std::string expand(const std::string& word);
  std::vector<std::string> words(const Instruction& at);
  std::vector<std::string> runEnvironment() const;
  void setEnv(const std::string& name, const std::string& value);
  std::vector<std::string> shellForm(const std::string& command) const;

  BuildState& build_;
  const Stage& stage_;
  image::RuntimeConfig config_;
  std::string author_;
  std::vector<image::IngestedLayer> layers_;
  std::vector<image::HistoryEntry> history_;
  std::unique_ptr<RootFs> root_;
  std::map<std::string, std::string> args_;  // declared and with a value, not shadowed by ENV
  std::string key_;                          // of the last step
  std::string created_;                      // of the last step
  bool cmd_set_ = false;                     // in this stage
  std::unique_ptr<StageSession> session_;
};

// A layer made of what `write` writes as a tar.
image::IngestedLayer ingestTar(image::LayerStore& layers, image::KeepBlob keep,
                               const std::function<void(Sink&)>& write);

}  // namespace hull::build
