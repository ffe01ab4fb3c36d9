// The user's host inside the machine: virtiofsd on "/", behind hull-share, for bind mounts. The
// emulator has the other end as its vhost-user-fs device. As root owners and permissions are the
// host's; another user gets a user namespace (his own files are root's inside, others' are read as
// far as everybody may). Without virtiofsd there is no share, and bind mounts say so. Owned by the
// supervisor; one thread.
#pragma once

#include <optional>
#include <string>

#include "base/fd.h"
#include "base/subprocess.h"
#include "machine/paths.h"

namespace hull::machine {

inline constexpr const char* kHostShareTag = "hullhost";  // what the machine mounts

class HostShare {
 public:
  // nullopt, and a line in the log that says why, when this host cannot. `errors`: where it writes
  // what goes wrong later.
  static std::optional<HostShare> start(const MachinePaths& paths,
                                        const std::string& payload_directory, int errors);

  Fd& connection() { return connection_; }  // the emulator's
  bool ended() const;
  const Subprocess& process() const { return process_; }

 private:
  HostShare(Fd connection, Subprocess process)
      : connection_(std::move(connection)), process_(std::move(process)) {}

  Fd connection_;
  Subprocess process_;
};

}  // namespace hull::machine
