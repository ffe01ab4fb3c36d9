#include "daemon/engine/volumes.h"

#include <fts.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "daemon/engine/json_fields.h"
#include "daemon/engine/mount_spec.h"
#include "daemon/engine/names.h"
#include "daemon/vm/writable_disk.h"

namespace hull::engine {

namespace fs = std::filesystem;
using fields::Json;

namespace {

constexpr const char* kDataFolder = "/_data";
constexpr const char* kDiskFile = "/disk.ext4";
constexpr std::string_view kNewPrefix = ".new-", kRemovedPrefix = ".removed-";
constexpr size_t kMaxNameBytes = 255;
constexpr size_t kMaxLabels = 1024;
constexpr std::chrono::seconds kDetachTime{60};  // for a machine to power off
constexpr std::chrono::milliseconds kDetachPoll{200};
constexpr uint64_t kStatBlockBytes = 512;  // stat(2): st_blocks

[[noreturn]] void refuse(const VolumeRequest& request, const std::string& cause,
                         ErrorKind kind = ErrorKind::kInvalidArgument) {
  throw Error(kind, "create " + request.name + ": " + cause);
}

void checkName(const VolumeRequest& request) {
  const std::string& name = request.name;
  if (name.size() < 2) {
    refuse(request,
           "volume name is too short, names should be at least two alphanumeric characters");
  }
  const auto plain = [](unsigned char c) { return std::isalnum(c) != 0 && c < 128; };
  const bool fits =
      plain(static_cast<unsigned char>(name.front())) &&
      std::all_of(name.begin(), name.end(), [&](char c) {
        return plain(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '-';
      });
  if (!fits || name.size() > kMaxNameBytes) {
    refuse(request, "\"" + name.substr(0, kMaxNameBytes) +
                        "\" includes invalid characters for a local volume name, only "
                        "\"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host "
                        "directory, use absolute path");
  }
}

std::string option(const std::map<std::string, std::string>& options, const char* name) {
  const auto found = options.find(name);
  return found == options.end() ? "" : found->second;
}

bool hasWord(const std::string& list, std::string_view word) {
  for (size_t start = 0; start <= list.size();) {
    const size_t end = std::min(list.find(',', start), list.size());
    if (std::string_view(list).substr(start, end - start) == word) return true;
    start = end + 1;
  }
  return false;
}

// The local driver's "mount this": of what Docker's can mount, a folder of the host.
void checkLocal(const VolumeRequest& request) {
  for (const auto& [name, value] : request.options) {
    if (name != "type" && name != "o" && name != "device") {
      refuse(request, "invalid option: \"" + name + "\"");
    }
  }
  if (request.options.empty()) return;
  const std::string type = option(request.options, "type"), o = option(request.options, "o");
  const std::string device = option(request.options, "device");
  if (hasWord(o, "bind") || hasWord(o, "rbind")) {
    if (device.empty()) refuse(request, "missing device in volume options");
    if (!device.starts_with('/')) refuse(request, "device \"" + device + "\" is no absolute path");
    return;
  }
  refuse(request,
         "the local driver mounts folders of the host only (type=none, o=bind, device=/path): for "
         "a volume of bounded size use --driver disk -o size=10g, for memory --tmpfs, for another "
         "file system (type \"" +
             type + "\") mount it on the host first",
         ErrorKind::kNotSupported);
}

uint64_t diskBytes(const std::map<std::string, std::string>& options) {
  const std::string size = option(options, "size");
  return size.empty() ? kDefaultVolumeBytes : parseByteSize(size, "volume option size");
}

void checkDisk(const VolumeRequest& request) {
  for (const auto& [name, value] : request.options) {
    if (name != "size")
      refuse(request, "invalid option: \"" + name + "\" (the disk driver has size)");
  }
  const uint64_t bytes = diskBytes(request.options);
  if (bytes < kMinWritableBytes || bytes > kMaxWritableBytes) {
    refuse(request, "size " + std::to_string(bytes) + " is not between 16 MiB and 16 TiB");
  }
}

std::string joined(const std::set<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

void removeTree(const std::string& path) {
  std::error_code failed;
  fs::remove_all(path, failed);
  if (failed) log::warning("remove " + path + ": " + failed.message());
}

}  // namespace

VolumeRequest parseVolumeRequest(std::string_view body) {
  const Json object = fields::parseObject(body, "the volume's configuration");
  VolumeRequest request;
  request.name = fields::text(object, "Name");
  request.driver = fields::text(object, "Driver");
  request.labels = fields::textMap(object, "Labels");
  request.options = fields::textMap(object, "DriverOpts");
  if (request.labels.size() > kMaxLabels || request.options.size() > kMaxLabels) {
    throw Error(ErrorKind::kInvalidArgument, "create volume: more than 1024 labels or options");
  }
  if (fields::find(object, "ClusterVolumeSpec")) {
    throw Error(ErrorKind::kNotSupported, "create volume: there are no cluster volumes");
  }
  return request;
}

void checkVolumeRequest(const VolumeRequest& request) {
  checkName(request);
  if (request.driver.empty() || request.driver == kLocalDriver) return checkLocal(request);
  if (request.driver == kDiskDriver) return checkDisk(request);
  refuse(request,
         "error looking up volume plugin " + request.driver + ": plugin \"" + request.driver +
             "\" not found (there are local and disk)",
         ErrorKind::kNotFound);
}

Volumes::Volumes(StateDb& db, const std::string& root, std::string host_root, EventBus& events,
                 bool disks_only)
    : db_(db),
      folder_(root + "/volumes"),
      host_root_(std::move(host_root)),
      events_(events),
      disks_only_(disks_only) {
  makeDirectories(folder_, 0701);
  for (VolumeRecord& record : db_.loadVolumes()) records_[record.name] = std::move(record);
  sweep();
}

// What a killed engine left half made or half removed goes; what is whole but has no record is
// somebody's data, and comes back.
void Volumes::sweep() {
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder_, failed)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kNewPrefix) || name.starts_with(kRemovedPrefix)) {
      removeTree(entry.path().string());
    } else if (!records_.contains(name)) {
      adopt(name);
    }
  }
}

void Volumes::adopt(const std::string& name) {
  VolumeRecord record;
  record.name = name;
  record.created_ns = nowNs();
  if (fileExists(folderOf(name) + kDiskFile)) record.driver = kDiskDriver;
  try {
    checkVolumeRequest({name, record.driver, {}, {}});
    db_.insertVolume(record);
  } catch (const Error& error) {
    log::warning("volume " + name + ": " + error.what());
    return;
  }
  log::warning("volume " + name + ": there was a folder and no record; it is a volume again");
  records_[name] = std::move(record);
}

std::vector<VolumeRecord> Volumes::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<VolumeRecord> all;
  for (const auto& [name, record] : records_) all.push_back(record);
  return all;
}

VolumeRecord Volumes::get(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(name);
  if (found == records_.end()) {
    throw Error(ErrorKind::kNotFound, "get " + name + ": no such volume");
  }
  return found->second;
}

// Appears under its name complete.
void Volumes::makeContents(const VolumeRecord& record) {
  const std::string making = folder_ + "/" + std::string(kNewPrefix) + randomHex(8);
  try {
    makeDirectories(making, 0701);
    if (record.driver == kDiskDriver) {
      formatDisk(making + kDiskFile, diskBytes(record.options), "volume " + record.name);
    } else {
      makeDirectories(making + kDataFolder, 0755);
    }
    renameDurably(making, folderOf(record.name));
  } catch (const Error& error) {
    removeTree(making);
    throw error.within("create " + record.name);
  }
}

VolumeRecord Volumes::createLocked(const VolumeRequest& request) {
  VolumeRecord record{request.name, request.driver, nowNs(), request.labels, request.options};
  if (record.driver.empty()) record.driver = kLocalDriver;
  {
    const std::lock_guard lock(mutex_);
    const auto found = records_.find(request.name);
    if (found != records_.end()) {
      if (request.driver.empty() || found->second.driver == record.driver) return found->second;
      throw Error(ErrorKind::kConflict, "create " + request.name + ": a volume named " +
                                            request.name + " already exists with the " +
                                            found->second.driver +
                                            " driver. Choose a different volume name");
    }
  }
  makeContents(record);
  db_.insertVolume(record);
  {
    const std::lock_guard lock(mutex_);
    records_[record.name] = record;
  }
  publish(record, "create");
  return record;
}

VolumeRequest Volumes::settled(VolumeRequest request) const {
  if (request.name.empty()) {
    request.name = newId();
    request.labels[kAnonymousLabel] = "";
  }
  if (disks_only_ && (request.driver.empty() || request.driver == kLocalDriver)) {
    if (request.options.contains("device") || request.options.contains("o")) {
      refuse(request,
             "a folder of the host as a volume needs an engine that runs as root (without root "
             "volumes are disks: leave the options away)",
             ErrorKind::kNotSupported);
    }
    request.driver = kDiskDriver;
  }
  checkVolumeRequest(request);
  return request;
}

bool Volumes::has(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  return records_.contains(name);
}

VolumeRecord Volumes::create(const VolumeRequest& asked) {
  const VolumeRequest request = settled(asked);
  const std::lock_guard changing(changing_);
  return createLocked(request);
}

VolumeRecord Volumes::obtain(const VolumeRequest& asked, const std::string& container) {
  const VolumeRequest request = settled(asked);
  const std::lock_guard changing(changing_);
  VolumeRecord record = createLocked(request);
  use(record.name, container);
  return record;
}

void Volumes::remove(const std::string& name) {
  const std::string removed = folder_ + "/" + std::string(kRemovedPrefix) + randomHex(8);
  VolumeRecord record;
  {
    const std::lock_guard changing(changing_);
    record = get(name);
    {
      const std::lock_guard lock(mutex_);
      const auto used = users_.find(name);
      if (used != users_.end()) {
        throw Error(ErrorKind::kConflict,
                    "remove " + name + ": volume is in use - [" + joined(used->second) + "]");
      }
      records_.erase(name);
    }
    db_.removeVolume(name);
    if (::rename(folderOf(name).c_str(), removed.c_str()) < 0) {
      log::warning(sysError("remove " + folderOf(name)).what());
    }
  }
  publish(record, "destroy");
  removeTree(removed);
}

void Volumes::use(const std::string& name, const std::string& container) {
  const std::lock_guard lock(mutex_);
  users_[name].insert(container);
}

void Volumes::release(const std::string& container) {
  const std::lock_guard lock(mutex_);
  for (auto& [name, containers] : users_) containers.erase(container);
  std::erase_if(users_, [](const auto& entry) { return entry.second.empty(); });
}

std::vector<std::string> Volumes::usersOf(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = users_.find(name);
  if (found == users_.end()) return {};
  return {found->second.begin(), found->second.end()};
}

std::optional<std::pair<std::string, std::string>> Volumes::heldByOther(
    const std::vector<std::string>& names, const std::string& container) const {
  for (const std::string& name : names) {
    const auto found = attached_.find(name);
    if (found != attached_.end() && found->second != container) return *found;
  }
  return std::nullopt;
}

void Volumes::attachDisks(const std::vector<std::string>& names, const std::string& container,
                          const Ending& ending) {
  const auto deadline = std::chrono::steady_clock::now() + kDetachTime;
  std::unique_lock lock(mutex_);
  while (const auto held = heldByOther(names, container)) {
    const auto [name, holder] = *held;
    lock.unlock();  // for the caller's own locks
    if (!ending || !ending(holder) || std::chrono::steady_clock::now() >= deadline) {
      throw Error(ErrorKind::kConflict,
                  "attach volume " + name + ": container " + shortId(holder) +
                      " has it: a disk volume can be in one running container at a time (stop "
                      "that one, or use a volume of the local driver)");
    }
    lock.lock();
    // It may start to run as well as end: looked at again after a while.
    detached_.wait_for(lock, kDetachPoll);
  }
  for (const std::string& name : names) attached_[name] = container;
}

void Volumes::detachDisks(const std::string& container) {
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(attached_, [&](const auto& entry) { return entry.second == container; });
  }
  detached_.notify_all();
}

std::string Volumes::mountpoint(const VolumeRecord& record) const {
  return record.driver == kDiskDriver ? "" : folderOf(record.name) + kDataFolder;
}

std::string Volumes::diskOf(const VolumeRecord& record) const {
  return folderOf(record.name) + kDiskFile;
}

VmShare Volumes::shareOf(const VolumeRecord& record) const {
  VmShare share;
  share.source = mountpoint(record);
  const std::string device = option(record.options, "device");
  if (device.empty()) return share;
  share.source = device;
  share.root = host_root_;
  share.read_only = hasWord(option(record.options, "o"), "ro");
  share.recursive = hasWord(option(record.options, "o"), "rbind");
  return share;
}

bool Volumes::mayBeEmpty(const VolumeRecord& record) const {
  if (record.driver == kDiskDriver || record.options.contains("device")) return true;
  std::error_code failed;
  return fs::directory_iterator(mountpoint(record), failed) == fs::directory_iterator();
}

uint64_t Volumes::bytesOf(const VolumeRecord& record) const {
  if (record.driver == kDiskDriver) {
    struct stat info;
    if (stat(diskOf(record).c_str(), &info) < 0) return 0;
    return static_cast<uint64_t>(info.st_blocks) * kStatBlockBytes;
  }
  // Names only, and no further than this file system.
  std::string path = mountpoint(record);
  char* paths[] = {path.data(), nullptr};
  const std::unique_ptr<FTS, int (*)(FTS*)> walk(
      fts_open(paths, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, nullptr), fts_close);
  uint64_t blocks = 0;
  while (const FTSENT* entry = walk ? fts_read(walk.get()) : nullptr) {
    if (entry->fts_info == FTS_DP || entry->fts_statp == nullptr) continue;
    if (entry->fts_info == FTS_NS || entry->fts_info == FTS_ERR) continue;
    blocks += static_cast<uint64_t>(entry->fts_statp->st_blocks);
  }
  return blocks * kStatBlockBytes;
}

void Volumes::publish(const VolumeRecord& record, std::string action,
                      std::map<std::string, std::string> more) {
  more.insert(record.labels.begin(), record.labels.end());
  more["driver"] = record.driver;
  events_.publish({"volume", std::move(action), record.name, std::move(more), 0});
}

}  // namespace hull::engine
