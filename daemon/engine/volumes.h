// The volumes there are: named folders (driver "local") and ext4 disks (driver "disk") that outlive
// containers. Their records are StateDb's, their contents <root>/volumes/<name>/_data or disk.ext4;
// which container uses which follows from the containers' records. A disk is attached to one
// running virtual machine at a time. The host never looks into a disk, and into a folder only to
// add up sizes. Owned by Containers. Any thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/engine/events.h"
#include "daemon/engine/state_db.h"
#include "daemon/vm/vm.h"

namespace hull::engine {

inline constexpr const char* kLocalDriver = "local";
inline constexpr const char* kDiskDriver = "disk";
inline constexpr uint64_t kDefaultVolumeBytes = uint64_t{10} << 30;  // of a disk; sparse
// Docker's label of those that no name was asked for.
inline constexpr const char* kAnonymousLabel = "com.docker.volume.anonymous";

struct VolumeRequest {
  std::string name;    // empty: a random one
  std::string driver;  // empty: local, or disk where only disks are possible
  std::map<std::string, std::string> labels, options;
};
// Body of POST /volumes/create. Throws kInvalidArgument, kNotSupported. Pure.
VolumeRequest parseVolumeRequest(std::string_view body);
// Driver, options and name. Throws in Docker's words. Pure.
void checkVolumeRequest(const VolumeRequest& request);

class Volumes {
 public:
  // `host_root`: where this host's files are (EngineOptions). `disks_only`: folders cannot be shown
  // to guests, so that a volume nobody asked a driver for (or "local", which clients send of their
  // own accord) is a disk.
  Volumes(StateDb& db, const std::string& root, std::string host_root, EventBus& events,
          bool disks_only = false);

  std::vector<VolumeRecord> list() const;           // by name
  VolumeRecord get(const std::string& name) const;  // throws kNotFound in Docker's words
  bool has(const std::string& name) const;
  // One of that name that is there already is the answer, if its driver is the one asked for.
  VolumeRecord create(const VolumeRequest& request);
  void remove(const std::string& name);  // throws kConflict while a container uses it

  // create(), and the container uses it before anybody can remove it.
  VolumeRecord obtain(const VolumeRequest& request, const std::string& container);
  void use(const std::string& name, const std::string& container);  // of one that is there
  void release(const std::string& container);  // uses none any more; the volumes stay
  std::vector<std::string> usersOf(const std::string& name) const;  // ids of containers

  // For as long as a virtual machine has them. Waits for a holder that is about to let go
  // (`ending`; a machine takes a while to power off). Throws kConflict naming who has one of them.
  using Ending = std::function<bool(const std::string& container)>;
  void attachDisks(const std::vector<std::string>& names, const std::string& container,
                   const Ending& ending = {});
  void detachDisks(const std::string& container);

  std::string mountpoint(const VolumeRecord& record) const;  // empty: it is a disk
  std::string diskOf(const VolumeRecord& record) const;
  VmShare shareOf(const VolumeRecord& record) const;   // what the guest is shown of it
  bool mayBeEmpty(const VolumeRecord& record) const;   // the host does not look into disks
  uint64_t bytesOf(const VolumeRecord& record) const;  // what it takes on this host's disk

  void publish(const VolumeRecord& record, std::string action,
               std::map<std::string, std::string> more = {});

 private:
  std::string folderOf(const std::string& name) const { return folder_ + "/" + name; }
  VolumeRequest settled(VolumeRequest request) const;  // with name and driver; checked
  VolumeRecord createLocked(const VolumeRequest& request);
  void makeContents(const VolumeRecord& record);
  // A volume of `names` and who else has it; the mutex is held.
  std::optional<std::pair<std::string, std::string>> heldByOther(
      const std::vector<std::string>& names, const std::string& container) const;
  void sweep();
  void adopt(const std::string& name);

  StateDb& db_;
  const std::string folder_, host_root_;
  EventBus& events_;
  const bool disks_only_;
  std::mutex changing_;       // creations and removals, one at a time
  mutable std::mutex mutex_;  // below
  std::map<std::string, VolumeRecord> records_;
  std::map<std::string, std::set<std::string>> users_;  // volume → containers
  std::condition_variable detached_;
  std::map<std::string, std::string> attached_;  // disk volume → container
};

}  // namespace hull::engine
