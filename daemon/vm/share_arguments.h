// How the distribution's virtiofsd is called: the C one of QEMU (Debian 12) and the Rust one
// (Debian 13) have different options. Pure; used by hull-share.
#pragma once

#include <string>
#include <vector>

namespace hull::engine {

// What both mean: symlinks, owners, modes and extended attributes as they are; every look at a file
// is the host's state of now, because others (the host, other VMs) change it too; separate mounts
// below keep their own inode numbers; the process sees nothing but `folder`, has no network, and
// keeps only the capabilities that changing owners takes.
inline std::vector<std::string> virtiofsdArguments(const std::string& program, int socket,
                                                   const std::string& folder) {
  const std::string fd = "--fd=" + std::to_string(socket);
  if (program.find("/qemu/") != std::string::npos) {
    return {program, fd, "-o",
            "source=" + folder +
                ",sandbox=namespace,cache=auto,timeout=0,xattr,announce_submounts,log_level=warn"};
  }
  return {program,
          fd,
          "--shared-dir=" + folder,
          "--sandbox=namespace",
          "--cache=never",
          "--allow-mmap",
          "--xattr",
          "--announce-submounts",
          "--inode-file-handles=never",
          "--log-level=warn"};
}

}  // namespace hull::engine
