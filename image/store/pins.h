// What garbage collection must leave alone although no image names it (yet): layers and blobs being
// added, build results, disks being made. Shared by the stores and the tokens they hand out; any
// thread.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <vector>

#include "image/types/digest.h"

namespace hull::image {

class PinSet : public std::enable_shared_from_this<PinSet> {
 public:
  // Held shared around "publish, then pin"; no collection runs meanwhile.
  using Guard = std::shared_lock<std::shared_mutex>;
  Guard enter() { return Guard(gate_); }

  // Pins until the token and all its copies are gone.
  std::shared_ptr<void> pin(const std::vector<Digest>& digests, const Guard& entered);
  std::shared_ptr<void> pin(const std::vector<Digest>& digests) { return pin(digests, enter()); }

  // Held alone by a collection while it decides and takes things away.
  std::unique_lock<std::shared_mutex> collect() { return std::unique_lock(gate_); }
  // Look at the pins first and at the names second: what is recorded meanwhile was pinned before.
  std::set<Digest> pinned() const;

 private:
  void unpin(const std::vector<Digest>& digests);

  std::shared_mutex gate_;
  mutable std::mutex mutex_;
  std::map<Digest, size_t> counts_;  // guarded by mutex_
};

}  // namespace hull::image
