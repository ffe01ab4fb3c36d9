// Containers: creating, finding, removing, and what needs no more than a request to the guest.
#include "daemon/engine/containers.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "daemon/engine/cpu_placement.h"
#include "daemon/engine/execs.h"
#include "daemon/engine/names.h"
#include "daemon/engine/networks.h"

namespace hull::engine {

namespace {

constexpr std::chrono::seconds kKillTime{10};
constexpr int64_t kDefaultStopSeconds = 10;
constexpr int kNameAttempts = 32;

std::string familiarOf(const std::string& name) {
  try {
    return image::Reference::parse(name).familiar();
  } catch (const Error&) {
    return name;
  }
}

bool sameMachine(const image::Platform& a, const image::Platform& b) {
  return a.os == b.os && a.architecture == b.architecture;
}

// The store keeps images of other machines too. What was asked for and is not here is "not found",
// so that a client pulls it.
void checkPlatform(const std::string& platform, const image::Image& image) {
  const image::Platform host;
  const image::Platform& there = image.config.platform;
  if (!platform.empty() && !sameMachine(image::Platform::parse(platform), there)) {
    throw Error(ErrorKind::kNotFound,
                "image is for platform " + there.text() + ", but " + platform + " was asked for");
  }
  if (sameMachine(host, there)) return;
  throw Error(ErrorKind::kNotSupported, "image is for " + there.text() + ", this host runs " +
                                            host.text() + " (pull it with --platform " +
                                            host.text() + ")");
}

}  // namespace

std::vector<image::Digest> diffIdsOf(const ContainerRecord& record) {
  std::vector<image::Digest> ids;
  for (const std::string& text : record.diff_ids) ids.push_back(image::Digest::parse(text));
  return ids;
}

Containers::Containers(EngineParts& parts, const EngineOptions& options, EventBus& events,
                       Networks& networks, Door& door)
    : parts_(parts),
      options_(options),
      events_(events),
      networks_(networks),
      door_(door),
      db_((makeDirectories(options.root + "/containers", 0711), options.root + "/engine.db")),
      volumes_(db_, options.root, options.host_root, events, options.without_root) {}

Containers::~Containers() {
  shutdown();
}

std::string Containers::folderOf(const std::string& id) const {
  return options_.root + "/containers/" + id;
}

void Containers::publish(const Container& container, std::string action,
                         std::map<std::string, std::string> more) {
  more.insert(container.spec().labels.begin(), container.spec().labels.end());
  more["image"] = container.image();
  more["name"] = container.name();
  events_.publish({"container", std::move(action), container.id(), std::move(more), 0});
}

void Containers::save(Container& container, const std::function<void(ContainerState&)>& edit) {
  db_.update(container.id(), container.change(edit));
}

Containers::Created Containers::create(std::string_view body, std::string_view name,
                                       const std::string& platform) {
  const std::string image_name = imageOf(body);
  const auto image = parts_.images->find(image_name);
  if (!image) {
    throw Error(ErrorKind::kNotFound, "No such image: " + familiarOf(image_name));
  }
  checkPlatform(platform, *image);
  ContainerRecord record;
  record.id = newId();
  record.created_ns = nowNs();
  record.image = image_name;
  record.image_id = image->id.text();
  for (const auto& diff_id : image->config.diff_ids) record.diff_ids.push_back(diff_id.text());
  record.documents = completeDocuments(body, image->config.config);
  settleJoining(record.documents);
  const ContainerSpec spec = specOf(record.documents);
  // Refuses bad hosts, servers and profiles now.
  (void)createMessage(spec, "check", "", "", true);
  (void)mainProcess(spec, "check");
  checkCpus(spec.limits);
  checkJoiner(spec);
  ContainerState state;
  state.endpoints = networks_.endpointsOf(spec, record.documents.endpoints);
  const std::string folder = folderOf(record.id);
  try {
    resolveMounts(spec, record.id, record.mounts);
    makeDirectories(folder, 0711);
    insert(record, state, name);
  } catch (...) {
    volumes_.release(record.id);
    removeOwnVolumes(record.mounts);
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    throw;
  }
  return {record.id, warningsOf(record.documents)};
}

// Under the name asked for, or a free one.
void Containers::insert(ContainerRecord& record, const ContainerState& state,
                        std::string_view name) {
  const bool named = !name.empty();
  std::vector<image::Digest> layers;
  for (const std::string& diff_id : record.diff_ids)
    layers.push_back(image::Digest::parse(diff_id));
  for (int attempt = 0;; ++attempt) {
    record.name = named ? checkedName(name) : randomName();
    if (attempt > kNameAttempts / 2) record.name += "_" + shortId(record.id).substr(0, 6);
    try {
      const auto container = std::make_shared<Container>(record, state, folderOf(record.id));
      db_.insert(record, state);
      {
        const std::lock_guard lock(mutex_);
        containers_.emplace(record.id, container);
        pins_.emplace(record.id, parts_.images->pinLayers(layers));
      }
      publish(*container, "create");
      return;
    } catch (const Error& error) {
      if (named || error.kind() != ErrorKind::kConflict || attempt >= kNameAttempts) throw;
    }
  }
}

std::shared_ptr<Container> Containers::get(std::string_view name) const {
  std::string wanted(name);
  if (wanted.starts_with('/')) wanted.erase(0, 1);
  const Error missing(ErrorKind::kNotFound, "No such container: " + wanted);
  if (wanted.empty()) throw missing;
  const std::lock_guard lock(mutex_);
  if (const auto exact = containers_.find(wanted); exact != containers_.end()) {
    return exact->second;
  }
  for (const auto& [id, container] : containers_) {
    if (container->name() == wanted) return container;
  }
  const auto first = containers_.lower_bound(wanted);
  if (first == containers_.end() || !first->first.starts_with(wanted)) throw missing;
  if (const auto next = std::next(first);
      next != containers_.end() && next->first.starts_with(wanted)) {
    throw Error(ErrorKind::kInvalidArgument, "Multiple IDs found with provided prefix: " + wanted);
  }
  return first->second;
}

std::vector<std::shared_ptr<Container>> Containers::list() const {
  std::vector<std::pair<int64_t, std::shared_ptr<Container>>> sorted;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, container] : containers_) {
      sorted.emplace_back(container->createdNs(), container);
    }
  }
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::vector<std::shared_ptr<Container>> list;
  for (auto& [created, container] : sorted) list.push_back(std::move(container));
  return list;
}

bool Containers::usesImage(const image::Digest& image) const {
  const auto all = list();
  return std::any_of(all.begin(), all.end(),
                     [&](const auto& container) { return container->imageId() == image.text(); });
}

// --- signals ---

void Containers::signalMain(const std::shared_ptr<Container>& container, uint32_t number) {
  const auto run = container->run();
  if (!run) checkStep(Step::kKill, container->state().status, container->id());
  guest::SignalProcess signal;
  signal.process = guest::kMainProcess;
  signal.signal = number;
  try {
    if (run) run->vm()->request(container->id(), signal, kKillTime);
  } catch (const Error& error) {
    // It may have ended just now; and a guest that does not answer is ended by its VM.
    if (run->ended()) return;
    if (number != signalNumber("KILL")) throw;
    log::warning("kill container " + container->id() + ": " + error.what() +
                 "; its virtual machine is ended");
    run->vm()->stop(std::chrono::milliseconds(0));
  }
}

void Containers::killAndWait(const std::shared_ptr<Container>& container) {
  const auto wait = container->wait(Container::WaitCondition::kNotRunning);
  if (container->state().status == Status::kPaused) unpause(container);
  if (!container->run()) return (void)wait->getFor(kKillTime);
  signalMain(container, signalNumber("KILL"));
  if (wait->getFor(kKillTime)) return;
  if (const auto run = container->run()) run->vm()->stop(std::chrono::milliseconds(0));
  if (!wait->getFor(kKillTime)) {
    throw Error(ErrorKind::kTimeout,
                "kill container " + container->id() + ": its virtual machine does not end");
  }
}

void Containers::kill(const std::shared_ptr<Container>& container, const std::string& signal) {
  const uint32_t number = signalNumber(signal.empty() ? "KILL" : signal);
  const ContainerState state = container->state();
  checkStep(Step::kKill, state.status, container->id());
  publish(*container, "kill", {{"signal", std::to_string(number)}});
  const std::string& own = container->spec().stop_signal;
  const bool stops =
      number == signalNumber("KILL") || number == signalNumber(own.empty() ? "TERM" : own);
  if (stops) save(*container, [](ContainerState& changed) { changed.stopped_by_user = true; });
  if (number == signalNumber("KILL")) return killAndWait(container);
  if (state.status == Status::kPaused) {
    throw Error(ErrorKind::kConflict, "Container " + container->id() +
                                          " is paused. Unpause the container before stopping or "
                                          "killing");
  }
  signalMain(container, number);
}

bool Containers::stop(const std::shared_ptr<Container>& container, const StopOptions& options) {
  const ContainerState state = container->state();
  const ContainerSpec& spec = container->spec();
  const std::string name = !options.signal.value_or("").empty() ? *options.signal
                           : !spec.stop_signal.empty()          ? spec.stop_signal
                                                                : "TERM";
  const uint32_t number = signalNumber(name);
  if (!state.running() && state.status != Status::kRestarting) return false;
  save(*container, [](ContainerState& changed) { changed.stopped_by_user = true; });
  wakeRestarts();
  if (!state.running()) return true;
  if (state.status == Status::kPaused) unpause(container);
  const auto wait = container->wait(Container::WaitCondition::kNotRunning);
  const int64_t seconds =
      options.timeout_s.value_or(spec.stop_timeout_s.value_or(kDefaultStopSeconds));
  publish(*container, "kill", {{"signal", std::to_string(number)}});
  if (container->run()) signalMain(container, number);
  const bool ended = seconds < 0 ? wait->get().has_value()
                                 : wait->getFor(std::chrono::seconds(seconds)).has_value();
  if (!ended) {
    publish(*container, "kill", {{"signal", "9"}});
    killAndWait(container);
  }
  publish(*container, "stop");
  return true;
}

void Containers::restart(const std::shared_ptr<Container>& container, const StopOptions& options) {
  // An --rm container would be removed by its stop, as Docker's restart does not.
  const auto keep = std::make_shared<bool>(true);
  container->holdRemoval(keep);
  stop(container, options);
  start(container);
  publish(*container, "restart");
}

void Containers::pause(const std::shared_ptr<Container>& container) {
  checkStep(Step::kPause, container->state().status, container->id());
  const auto run = container->run();
  if (!run) checkStep(Step::kPause, Status::kExited, container->id());
  run->vm()->pause();
  save(*container, [](ContainerState& state) {
    if (state.status == Status::kRunning) state.status = Status::kPaused;
  });
  publish(*container, "pause");
}

void Containers::unpause(const std::shared_ptr<Container>& container) {
  checkStep(Step::kUnpause, container->state().status, container->id());
  const auto run = container->run();
  if (!run) checkStep(Step::kUnpause, Status::kExited, container->id());
  run->vm()->resume();
  save(*container, [](ContainerState& state) {
    if (state.status == Status::kPaused) state.status = Status::kRunning;
  });
  publish(*container, "unpause");
}

void Containers::resize(const std::shared_ptr<Container>& container, uint16_t rows,
                        uint16_t columns) {
  const auto run = container->run();
  if (!run) {
    throw Error(ErrorKind::kConflict, "container " + container->id() + " is not running");
  }
  run->request(guest::ResizeTerminal{guest::kMainProcess, rows, columns});
  publish(*container, "resize",
          {{"height", std::to_string(rows)}, {"width", std::to_string(columns)}});
}

void Containers::rename(const std::shared_ptr<Container>& container, std::string_view name) {
  if (name.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "Neither old nor new names may be empty");
  }
  const std::string wanted = checkedName(name);
  const std::string old = container->name();
  if (wanted == old) {
    throw Error(ErrorKind::kInvalidArgument,
                "Renaming a container with the same name as its current name");
  }
  db_.rename(container->id(), wanted);
  container->setName(wanted);
  if (parts_.network && container->run()) parts_.network->rename(container->id(), old, wanted);
  publish(*container, "rename", {{"oldName", "/" + old}});
}

// --- removal ---

void Containers::remove(const std::shared_ptr<Container>& container, bool force, bool volumes) {
  if (!force) checkStep(Step::kRemove, container->state().status, container->id());
  if (force && (container->state().running() || container->state().status == Status::kRestarting)) {
    save(*container, [](ContainerState& state) { state.stopped_by_user = true; });
    wakeRestarts();
    killAndWait(container);
  }
  const auto operation = container->operation();
  if (container->removed()) return;  // by --rm, meanwhile
  if (container->state().running()) {
    checkStep(Step::kRemove, container->state().status, container->id());
  }
  removeLocked(container, volumes);
}

void Containers::removeLocked(const std::shared_ptr<Container>& container, bool volumes) {
  container->change([](ContainerState& state) { state.status = Status::kRemoving; });
  container->dropOutput();
  // From here on it is gone; what is left of its folder is swept at the next start.
  db_.remove(container->id());
  {
    const std::lock_guard lock(mutex_);
    containers_.erase(container->id());
    pins_.erase(container->id());
  }
  std::error_code failed;
  std::filesystem::remove_all(container->folder(), failed);
  if (failed) log::warning("remove " + container->folder() + ": " + failed.message());
  volumes_.detachDisks(container->id());
  volumes_.release(container->id());
  if (volumes) removeOwnVolumes(container->mounts());
  publish(*container, "destroy");
  container->markRemoved();
}

}  // namespace hull::engine
