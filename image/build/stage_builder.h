// Executes the instructions of one stage. Metadata and file selection happen here on the host; the
// RUN steps of the stage share one StageSession, opened when the first of them is not cached. The
// instructions are in stage_run.cc, stage_copy.cc and stage_metadata.cc.
// One stage, one thread.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "image/build/build_state.h"
#include "image/build/copy.h"
#include "image/build/fetch.h"
#include "image/build/history_cache.h"
#include "image/build/mounts.h"
#include "image/build/stages.h"

namespace hull::build {

class StageBuilder {
 public:
  StageBuilder(BuildState& build, const Stage& stage);
  ~StageBuilder();

  void run();
  image::Image finish(const std::vector<image::Reference>& names);  // records the image
  RootFs& root() { return *root_; }

 private:
  void start();  // FROM
  void startFromStage(StageBuilder& base);
  void startFromImage(const image::Image& image);
  void startFromScratch();
  bool isFor(const image::Platform& platform) const;  // programs of it run on the stage's
  void findBase();
  void runTriggers();  // ONBUILD of the base
  void execute(const Instruction& at, const std::string& label);
  void dispatch(const Instruction& at);
  bool useCache() const;
  void report(BuildEvent::Kind kind, std::string text, std::string id = {},
              OutputStream stream = OutputStream::kStdout);
  void started(const std::string& label, const std::string& place, const std::string& text);

  // instructions
  void runArg(const Instruction& at);
  void runEnv(const Instruction& at);
  void runLabel(const Instruction& at);
  void runCommand(const Instruction& at);  // RUN
  void runCopy(const Instruction& at);     // COPY, ADD
  void runWorkdir(const Instruction& at);
  void runMetadata(const Instruction& at);        // USER, EXPOSE, VOLUME, CMD, …
  std::string setCommand(const Instruction& at);  // CMD, ENTRYPOINT
  std::string addToSet(const Instruction& at);    // EXPOSE, VOLUME
  std::string addTrigger(const Instruction& at);  // ONBUILD
  void runHealthCheck(const Instruction& at);

  // steps
  struct Step {
    std::string key;                             // of the whole history up to and with this step
    std::string created_by;                      // for the image's history
    std::function<image::IngestedLayer()> make;  // empty: the step changes the configuration only
    bool in_session = false;                     // the VM has the layer already (RUN)
    std::string cache_key = {};  // where it is looked up, when that is not `key` (--link)
    bool told = true;  // `created_by` says all of it: an image's history can stand for the step
    // Of ENV, "A=1": an image that stands for the step has them, because "ENV A=1 B=2" in its
    // history may have set one variable or two.
    std::vector<std::string> variables = {};
  };
  void configStep(const Instruction& at, const std::string& meaning,
                  std::vector<std::string> variables = {});
  void layerStep(const Step& step);
  CachedStep makeStep(const Step& step, bool& fresh);
  void followHistories();
  std::optional<CachedStep> findRun(const Step& step) const;
  std::optional<CachedStep> findSame(const image::Digest& made) const;
  void pushLayer(const image::IngestedLayer& layer, bool in_session);
  void sendLayer(const image::IngestedLayer& layer);
  image::IngestedLayer makeLayer(const std::function<void(Sink&)>& write);
  std::string chainKey() const;  // over the layers so far
  StageSession& session(bool network, const std::vector<RunMount>& mounts);

  // COPY and ADD
  struct CopyWork {  // what the plans refer to
    std::vector<std::unique_ptr<RootFs>> trees;
    std::vector<CopyPlan> plans;
  };
  CopyRequest copyRequest(const Instruction& at);
  void planCopy(const Instruction& at, const std::vector<std::string>& words, CopyWork& work);
  void planSources(const Instruction& at, const std::vector<std::string>& list,
                   const CopyRequest& request, CopyWork& work);
  void planArchive(std::unique_ptr<RootFs> archive, const CopyRequest& request, CopyWork& work);
  RootFs& copySource(const std::string& from, CopyWork& work);
  RootFs& namedContext(const std::string& name, const std::string& source, CopyWork& work);
  RootFs& imageTree(const std::string& name, const std::string& problem, CopyWork& work);
  bool isDirectoryOf(const std::string& path) const;  // of the image so far
  static bool hasFlag(const Instruction& at, std::string_view name);
  static bool unpacks(const Instruction& at, bool otherwise);
  RootFs& keep(CopyWork& work, std::unique_ptr<RootFs> tree);
  std::unique_ptr<RootFs> unpackIfArchive(RootFs& source, const std::string& path);
  std::unique_ptr<RootFs> heredocFiles(const Instruction& at);
  // ADD from elsewhere; addRemote is true when `source` is such an address.
  std::string checksumOf(const Instruction& at);  // --checksum when it names the whole content
  bool addRemote(const Instruction& at, const std::string& source, const CopyRequest& request,
                 CopyWork& work);
  void addDownload(const Instruction& at, const std::string& url, CopyRequest request,
                   CopyWork& work);
  void addGit(const Instruction& at, const GitAddress& address, CopyRequest request,
              CopyWork& work);
  std::unique_ptr<RootFs> gitTree(const GitAddress& address, bool keep_git, std::string checksum);
  std::unique_ptr<RootFs> downloadTree(const Download& file, const std::string& name);
  std::unique_ptr<RootFs> unpackDownload(const Download& file);
  std::unique_ptr<RootFs> treeOf(const image::IngestedLayer& layer);

  std::optional<std::string> lookUp(std::string_view name);
  std::string expand(const std::string& word);
  std::vector<std::string> words(const Instruction& at);
  std::vector<std::string> runEnvironment() const;
  RunStep runStep(const Instruction& at) const;
  std::string runHistory(const Instruction& at, const RunStep& step) const;
  bool runFlags(const Instruction& at, RunStep& step) const;  // returns: with the network
  image::IngestedLayer executeRun(const Instruction& at, const RunStep& step, bool network);
  std::string addMount(const Instruction& at, const Flag& flag, RunStep& step, CopyWork& work,
                       size_t& agents);
  std::vector<std::string> addMounts(const Instruction& at, RunStep& step, CopyWork& work);
  struct MountSource {
    RootFs& root;
    std::string path;  // cleaned
    bool directory = false;
  };
  MountSource mountSource(const MountFlag& mount, CopyWork& work);
  void setTree(RunMount& made, const MountSource& from, const std::string& destination,
               CopyWork& work);
  std::string addBindMount(const MountFlag& mount, RunStep& step, CopyWork& work);
  std::string addCacheMount(const MountFlag& mount, RunStep& step, CopyWork& work);
  std::string addSecretMount(const MountFlag& mount, RunStep& step);
  std::string addSshMount(const MountFlag& mount, RunStep& step, size_t number);
  void setEnv(const std::string& name, const std::string& value);
  std::vector<std::string> shellForm(const std::string& command) const;

  BuildState& build_;
  const Stage& stage_;
  image::Platform platform_;  // of the base; until it is known, the one asked for
  image::RuntimeConfig config_;
  std::string author_;
  std::vector<image::IngestedLayer> layers_;
  std::vector<image::HistoryEntry> history_;
  std::vector<HistoryFollower> followers_;
  std::unique_ptr<RootFs> root_;
  std::map<std::string, std::string> args_;  // declared and with a value, not shadowed by ENV
  std::string key_;                          // of the last step
  std::string created_;                      // of the last step
  bool cmd_set_ = false;                     // in this stage
  uint64_t vertex_ = 0;                      // of the step that is under way
  std::string place_;                        // of it: "[builder 2/4]"
  std::unique_ptr<StageSession> session_;
  SessionOptions session_options_;  // of session_
  bool release_session_ = false;    // another build waits for what it has
};

// A layer made of what `write` writes as a tar.
image::IngestedLayer ingestTar(image::LayerStore& layers, image::KeepBlob keep,
                               const std::function<void(Sink&)>& write);

}  // namespace hull::build
