// The inside of a container, built by its first process in new mount, UTS, IPC and cgroup
// namespaces: pivots into the root file system and mounts what Docker mounts. Child side only;
// what it does ends with the namespaces.
#pragma once

#include <string>
#include <vector>

#include "guest-init/protocol/protocol.h"

namespace hull::guest {

// The directory of a disk that StepMount::Kind::kDisk mounts.
inline constexpr const char* kDiskData = "data";

// After it returns, "/" is the container's root and nothing outside can be named any more.
// `state` is the directory of RootFilesystem. Throws Error(kInternal), naming the mount.
void enterNewContainer(const std::string& state, const CreateContainer& options,
                       const std::vector<StepMount>& step_mounts);

// As enterNewContainer for reading and writing files only: the root and the extra mounts, without
// /proc, /dev and the like, without what the root's read-only flag forbids. For containers that
// do not run.
void enterStoppedContainer(const std::string& state, const CreateContainer& options);

}  // namespace hull::guest
