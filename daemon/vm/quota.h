// What the machines of one engine may have together: how many, how much memory, how many virtual
// CPUs. Several engines on one host (one for each tenant) then cannot take it from each other, and
// no user of an engine can start more than its host holds. A machine takes its share before it
// starts and gives it back when its process has ended, so what is counted is what really runs.
// Owned by the engine and every lease; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

namespace hull::engine {

struct MachineSize {
  uint64_t memory_mib = 0;
  uint64_t vcpus = 0;
};

class Quota : public std::enable_shared_from_this<Quota> {
 public:
  // Zero: no bound.
  struct Limits {
    uint64_t machines = 0;
    uint64_t memory_mib = 0;
    uint64_t vcpus = 0;
  };

  // A machine's share, given back by its end. One that was made by default is of no quota.
  class Lease {
   public:
    Lease() = default;
    Lease(std::shared_ptr<Quota> quota, MachineSize size) : quota_(std::move(quota)), size_(size) {}
    Lease(Lease&& other) noexcept : quota_(std::move(other.quota_)), size_(other.size_) {}
    Lease& operator=(Lease&& other) noexcept {
      std::swap(quota_, other.quota_);
      std::swap(size_, other.size_);
      return *this;
    }
    ~Lease() {
      if (quota_) quota_->giveBack(size_);
    }

   private:
    std::shared_ptr<Quota> quota_;
    MachineSize size_;
  };

  explicit Quota(Limits limits) : limits_(limits) {}

  // Throws kNoSpace saying what is used up, by how many machines, and what to do.
  Lease take(MachineSize size);
  // Of a machine that runs already: it counts, also beyond the limits.
  Lease takeAnyway(MachineSize size);

 private:
  void giveBack(MachineSize size);

  const Limits limits_;
  std::mutex mutex_;  // below
  uint64_t machines_ = 0;
  MachineSize used_;
};

}  // namespace hull::engine
