// What a container mounts from outside its root (Mount::Kind::kVirtioFs, kDisk), as hull-init holds
// it in the guest's own mount namespace; the container's first process binds it from there.
//
//   <state>/shares      the virtio-fs device kShareTag: an entry for each share
//   <state>/volumes/N   the Nth distinct ext4 disk; volumes are its directory kDiskFolder
//
// Sockets (Mount::Kind::kSocket, sockets.h) are bound the same way, and are no volumes.
//
// The event loop's thread, except openVolume, which the container's process calls too.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"
#include "guest-init/protocol/protocol.h"

namespace hull::guest {

// Makes both of the mounts that need them.
void mountVolumes(const std::string& state, const std::vector<Mount>& mounts);
// What is in use goes when it is not any more. False: something is mounted still, and nothing below
// `state` may be removed. Never throws.
bool unmountVolumes(const std::string& state);

// What `mount` puts into the container, opened with O_PATH. `state` may be relative. Throws
// kInvalidArgument when a subpath is not there.
Fd openVolume(const std::string& state, const std::vector<Mount>& all, const Mount& mount);
bool isVolume(const Mount& mount);

// Fills the empty ones that want it with what `merged` has at their destinations. Blocks for as
// long as the copy takes.
void initialiseVolumes(const std::string& state, const std::string& merged,
                       const std::vector<Mount>& mounts);

}  // namespace hull::guest
