#include "image/build/stage_builder.h"

#include <archive.h>
#include <archive_entry.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/bytes.h"
#include "base/error.h"
#include "base/hash.h"

namespace hull::build {

using image::IngestedLayer;
using image::KeepBlob;

namespace {

constexpr const char* kDefaultPath =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr auto kCancelPoll = std::chrono::milliseconds(200);
constexpr size_t kMaxPortsPerExpose = 65'536;
// Known without ARG; in the environment of RUN, but neither in the history nor in the cache's key.
const std::set<std::string>& proxyArgs() {
  static const std::set<std::string> names = {
      "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY",
      "ftp_proxy",  "NO_PROXY",   "no_proxy",    "ALL_PROXY",   "all_proxy"};
  return names;
}

std::string hashOf(std::initializer_list<std::string> parts) {
  ByteWriter key;
  for (const auto& part : parts) key.string(part);
  return sha256Hex(key.bytes());
}

std::string hashOf(const std::vector<std::string>& parts) {
  ByteWriter key;
  key.strings(parts);
  return sha256Hex(key.bytes());
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

uint16_t parseMode(const std::string& text) {
  unsigned mode = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), mode, 8);
  if (failed != std::errc{} || end != text.data() + text.size() || mode > 07777) {
    throw Error(ErrorKind::kInvalidArgument, "invalid --chmod=" + text + " (octal, like 755)");
  }
  return static_cast<uint16_t>(mode);
}

// Calls cancel() when `cancelled` turns true, for as long as it lives.
class CancelWatch {
 public:
  CancelWatch(const std::function<bool()>& cancelled, StageSession& session) {
    if (!cancelled) return;
    thread_ = std::thread([this, &cancelled, &session] {
      std::unique_lock lock(mutex_);
      while (!done_.wait_for(lock, kCancelPoll, [this] { return finished_; })) {
        if (cancelled()) return session.cancel();
      }
    });
  }
  ~CancelWatch() {
    {
      const std::lock_guard lock(mutex_);
      finished_ = true;
    }
    done_.notify_all();
    if (thread_.joinable()) thread_.join();
  }
  CancelWatch(const CancelWatch&) = delete;
  CancelWatch& operator=(const CancelWatch&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  bool finished_ = false;
  std::thread thread_;
};

// xz and bzip2 archives of ADD, inflated by libarchive.
void inflateWithLibarchive(Source& from, Sink& to) {
  struct Reader {
    Source& source;
    std::vector<std::byte> buffer = std::vector<std::byte>(kStreamChunkBytes);
    static la_ssize_t read(archive*, void* self, const void** data) {
      auto* reader = static_cast<Reader*>(self);
      try {
        *data = reader->buffer.data();
        return static_cast<la_ssize_t>(reader->source.read(reader->buffer));
      } catch (...) {
        return ARCHIVE_FATAL;
      }
    }
  } reader{from};
  const std::unique_ptr<archive, int (*)(archive*)> input(archive_read_new(), &archive_read_free);
  archive_read_support_filter_xz(input.get());
  archive_read_support_filter_bzip2(input.get());
  archive_read_support_format_raw(input.get());
  archive_entry* entry = nullptr;
  if (archive_read_open(input.get(), &reader, nullptr, &Reader::read, nullptr) != ARCHIVE_OK ||
      archive_read_next_header(input.get(), &entry) != ARCHIVE_OK) {
    throw Error(ErrorKind::kCorrupt, "inflate an archive: it is damaged");
  }
  std::vector<std::byte> buffer(kStreamChunkBytes);
  for (;;) {
    const la_ssize_t got = archive_read_data(input.get(), buffer.data(), buffer.size());
    if (got < 0) throw Error(ErrorKind::kCorrupt, "inflate an archive: it is damaged");
    if (got == 0) return;
    to.write(std::span<const std::byte>(buffer.data(), static_cast<size_t>(got)));
  }
}

// A file's bytes in a layer's data file.
class InodeSource final : public Source {
 public:
  InodeSource(int fd, const image::Inode& inode)
      : fd_(fd), at_(inode.data_offset), left_(inode.size) {}
  size_t read(std::span<std::byte> into) override {
    const size_t got = preadFull(fd_, into.first(std::min<uint64_t>(left_, into.size())), at_);
    at_ += got;
    left_ -= got;
    return got;
  }

 private:
  int fd_;
  uint64_t at_, left_;
};

enum class ArchiveKind { kNone, kDirect, kLibarchive };

ArchiveKind archiveKind(std::string_view head) {
  if (head.starts_with("\x1f\x8b") || head.starts_with("\x28\xb5\x2f\xfd"))
    return ArchiveKind::kDirect;
  if (head.size() >= 262 && head.substr(257, 5) == "ustar") return ArchiveKind::kDirect;
  if (head.starts_with("BZh") || head.starts_with(std::string_view("\xfd"
                                                                   "7zXZ\0",
                                                                   6)))
    return ArchiveKind::kLibarchive;
  return ArchiveKind::kNone;
}

int64_t parseDuration(const std::string& text) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
  double total = 0;
  for (std::string_view rest = text; !rest.empty();) {
    double number = 0;
    const auto [end, failed] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    if (failed != std::errc{})
      throw Error(ErrorKind::kInvalidArgument,
                  "invalid duration \"" + text + "\" (like 30s or 1m30s)");
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    const size_t unit_end = std::min(rest.find_first_of("0123456789."), rest.size());
    const auto unit = std::find_if(std::begin(kUnits), std::end(kUnits), [&](const auto& u) {
      return u.first == rest.substr(0, unit_end);
    });
    if (unit == std::end(kUnits))
      throw Error(ErrorKind::kInvalidArgument,
                  "invalid duration \"" + text + "\" (like 30s or 1m30s)");
    total += number * unit->second;
    rest.remove_prefix(unit_end);
  }
  return static_cast<int64_t>(total);
}

}  // namespace

IngestedLayer ingestTar(image::LayerStore& layers, KeepBlob keep,
                        const std::function<void(Sink&)>& write) {
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
  std::optional<IngestedLayer> layer;
  std::exception_ptr refused;
  try {
    layer = layers.ingest(source, keep);
  } catch (...) {
    refused = std::current_exception();
  }
  pipe.first.reset();  // a writer that is still at it stops with EPIPE
  writer.join();
  // The writer's failure is the cause of a truncated tar; its EPIPE is the effect of a refused one.
  if (failure && !layer) {
    try {
      std::rethrow_exception(failure);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kUnavailable) throw;
    }
  }
  if (refused) std::rethrow_exception(refused);
  if (failure) std::rethrow_exception(failure);
  return *layer;
}

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

// --- variables ---

std::optional<std::string> StageBuilder::lookUp(std::string_view name) {
  const auto arg = args_.find(std::string(name));
  if (arg != args_.end()) return arg->second;
  const std::string prefix = std::string(name) + "=";
  for (const auto& item : config_.env) {
    if (item.starts_with(prefix)) return item.substr(prefix.size());
  }
  return std::nullopt;
}

std::string StageBuilder::expand(const std::string& word) {
  return expandWord(word, build_.file.escape,
                    [this](std::string_view name) { return lookUp(name); });
}

std::vector<std::string> StageBuilder::words(const Instruction& at) {
  std::vector<std::string> result = at.exec ? *at.exec : splitWords(at.rest, build_.file.escape);
  for (auto& word : result) word = expand(word);
  return result;
}

void StageBuilder::setEnv(const std::string& name, const std::string& value) {
  args_.erase(name);  // ENV after ARG wins
  const std::string prefix = name + "=";
  for (auto& item : config_.env) {
    if (item.starts_with(prefix)) {
      item = prefix + value;
      return;
    }
  }
  config_.env.push_back(prefix + value);
}

void StageBuilder::runEnv(const Instruction& at) {
  std::vector<std::pair<std::string, std::string>> pairs =
      splitPairs(at.rest, build_.file.escape, true);
  for (auto& [name, value] : pairs) {  // all see the values from before the instruction
    name = expand(name);
    value = expand(value);
  }
  std::string meaning = "ENV";
  for (const auto& [name, value] : pairs) {
    setEnv(name, value);
    meaning += " " + name + "=" + value;
  }
  configStep(at, meaning);
}

void StageBuilder::runArg(const Instruction& at) {
  std::string meaning = "ARG";
  for (const auto& word : splitWords(at.rest, build_.file.escape)) {
    const size_t equals = word.find('=');
    const std::string name = expand(word.substr(0, equals));
    build_.used_args.insert(name);
    std::optional<std::string> value;
    const auto given = build_.request.build_args.find(name);
    const auto global = build_.plan.global_args.find(name);
    const auto platform = platformArgs().find(name);
    if (given != build_.request.build_args.end())
      value = given->second;
    else if (equals != std::string::npos)
      value = expand(word.substr(equals + 1));
    else if (global != build_.plan.global_args.end())
      value = global->second;
    else if (platform != platformArgs().end())
      value = platform->second;
    if (value) args_[name] = *value;
    meaning += " " + name + (value ? "=" + *value : "");
  }
  configStep(at, meaning);
}

void StageBuilder::runLabel(const Instruction& at) {
  std::string meaning = "LABEL";
  for (const auto& [name, value] : splitPairs(at.rest, build_.file.escape, true)) {
    const std::string key = expand(name), text = expand(value);
    config_.labels[key] = text;
    meaning += " " + key + "=" + text;
  }
  configStep(at, meaning);
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

// --- RUN ---

std::vector<std::string> StageBuilder::shellForm(const std::string& command) const {
  std::vector<std::string> arguments =
      config_.shell.empty() ? std::vector<std::string>{"/bin/sh", "-c"} : config_.shell;
  arguments.push_back(command);
  return arguments;
}

std::vector<std::string> StageBuilder::runEnvironment() const {
  std::map<std::string, std::string> extra = args_;
  for (const auto& name : proxyArgs()) {
    const auto given = build_.request.build_args.find(name);
    if (given != build_.request.build_args.end()) extra.emplace(name, given->second);
  }
  std::vector<std::string> environment;
  bool path = false;
  for (const auto& item : config_.env) {
    const std::string name = item.substr(0, item.find('='));
    path |= name == "PATH";
    if (!extra.contains(name)) environment.push_back(item);
  }
  for (const auto& [name, value] : extra) {
    path |= name == "PATH";
    environment.push_back(name + "=" + value);
  }
  if (!path) environment.push_back(kDefaultPath);
  return environment;
}

void StageBuilder::runCommand(const Instruction& at) {
  for (const auto& flag : at.flags) {
    if (flag.name == "network" && flag.value == "default") continue;
    throw build_.file.error(at.line, flag.column, "RUN --" + flag.name + " is not supported yet");
  }
  RunStep step;
  step.environment = runEnvironment();
  step.working_directory = config_.working_dir.empty() ? "/" : config_.working_dir;
  step.user = config_.user;
  if (at.exec) {
    step.arguments = *at.exec;
  } else if (at.heredocs.empty()) {
    step.arguments = shellForm(at.rest);
  } else if (at.rest.starts_with("<<") && at.heredocs.size() == 1 &&
             at.rest.find(' ') == std::string::npos) {
    const std::string& body = at.heredocs[0].content;
    if (body.starts_with("#!")) {
      step.arguments = {
          "/bin/sh", "-c",
          "f=$(mktemp) && cat >\"$f\" && chmod 700 \"$f\" && \"$f\"; s=$?; rm -f \"$f\"; exit $s"};
      step.stdin_text = body;
    } else {
      step.arguments = shellForm(body);
    }
  } else {
    std::string script = at.rest + "\n";
    for (const auto& heredoc : at.heredocs) script += heredoc.content + heredoc.name + "\n";
    step.arguments = shellForm(script);
  }
  if (step.arguments.empty()) throw Error(ErrorKind::kInvalidArgument, "RUN needs a command");

  std::vector<std::string> chain;
  for (const auto& layer : root_->layers()) chain.push_back(layer.text());
  std::vector<std::string> keyed_environment;
  for (const auto& item : step.environment) {
    const std::string name = item.substr(0, item.find('='));
    if (!proxyArgs().contains(name) || args_.contains(name)) keyed_environment.push_back(item);
  }
  const std::string key = hashOf({"run", key_, hashOf(chain), hashOf(step.arguments),
                                  hashOf(keyed_environment), step.working_directory, step.user,
                                  step.stdin_text, build_.request.network ? "net" : "none"});
  std::string history = "RUN ";
  if (!args_.empty()) {
    history += "|" + std::to_string(args_.size());
    for (const auto& [name, value] : args_) history += " " + name + "=" + value;
    history += " ";
  }
  history += joined(step.arguments) + " # buildkit";
  layerStep(
      key, history,
      {[&] {
         StageSession& vm = session();
         StepResult result;
         {
           const CancelWatch watch(build_.hooks.cancelled, vm);
           result = vm.run(step, [this](OutputStream stream, std::string_view text) {
             if (build_.hooks.report)
               build_.hooks.report({BuildEvent::Kind::kOutput, std::string(text), stream, {}});
           });
         }
         build_.checkCancelled();
         if (result.exit_code != 0) {
           throw Error(ErrorKind::kInvalidArgument,
                       "The command '" + joined(step.arguments) +
                           "' returned a non-zero code: " + std::to_string(result.exit_code) +
                           (result.out_of_memory
                                ? " (it ran out of memory: give the build more with --memory)"
                                : ""));
         }
         return ingestTar(build_.store.layers(), KeepBlob::kCompress,
                          [&](Sink& tar) { vm.readLayer(tar); });
       },
       true});
}

// --- COPY and ADD ---

void StageBuilder::runCopy(const Instruction& at) {
  std::vector<std::unique_ptr<RootFs>> owned;
  const std::vector<CopyPlan> plans = planCopies(at, owned);
  std::string content;
  for (const auto& plan : plans) content += plan.contentKey();
  std::vector<std::string> chain;
  for (const auto& layer : root_->layers()) chain.push_back(layer.text());
  layerStep(hashOf({"copy", key_, hashOf(chain), content}), at.text + " # buildkit", {[&] {
              return ingestTar(build_.store.layers(), KeepBlob::kCompress, [&](Sink& sink) {
                image::LayerTarWriter tar(sink);
                for (const auto& plan : plans) plan.write(tar);
                tar.finish();
              });
            }});
}

RootFs& StageBuilder::copySource(const Instruction& at, const std::string& from,
                                 std::vector<std::unique_ptr<RootFs>>& owned) {
  if (from.empty()) return build_.context;
  const int self = static_cast<int>(&stage_ - build_.plan.stages.data());
  const int index = findStage(build_.plan.stages, lowerCase(from), self);
  if (index >= 0) return build_.stages[static_cast<size_t>(index)]->root();
  std::optional<image::Image> found = build_.store.find(from);
  if (!found) {
    try {
      found = build_.hooks.pull_image(image::Reference::parse(from), image::Platform{});
    } catch (const Error& error) {
      throw build_.file.error(at, "--from=" + from + " is no stage and no image: " + error.what());
    }
  }
  build_.pins.push_back(build_.store.pinLayers(found->config.diff_ids));
  owned.push_back(std::make_unique<RootFs>(build_.store.layers(), found->config.diff_ids));
  return *owned.back();
}

std::vector<CopyPlan> StageBuilder::planCopies(const Instruction& at,
                                               std::vector<std::unique_ptr<RootFs>>& owned) {
  CopyRequest request;
  request.working_directory = config_.working_dir;
  std::string from;
  bool unpack = at.keyword == "ADD";
  for (const auto& flag : at.flags) {
    const std::string value = flag.name == "from" ? flag.value : expand(flag.value);
    if (flag.name == "from" && at.keyword == "COPY")
      from = value;
    else if (flag.name == "chown")
      request.owner = root_->lookUpOwner(value);
    else if (flag.name == "chmod")
      request.mode = parseMode(value);
    else if (flag.name == "link")
      continue;  // our layers are independent of what is below them anyway
    else if (flag.name == "unpack" && at.keyword == "ADD")
      unpack = value != "false";
    else
      throw build_.file.error(at.line, flag.column,
                              at.keyword + " --" + flag.name + " is not supported yet");
  }
  std::vector<std::string> list = words(at);
  if (list.size() < 2)
    throw build_.file.error(at,
                            at.keyword + " requires at least two arguments: source… destination");
  request.destination = std::move(list.back());
  list.pop_back();
  if (at.exec == std::nullopt && !at.heredocs.empty()) {
    owned.push_back(heredocFiles(at));
    RootFs& files = *owned.back();
    std::erase_if(list, [](const std::string& word) { return word.starts_with("<<"); });
    for (const auto& heredoc : at.heredocs) request.sources.push_back("/" + heredoc.name);
    std::vector<CopyPlan> plans;
    plans.emplace_back(files, *root_, request);
    if (list.empty()) return plans;
    request.sources = list;
    plans.emplace_back(copySource(at, from, owned), *root_, request);
    return plans;
  }
  RootFs& source = copySource(at, from, owned);
  std::vector<CopyPlan> plans;
  std::vector<std::string> plain;
  for (const auto& path : list) {
    if (at.keyword == "ADD" &&
        (path.starts_with("http://") || path.starts_with("https://") || path.starts_with("git@"))) {
      throw build_.file.error(at,
                              "ADD from a URL is not supported yet (download it in a RUN step, or "
                              "put it into the context)");
    }
    std::unique_ptr<RootFs> archive = unpack ? unpackIfArchive(source, path) : nullptr;
    if (!archive) {
      plain.push_back(path);
      continue;
    }
    CopyRequest extraction = request;
    extraction.sources = {"/"};
    extraction.keep_owner = true;
    owned.push_back(std::move(archive));
    plans.emplace_back(*owned.back(), *root_, extraction);
  }
  if (plain.empty()) return plans;
  request.sources = plain;
  if (list.size() > 1 && plain.size() == 1 && !request.destination.ends_with('/'))
    request.destination += '/';
  plans.emplace_back(source, *root_, request);
  return plans;
}

// ADD unpacks by content: what does not turn out to be a tar is a plain file.
std::unique_ptr<RootFs> StageBuilder::unpackIfArchive(RootFs& source, const std::string& path) {
  const image::InodeNumber number = source.tree().resolve("/" + cleanPath(path));
  if (number == image::kNoInode) return nullptr;
  const image::Inode& inode = source.tree().at(number);
  if (inode.type != image::EntryType::kFile || inode.size < 2) return nullptr;
  const int fd = source.dataFd(inode);
  std::string head(std::min<uint64_t>(inode.size, 512), '\0');
  preadFull(fd, std::as_writable_bytes(std::span(head)), inode.data_offset);
  const ArchiveKind kind = archiveKind(head);
  if (kind == ArchiveKind::kNone) return nullptr;
  try {
    InodeSource bytes(fd, inode);
    const IngestedLayer layer =
        kind == ArchiveKind::kDirect
            ? build_.store.layers().ingest(bytes, KeepBlob::kNo)
            : ingestTar(build_.store.layers(), KeepBlob::kNo,
                        [&](Sink& tar) { inflateWithLibarchive(bytes, tar); });
    build_.pins.push_back(build_.store.pinLayers({layer.diff_id}));
    return std::make_unique<RootFs>(build_.store.layers(), std::vector{layer.diff_id});
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCorrupt || error.kind() == ErrorKind::kNotSupported)
      return nullptr;
    throw;
  }
}

std::unique_ptr<RootFs> StageBuilder::heredocFiles(const Instruction& at) {
  const IngestedLayer layer = ingestTar(build_.store.layers(), KeepBlob::kNo, [&](Sink& sink) {
    image::LayerTarWriter tar(sink);
    for (const auto& heredoc : at.heredocs) {
      const std::string text =
          heredoc.expand ? expandText(heredoc.content, build_.file.escape,
                                      [this](std::string_view name) { return lookUp(name); })
                         : heredoc.content;
      const Fd file = makeMemfd("heredoc");
      writeFull(file.get(), text);
      image::Entry entry;
      entry.path = heredoc.name;
      entry.mode = 0644;
      entry.size = text.size();
      tar.add(entry, file.get());
    }
    tar.finish();
  });
  build_.pins.push_back(build_.store.pinLayers({layer.diff_id}));
  return std::make_unique<RootFs>(build_.store.layers(), std::vector{layer.diff_id});
}

// --- WORKDIR and metadata ---

void StageBuilder::runWorkdir(const Instruction& at) {
  const std::string path = joinPath(config_.working_dir, expand(at.rest));
  config_.working_dir = "/" + path;
  std::vector<image::Entry> missing =
      missingDirectories(*root_, path, root_->lookUpUser(config_.user));
  const std::string meaning = "WORKDIR /" + path;
  if (missing.empty()) return configStep(at, meaning);
  for (auto& entry : missing) {
    if (entry.mtime_seconds == 0) entry.mtime_seconds = build_.now_seconds;
  }
  layerStep(hashOf({"workdir", key_, meaning, config_.user}), meaning, {[&] {
              return ingestTar(build_.store.layers(), KeepBlob::kCompress, [&](Sink& sink) {
                image::LayerTarWriter tar(sink);
                for (const auto& entry : missing) tar.add(entry, -1);
                tar.finish();
              });
            }});
}

namespace {

// "80", "80/udp", "8000-8010/tcp" → each port with its protocol.
void addExposed(std::vector<std::string>& ports, const std::string& word) {
  const size_t slash = word.find('/');
  const std::string protocol =
      slash == std::string::npos ? "tcp" : lowerCase(word.substr(slash + 1));
  unsigned first = 0, last = 0;
  const std::string range = word.substr(0, slash);
  const char* end = range.data() + range.size();
  auto [at, failed] = std::from_chars(range.data(), end, first);
  last = first;
  if (failed == std::errc{} && at != end && *at == '-') {
    const auto second = std::from_chars(at + 1, end, last);
    at = second.ptr;
    failed = second.ec;
  }
  const bool known = protocol == "tcp" || protocol == "udp" || protocol == "sctp";
  if (failed != std::errc{} || at != end || first == 0 || last > 65535 || last < first || !known) {
    throw Error(ErrorKind::kInvalidArgument,
                "invalid port: " + word + " (like 80, 53/udp or 8000-8010)");
  }
  for (unsigned port = first; port <= last && ports.size() < kMaxPortsPerExpose; ++port) {
    ports.push_back(std::to_string(port) + "/" + protocol);
  }
  std::sort(ports.begin(), ports.end());
  ports.erase(std::unique(ports.begin(), ports.end()), ports.end());
}

}  // namespace

void StageBuilder::runMetadata(const Instruction& at) {
  const std::string& keyword = at.keyword;
  std::string meaning = keyword + " ";
  if (keyword == "CMD" || keyword == "ENTRYPOINT") {
    std::vector<std::string> command = at.exec           ? *at.exec
                                       : at.rest.empty() ? std::vector<std::string>{}
                                                         : shellForm(at.rest);
    meaning += joined(command);
    if (keyword == "CMD") {
      config_.cmd = command;
      cmd_set_ = true;
    } else {
      config_.entrypoint = command;
      if (!cmd_set_) config_.cmd.reset();
    }
  } else if (keyword == "SHELL") {
    if (!at.exec || at.exec->empty())
      throw build_.file.error(
          at, "SHELL requires the arguments to be in JSON form: [\"/bin/bash\", \"-c\"]");
    config_.shell = *at.exec;
    meaning += joined(config_.shell);
  } else if (keyword == "USER") {
    config_.user = expand(at.rest);
    meaning += config_.user;
  } else if (keyword == "STOPSIGNAL") {
    config_.stop_signal = expand(at.rest);
    meaning += config_.stop_signal;
  } else if (keyword == "EXPOSE" || keyword == "VOLUME") {
    for (const auto& word : words(at)) {
      if (keyword == "EXPOSE")
        addExposed(config_.exposed_ports, word);
      else if (word.empty())
        throw build_.file.error(at, "VOLUME specified can not be an empty string");
      else if (std::find(config_.volumes.begin(), config_.volumes.end(), word) ==
               config_.volumes.end())
        config_.volumes.push_back(word);
      meaning += word + " ";
    }
    std::sort(config_.volumes.begin(), config_.volumes.end());
  } else if (keyword == "MAINTAINER") {
    author_ = at.rest;
    meaning += author_;
  } else if (keyword == "ONBUILD") {
    const Instruction trigger = parseInstruction(build_.file.name + " (ONBUILD)", at.rest);
    if (trigger.keyword == "FROM" || trigger.keyword == "ONBUILD" ||
        trigger.keyword == "MAINTAINER") {
      throw build_.file.error(at, trigger.keyword + " isn't allowed as an ONBUILD trigger");
    }
    config_.on_build.push_back(at.rest);
    meaning += at.rest;
  } else {
    throw build_.file.error(at, keyword + " is not expected here");
  }
  configStep(at, meaning);
}

void StageBuilder::runHealthCheck(const Instruction& at) {
  image::HealthCheck check;
  for (const auto& flag : at.flags) {
    const std::string value = expand(flag.value);
    if (flag.name == "retries") {
      check.retries = std::atoi(value.c_str());
      continue;
    }
    const int64_t duration = parseDuration(value);
    if (duration != 0 && duration < 1'000'000)
      throw build_.file.error(at.line, flag.column, "--" + flag.name + " must be at least 1ms");
    if (flag.name == "interval")
      check.interval_ns = duration;
    else if (flag.name == "timeout")
      check.timeout_ns = duration;
    else if (flag.name == "start-period")
      check.start_period_ns = duration;
    else if (flag.name == "start-interval")
      check.start_interval_ns = duration;
    else
      throw build_.file.error(at.line, flag.column, "unknown flag: --" + flag.name);
  }
  const std::string type = lowerCase(at.rest.substr(0, at.rest.find(' ')));
  if (type == "none") {
    if (at.rest.size() != 4) throw build_.file.error(at, "HEALTHCHECK NONE takes no arguments");
    check.test = {"NONE"};
  } else if (type == "cmd") {
    const Instruction command = parseInstruction(build_.file.name + " (HEALTHCHECK)", at.rest);
    check.test = {command.exec ? "CMD" : "CMD-SHELL"};
    if (command.exec)
      check.test.insert(check.test.end(), command.exec->begin(), command.exec->end());
    else
      check.test.push_back(command.rest);
  } else {
    throw build_.file.error(at, "HEALTHCHECK takes CMD … or NONE");
  }
  config_.health_check = check;
  configStep(at, at.text);
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
