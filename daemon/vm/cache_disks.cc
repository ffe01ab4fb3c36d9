#include "daemon/vm/cache_disks.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/random.h"
#include "daemon/vm/writable_disk.h"

namespace hull::engine {

namespace fs = std::filesystem;

namespace {

constexpr auto kCheckInterval = std::chrono::milliseconds(200);
constexpr uint64_t kStatBlockBytes = 512;  // stat(2): st_blocks
constexpr size_t kMaxIdBytes = 4096;
constexpr const char* kPrivatePrefix = "private-";

void touch(const std::string& path) {
  utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // its time is when it was used last
}

}  // namespace

CacheDisks::CacheDisks(std::string folder, std::string template_disk, uint64_t disk_bytes)
    : folder_(std::move(folder)), template_(std::move(template_disk)), bytes_(disk_bytes) {
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {  // of a killed engine
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrivatePrefix) || name.starts_with(kPendingFilePrefix))
      fs::remove_all(entry.path(), ignored);
  }
}

std::string CacheDisks::folderOf(const std::string& id) const {
  return folder_ + "/" + sha256Hex(id);
}

std::string CacheDisks::makeDisk(const std::string& id) {
  if (id.size() > kMaxIdBytes) throw Error(ErrorKind::kTooLarge, "the id of a cache is too long");
  const std::string place = folderOf(id), disk = place + "/disk";
  if (!fileExists(disk)) {
    makeDirectories(place, 0700);
    writeFileAtomic(place + "/id", id);
    const std::string fresh = place + "/.tmp-" + randomHex(8);
    cloneDisk(templateDisk(template_, bytes_), fresh);
    renameDurably(fresh, disk);
  }
  touch(place + "/id");
  return disk;
}

std::string CacheDisks::makePrivateDisk() {
  makeDirectories(folder_, 0700);
  const std::string path = folder_ + "/" + kPrivatePrefix + randomHex(8);
  cloneDisk(templateDisk(template_, bytes_), path);
  return path;
}

std::unique_ptr<CacheDisks::Lease> CacheDisks::take(const std::vector<build::MountCache>& caches,
                                                    const std::function<void()>& check) {
  std::unique_ptr<Lease> lease(new Lease(*this));
  std::vector<std::string> wanted;
  std::unique_lock lock(mutex_);
  const auto sharedIds = [&] {
    wanted.clear();
    for (const auto& cache : caches) {
      const bool there = std::find(wanted.begin(), wanted.end(), cache.id) != wanted.end();
      if (!there && !(cache.is_private && held_.contains(cache.id))) wanted.push_back(cache.id);
    }
  };
  const auto busy = [&] {
    sharedIds();
    return std::any_of(wanted.begin(), wanted.end(),
                       [&](const auto& id) { return held_.contains(id); });
  };
  while (busy()) {
    const std::vector<std::string> queued = wanted;
    for (const auto& id : queued) ++waiting_[id];
    changed_.wait_for(lock, kCheckInterval);
    for (const auto& id : queued) {
      if (--waiting_[id] == 0) waiting_.erase(id);
    }
    lock.unlock();
    if (check) check();
    lock.lock();
  }
  for (const auto& id : wanted) held_[id] = 1;
  lease->ids_ = wanted;
  lock.unlock();
  for (const auto& cache : caches) {
    if (std::find(wanted.begin(), wanted.end(), cache.id) != wanted.end()) {
      lease->paths_.push_back(makeDisk(cache.id));
    } else {
      lease->temporary_.push_back(makePrivateDisk());
      lease->paths_.push_back(lease->temporary_.back());
    }
  }
  return lease;
}

CacheDisks::Lease::~Lease() {
  for (const auto& path : temporary_) ::unlink(path.c_str());
  {
    const std::lock_guard lock(owner_.mutex_);
    for (const auto& id : ids_) owner_.held_.erase(id);
  }
  owner_.changed_.notify_all();
}

namespace {

std::string seedMark(const std::string& disk) {
  return fs::path(disk).parent_path().string() + "/seeded";
}

}  // namespace

bool CacheDisks::Lease::seeded(size_t n) const {
  const bool temporary =
      std::find(temporary_.begin(), temporary_.end(), path(n)) != temporary_.end();
  return temporary ? seeded_.contains(n) : fileExists(seedMark(path(n)));
}

void CacheDisks::Lease::markSeeded(size_t n) {
  const bool temporary =
      std::find(temporary_.begin(), temporary_.end(), path(n)) != temporary_.end();
  if (temporary)
    seeded_.insert(n);
  else
    writeFileAtomic(seedMark(path(n)), "");
}

bool CacheDisks::Lease::contended() const {
  const std::lock_guard lock(owner_.mutex_);
  return std::any_of(ids_.begin(), ids_.end(),
                     [&](const auto& id) { return owner_.waiting_.contains(id); });
}

std::vector<build::CacheUsage> CacheDisks::list() {
  std::vector<build::CacheUsage> all;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    const std::string place = entry.path().string();
    struct stat disk, id;
    if (stat((place + "/disk").c_str(), &disk) < 0 || stat((place + "/id").c_str(), &id) < 0)
      continue;
    build::CacheUsage usage;
    usage.id = readFile(place + "/id", kMaxIdBytes);
    usage.bytes = static_cast<uint64_t>(disk.st_blocks) * kStatBlockBytes;
    usage.used_at = id.st_mtime;
    const std::lock_guard lock(mutex_);
    usage.in_use = held_.contains(usage.id);
    all.push_back(std::move(usage));
  }
  return all;
}

uint64_t CacheDisks::remove(const std::string& id) {
  const std::lock_guard lock(mutex_);
  if (held_.contains(id)) return 0;
  struct stat disk;
  if (stat((folderOf(id) + "/disk").c_str(), &disk) < 0) return 0;
  fs::remove_all(folderOf(id));
  return static_cast<uint64_t>(disk.st_blocks) * kStatBlockBytes;
}

}  // namespace hull::engine
