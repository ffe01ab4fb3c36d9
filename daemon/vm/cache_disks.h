// The disks of RUN --mount=type=cache: one sparse ext4 for each id, used by one machine at a time
// and never read on the host. <folder>/<sha256 of the id>/{disk,id,seeded}; what is in use has a
// lease in this process. Owned by the step runner. Any thread.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "image/build/step_runner.h"

namespace hull::engine {

class CacheDisks {
 public:
  // `template_disk` and `disk_bytes` as for writableDisk.
  CacheDisks(std::string folder, std::string template_disk, uint64_t disk_bytes);

  class Lease {
   public:
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    // Of the nth cache that was asked for.
    const std::string& path(size_t n) const { return paths_.at(n); }
    size_t size() const { return paths_.size(); }
    // Whether its initial contents are on it (RUN --mount=type=cache,from=…).
    bool seeded(size_t n) const;
    void markSeeded(size_t n);
    bool contended() const;  // somebody waits for one of them

   private:
    friend class CacheDisks;
    explicit Lease(CacheDisks& owner) : owner_(owner) {}
    CacheDisks& owner_;
    std::vector<std::string> ids_;  // held
    std::vector<std::string> paths_;
    std::vector<std::string> temporary_;  // private ones that nobody uses afterwards
    std::set<size_t> seeded_;             // of them
  };

  // All of them at once, so that two that wait for each other's cannot be. `check` is called while
  // waiting and may throw.
  std::unique_ptr<Lease> take(const std::vector<build::MountCache>& caches,
                              const std::function<void()>& check);

  std::vector<build::CacheUsage> list();
  uint64_t remove(const std::string& id);  // 0 when it is in use or not there

 private:
  std::string folderOf(const std::string& id) const;
  std::string makeDisk(const std::string& id);
  std::string makePrivateDisk();

  const std::string folder_;
  const std::string template_;
  const uint64_t bytes_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, int> held_;     // id → 1
  std::map<std::string, int> waiting_;  // id → how many
};

}  // namespace hull::engine
