#include "image/build/stage_builder.h"

#include <fcntl.h>

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "image/build/step_text.h"

namespace hull::build {

using image::IngestedLayer;
using image::KeepBlob;

namespace {

constexpr size_t kShortKeyDigits = 12;
constexpr const char* kDefaultPath =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// Reads a pipe that a thread of its own writes; the writer's failure counts when it is the cause.
void throughPipe(const std::function<void(Sink&)>& write,
                 const std::function<void(Source&)>& read) {
  FdPair pipe = makePipe();
  std::exception_ptr failure;
  std::thread writer([&] {
    try {
      FdSink sink(pipe.second.get());
      write(sink);
    } catch (...) {
      failure = std::current_exception();
    }
    pipe.second.reset();
  });
  FdSource source(pipe.first.get());
  try {
    read(source);
  } catch (...) {
    pipe.first.reset();
    writer.join();
    throw;
  }
  pipe.first.reset();
  writer.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

StageBuilder::StageBuilder(BuildState& build, const Stage& stage) : build_(build), stage_(stage) {}

StageBuilder::~StageBuilder() = default;

void StageBuilder::run() {
  start();
  for (size_t i = 0; i < stage_.steps.size(); ++i) {
    execute(stage_.steps[i],
            "Step " + std::to_string(build_.firstStep(stage_.index) + 1 + static_cast<int>(i)) +
                "/" + std::to_string(build_.steps()));
  }
  session_.reset();
}

// --- FROM ---

void StageBuilder::start() {
  build_.checkCancelled();
  vertex_ = build_.newVertex();
  started("Step " + std::to_string(build_.firstStep(stage_.index)) + "/" +
              std::to_string(build_.steps()),
          "1", stage_.from.text);
  created_ = build_.now;
  try {
    findBase();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) throw;
    throw Error(error.kind(), build_.file.error(stage_.from, error.what()).what());
  }
  report(BuildEvent::Kind::kStepFinished, "", key_.substr(0, kShortKeyDigits));
  runTriggers();
}

void StageBuilder::report(BuildEvent::Kind kind, std::string text, std::string id,
                          OutputStream stream) {
  BuildEvent event{kind, std::move(text), stream};
  event.id = std::move(id);
  event.vertex = vertex_;
  event.stage = stage_.index;
  build_.report(std::move(event));
}

// A step begins: "[builder 2/4] RUN make".
void StageBuilder::started(const std::string& label, const std::string& place,
                           const std::string& text) {
  place_ = "[" + stage_.label() + " " + place + "/" + std::to_string(stage_.steps.size() + 1) + "]";
  BuildEvent event{BuildEvent::Kind::kStepStarted, label + " : " + text};
  event.vertex = vertex_;
  event.stage = stage_.index;
  event.name = place_ + " " + text;
  build_.report(std::move(event));
}

void StageBuilder::findBase() {
  platform_ = parsePlatform(stage_.platform.empty() ? build_.request.platform : stage_.platform);
  if (stage_.base_stage >= 0) return startFromStage(build_.finishedStage(stage_.base_stage));
  if (stage_.base_is_context) {
    constexpr std::string_view kImage = "docker-image://";
    const std::string& source = build_.request.contexts.at(lowerCase(stage_.base));
    if (!source.starts_with(kImage)) {
      throw Error(ErrorKind::kNotSupported,
                  "FROM a named context takes an image: --build-context " + stage_.base +
                      "=docker-image://…");
    }
    return startFromImage(build_.baseImage(source.substr(kImage.size()), platform_));
  }
  if (stage_.base == "scratch") return startFromScratch();
  startFromImage(build_.baseImage(stage_.base, platform_));
}

void StageBuilder::startFromStage(StageBuilder& base) {
  platform_ = base.platform_;
  config_ = base.config_;
  layers_ = base.layers_;
  history_ = base.history_;
  args_ = base.args_;
  key_ = base.key_;
  created_ = base.created_;
  author_ = base.author_;
  followers_ = base.followers_;
  root_ = std::make_unique<RootFs>(build_.store.layers(), base.root_->layers());
}

void StageBuilder::startFromScratch() {
  root_ = std::make_unique<RootFs>(build_.store.layers(), std::vector<image::Digest>{});
  config_.env = {kDefaultPath};
  const std::string base =
      platform_ == image::Platform{} ? "scratch" : "scratch " + platform_.text();
  key_ = hashOf({"from", base, build_.fixed_time ? build_.now : ""});
  followHistories();
}

void StageBuilder::startFromImage(const image::Image& image) {
  platform_ = image.config.platform;
  config_ = image.config.config;
  const bool has_path = std::any_of(config_.env.begin(), config_.env.end(),
                                    [](const auto& item) { return item.starts_with("PATH="); });
  if (!has_path) config_.env.emplace_back(kDefaultPath);
  author_ = image.config.author;
  history_ = image.config.history;
  for (size_t i = 0; i < image.config.diff_ids.size(); ++i) {
    IngestedLayer layer;
    layer.diff_id = image.config.diff_ids[i];
    layer.blob = image.layer_blobs.at(i).digest;
    layer.media_type = image.layer_blobs[i].media_type;
    layer.blob_bytes = image.layer_blobs[i].size;
    layers_.push_back(std::move(layer));
  }
  root_ = std::make_unique<RootFs>(build_.store.layers(), image.config.diff_ids);
  key_ = hashOf({"from", image.id.text(), build_.fixed_time ? build_.now : ""});
  created_ = image.config.created.empty() ? build_.now : image.config.created;
  followHistories();
}

bool StageBuilder::isFor(const image::Platform& platform) const {
  return platform_.os == platform.os && platform_.architecture == platform.architecture;
}

void StageBuilder::runTriggers() {
  const std::vector<std::string> triggers = std::exchange(config_.on_build, {});
  for (const auto& trigger : triggers) {
    const Instruction at = parseInstruction("ONBUILD of " + stage_.base, trigger);
    Instruction shown = at;
    shown.line = stage_.from.line;  // errors point at the FROM that brought it
    shown.column = stage_.from.column;
    shown.end_line = stage_.from.end_line;
    execute(shown, "# Executing build trigger");
  }
}

// --- dispatch ---

void StageBuilder::execute(const Instruction& at, const std::string& label) {
  build_.checkCancelled();
  vertex_ = build_.newVertex();
  const auto own = std::find_if(stage_.steps.begin(), stage_.steps.end(),
                                [&](const Instruction& step) { return &step == &at; });
  const std::string place =
      own == stage_.steps.end() ? "onbuild" : std::to_string(own - stage_.steps.begin() + 2);
  started(label, place, at.text);
  try {
    dispatch(at);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCancelled) throw;
    if (std::string_view(error.what()).starts_with(build_.file.name + ":")) throw;
    throw Error(error.kind(), build_.file.error(at, error.what()).what());
  }
  report(BuildEvent::Kind::kStepFinished, "", key_.substr(0, kShortKeyDigits));
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

bool StageBuilder::useCache() const {
  const auto& skipped = build_.request.no_cache_stages;
  return !build_.request.no_cache && !skipped.contains(stage_.name) &&
         !skipped.contains(std::to_string(stage_.index));
}

std::string StageBuilder::chainKey() const {
  std::vector<std::string> chain;
  for (const auto& layer : root_->layers()) chain.push_back(layer.text());
  return hashOf(chain);
}

void StageBuilder::configStep(const Instruction& at, const std::string& meaning,
                              std::vector<std::string> variables) {
  Step step{hashOf({"config", key_, meaning}), at.keyword == "ARG" ? at.text : meaning, {}};
  step.variables = std::move(variables);
  layerStep(step);
}

// Images of elsewhere that begin as this stage does. Their layers have their own times.
void StageBuilder::followHistories() {
  if (build_.fixed_time) return;
  for (const image::Image& image : build_.history_caches) {
    if (!isFor(image.config.platform)) continue;
    if (auto follower = HistoryFollower::begin(image, history_, layers_))
      followers_.push_back(std::move(*follower));
  }
}

std::optional<CachedStep> StageBuilder::findRun(const Step& step) const {
  if (!step.in_session || !step.told) return std::nullopt;
  for (const HistoryFollower& follower : followers_) {
    if (!follower.isNext(step.created_by)) continue;
    if (auto found = follower.layer()) return found;
  }
  return std::nullopt;
}

std::optional<CachedStep> StageBuilder::findSame(const image::Digest& made) const {
  for (const HistoryFollower& follower : followers_) {
    const auto found = follower.layer();
    if (found && sameOn(*root_, build_.store.layers(), made, found->layer->diff_id)) return found;
  }
  return std::nullopt;
}

void StageBuilder::layerStep(const Step& step) {
  bool fresh = false;
  const CachedStep made = makeStep(step, fresh);
  if (!fresh && made.layer) report(BuildEvent::Kind::kStepCached, "Using cache");
  const auto layer = made.layer ? std::optional(made.layer->diff_id) : std::nullopt;
  std::erase_if(followers_, [&](HistoryFollower& follower) {
    return !follower.advance(step.created_by, layer, step.told && follower.has(step.variables));
  });
  if (made.layer) pushLayer(*made.layer, fresh && step.in_session);
  key_ = step.key;
  created_ = made.created;
  image::HistoryEntry entry;
  entry.created = created_;
  entry.created_by = step.created_by;
  entry.empty_layer = !made.layer;
  history_.push_back(std::move(entry));
}

// From the cache, or made now (`fresh`). Who makes a step holds its key, so that the same step of
// another build waits for the result instead of doing it again.
CachedStep StageBuilder::makeStep(const Step& step, bool& fresh) {
  const std::string& key = step.cache_key.empty() ? step.key : step.cache_key;
  std::shared_ptr<void> pin;
  std::shared_ptr<void> turn;
  if (useCache()) {
    if (step.make) turn = build_.cache->begin(key, [this] { build_.checkCancelled(); });
    auto found = build_.cache->find(key, pin);
    if (pin) build_.pin(std::move(pin));
    if (!found) found = build_.imported.find(key);
    if (!found) found = findRun(step);
    if (found) {
      build_.recordStep({key, *found, step.created_by, stage_.index});
      return *found;
    }
  }
  fresh = true;
  CachedStep made{build_.now, std::nullopt};
  if (step.make) {
    made.layer = step.make();
    build_.pin(build_.store.pinLayers({made.layer->diff_id, made.layer->blob}));
    const auto same = useCache() && !step.in_session ? findSame(made.layer->diff_id) : std::nullopt;
    if (same) {
      fresh = false;
      build_.recordStep({key, *same, step.created_by, stage_.index});
      return *same;
    }
  }
  build_.cache->record(key, made, step.created_by);
  build_.recordStep({key, made, step.created_by, stage_.index});
  return made;
}

// A layer of this image: compressed for the registry, and with SOURCE_DATE_EPOCH no later than it.
IngestedLayer StageBuilder::makeLayer(const std::function<void(Sink&)>& write) {
  image::LayerStore& layers = build_.store.layers();
  if (!build_.fixed_time) return ingestTar(layers, KeepBlob::kCompress, write);
  const IngestedLayer raw = ingestTar(layers, KeepBlob::kNo, write);
  const std::shared_ptr<void> pin = build_.store.pinLayers({raw.diff_id});
  return ingestTar(layers, KeepBlob::kCompress, [&](Sink& sink) {
    image::LayerTarWriter tar(sink);
    const Fd data = openFile(layers.dataPath(raw.diff_id), O_RDONLY);
    for (image::Entry entry : layers.index(raw.diff_id).entries) {
      if (entry.mtime_seconds >= build_.now_seconds) {
        entry.mtime_seconds = build_.now_seconds;
        entry.mtime_nanoseconds = 0;
      }
      tar.add(entry, data.get());
    }
    tar.finish();
  });
}

void StageBuilder::pushLayer(const IngestedLayer& layer, bool in_session) {
  layers_.push_back(layer);
  root_->push(layer.diff_id);
  if (std::exchange(release_session_, false)) session_.reset();
  if (session_ && !in_session) sendLayer(layer);
}

// A layer made on the host while the VM is up goes there as a tar.
void StageBuilder::sendLayer(const IngestedLayer& layer) {
  throughPipe(
      [&](Sink& sink) {
        image::LayerTarWriter tar(sink);
        const image::LayerIndex index = build_.store.layers().index(layer.diff_id);
        const Fd data = openFile(build_.store.layers().dataPath(layer.diff_id), O_RDONLY);
        for (const auto& entry : index.entries) tar.add(entry, data.get());
        tar.finish();
      },
      [&](Source& tar) { session_->applyLayer(tar); });
}

// The VM of the stage. A step that needs another network or a cache that is not there gets a new
// one, on the layers so far.
StageSession& StageBuilder::session(bool network, const std::vector<RunMount>& mounts) {
  SessionOptions options;
  options.network = network;
  options.memory_bytes = build_.request.memory_bytes;
  options.extra_hosts = build_.request.extra_hosts;
  options.check = [this] { build_.checkCancelled(); };
  const auto has = [&](const MountCache& cache) {
    return std::find(options.caches.begin(), options.caches.end(), cache) != options.caches.end();
  };
  bool fits = session_ && session_options_.network == network;
  if (fits) options.caches = session_options_.caches;
  for (const auto& mount : mounts) {
    if (mount.kind != RunMount::Kind::kCache || has(mount.cache)) continue;
    options.caches.push_back(mount.cache);
    fits = false;
  }
  if (!fits) {
    session_.reset();  // gives back its caches before it waits for others
    session_ = build_.runner.open(root_->layers(), options);
    session_options_ = options;
  }
  return *session_;
}

// --- the image ---

image::Image StageBuilder::finish(const std::vector<image::Reference>& names) {
  image::ImageConfig config;
  config.platform = platform_;
  config.created = created_;
  config.author = author_;
  config.config = config_;
  for (const auto& [key, value] : build_.request.labels) config.config.labels[key] = value;
  config.history = history_;
  for (const auto& layer : layers_) config.diff_ids.push_back(layer.diff_id);
  if (build_.request.inline_cache) {
    config.build_cache =
        packSteps(build_.stepRecords(CacheMode::kMin), layers_, /*add_layers=*/false).steps;
  }
  return build_.store.create(config, layers_, names);
}

}  // namespace hull::build
