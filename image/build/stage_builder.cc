#include "image/build/stage_builder.h"

#include <fcntl.h>

#include <thread>

#include "base/error.h"
#include "image/build/step_text.h"

namespace hull::build {

using image::IngestedLayer;

void BuildState::report(BuildEvent::Kind kind, std::string text, std::string id) const {
  if (hooks.report) hooks.report({kind, std::move(text), OutputStream::kStdout, std::move(id)});
}

void BuildState::checkCancelled() const {
  if (hooks.cancelled && hooks.cancelled()) throw Error(ErrorKind::kCancelled, "build cancelled");
}

StageBuilder::StageBuilder(BuildState& build, const Stage& stage) : build_(build), stage_(stage) {}

StageBuilder::~StageBuilder() = default;

void StageBuilder::run() {
  start();
  for (const auto& step : stage_.steps) execute(step);
  session_.reset();
}

// --- FROM ---

void StageBuilder::start() {
  build_.checkCancelled();
  build_.report(BuildEvent::Kind::kStepStarted, "Step " + std::to_string(++build_.step) + "/" +
                                                    std::to_string(build_.steps) + " : " +
                                                    stage_.from.text);
  created_ = build_.now;
  if (stage_.base_stage >= 0) {
    const StageBuilder& base = *build_.stages[static_cast<size_t>(stage_.base_stage)];
    config_ = base.config_;
    layers_ = base.layers_;
    history_ = base.history_;
    args_ = base.args_;
    key_ = base.key_;
    created_ = base.created_;
    author_ = base.author_;
    root_ = std::make_unique<RootFs>(build_.store.layers(), base.root_->layers());
  } else if (stage_.base == "scratch") {
    root_ = std::make_unique<RootFs>(build_.store.layers(), std::vector<image::Digest>{});
    key_ = hashOf({"from", "scratch"});
  } else {
    try {
      const auto reference = image::Reference::parse(stage_.base);
      const auto platform =
          image::Platform::parse(stage_.platform.empty() ? "linux/amd64" : stage_.platform);
      std::optional<image::Image> found =
          build_.request.pull ? std::nullopt : build_.store.find(stage_.base);
      if (found && found->config.platform.architecture != platform.architecture) found.reset();
      if (!found) found = build_.hooks.pull_image(reference, platform);
      startFromImage(*found);
    } catch (const Error& error) {
      const Error located = build_.file.error(stage_.from, error.what());
      throw Error(error.kind(), located.what());
    }
  }
  build_.report(BuildEvent::Kind::kStepFinished, "", key_.substr(0, 12));
  const std::vector<std::string> triggers = std::exchange(config_.on_build, {});
  if (stage_.base_stage >= 0) return;
  for (const auto& trigger : triggers) {
    const Instruction at = parseInstruction("ONBUILD of " + stage_.base, trigger);
    ++build_.steps;
    execute(at);
  }
}

void StageBuilder::startFromImage(const image::Image& image) {
  config_ = image.config.config;
  author_ = image.config.author;
  history_ = image.config.history;
  build_.pins.push_back(build_.store.pinLayers(image.config.diff_ids));
  for (size_t i = 0; i < image.config.diff_ids.size(); ++i) {
    IngestedLayer layer;
    layer.diff_id = image.config.diff_ids[i];
    layer.blob = image.layer_blobs.at(i).digest;
    layer.media_type = image.layer_blobs[i].media_type;
    layer.blob_bytes = image.layer_blobs[i].size;
    layers_.push_back(std::move(layer));
  }
  root_ = std::make_unique<RootFs>(build_.store.layers(), image.config.diff_ids);
  key_ = hashOf({"from", image.id.text()});
  created_ = image.config.created.empty() ? build_.now : image.config.created;
}

// --- dispatch ---

void StageBuilder::execute(const Instruction& at) {
  build_.checkCancelled();
  build_.report(BuildEvent::Kind::kStepStarted, "Step " + std::to_string(++build_.step) + "/" +
                                                    std::to_string(build_.steps) + " : " + at.text);
  try {
    dispatch(at);
  } catch (const Error& error) {
    if (std::string_view(error.what()).starts_with(build_.file.name + ":")) throw;
    throw Error(error.kind(), build_.file.error(at, error.what()).what());
  }
  build_.report(BuildEvent::Kind::kStepFinished, "", key_.substr(0, 12));
}

void StageBuilder::dispatch(const Instruction& at) {
  const std::string& keyword = at.keyword;
  if (keyword == "RUN") return runCommand(at);
  if (keyword == "COPY" || keyword == "ADD") return runCopy(at);
  if (keyword == "ENV") return runEnv(at);
  if (keyword == "ARG") return runArg(at);
  if (keyword == "LABEL") return runLabel(at);
  if (keyword == "WORKDIR") return runWorkdir(at);
  if (keyword == "HEALTHCHECK") return runHealthCheck(at);
  runMetadata(at);
}

// --- steps and their cache ---

void StageBuilder::configStep(const Instruction& at, const std::string& meaning) {
  layerStep(hashOf({"config", key_, meaning}), at.keyword == "ARG" ? at.text : meaning, {});
}

void StageBuilder::layerStep(const std::string& key, const std::string& created_by,
                             const LayerSource& source) {
  std::shared_ptr<void> pin;
  std::optional<CachedStep> step;
  if (!build_.request.no_cache) step = build_.cache.find(key, pin);
  bool in_session = false;
  if (step) {
    if (step->layer) build_.report(BuildEvent::Kind::kStepCached, "Using cache");
  } else {
    step = CachedStep{build_.now, std::nullopt};
    if (source.make) {
      step->layer = source.make();
      pin = build_.store.pinLayers({step->layer->diff_id, step->layer->blob});
      in_session = source.in_session;
    }
    build_.cache.record(key, *step);
  }
  if (pin) build_.pins.push_back(std::move(pin));
  if (step->layer) pushLayer(*step->layer, in_session);
  key_ = key;
  created_ = step->created;
  image::HistoryEntry entry;
  entry.created = created_;
  entry.created_by = created_by;
  entry.empty_layer = !step->layer;
  history_.push_back(std::move(entry));
}

void StageBuilder::pushLayer(const IngestedLayer& layer, bool in_session) {
  layers_.push_back(layer);
  root_->push(layer.diff_id);
  if (!session_ || in_session) return;
  // Made on the host while the VM is up: it gets the same layer as a tar.
  FdPair pipe = makePipe();
  std::exception_ptr failure;
  std::thread writer([&] {
    try {
      FdSink sink(pipe.second.get());
      image::LayerTarWriter tar(sink);
      const image::LayerIndex index = build_.store.layers().index(layer.diff_id);
      const Fd data = openFile(build_.store.layers().dataPath(layer.diff_id), 0);
      for (const auto& entry : index.entries) tar.add(entry, data.get());
      tar.finish();
    } catch (...) {
      failure = std::current_exception();
    }
    pipe.second.reset();
  });
  FdSource source(pipe.first.get());
  try {
    session_->applyLayer(source);
  } catch (...) {
    pipe.first.reset();
    writer.join();
    throw;
  }
  pipe.first.reset();
  writer.join();
  if (failure) std::rethrow_exception(failure);
}

StageSession& StageBuilder::session() {
  if (!session_) {
    SessionOptions options;
    options.network = build_.request.network;
    options.memory_bytes = build_.request.memory_bytes;
    options.extra_hosts = build_.request.extra_hosts;
    session_ = build_.runner.open(root_->layers(), options);
  }
  return *session_;
}

// --- the image ---

image::Image StageBuilder::finish(const std::vector<image::Reference>& names) {
  image::ImageConfig config;
  config.created = created_;
  config.author = author_;
  config.config = config_;
  for (const auto& [key, value] : build_.request.labels) config.config.labels[key] = value;
  config.history = history_;
  for (const auto& layer : layers_) config.diff_ids.push_back(layer.diff_id);
  return build_.store.create(config, layers_, names);
}

}  // namespace hull::build
