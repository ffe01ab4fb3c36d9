// Containers: what they have mounted, from the request to the virtual machine.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/error.h"
#include "base/file.h"
#include "base/open_in_root.h"
#include "daemon/engine/containers.h"
#include "daemon/engine/door.h"

namespace hull::engine {

namespace {

constexpr std::chrono::seconds kFillPowerOffTime{60};
constexpr const char* kEngineSocketName = "engine";  // in the guest

// What -v names and is not there becomes a folder, its parents too, as in Docker.
void makeSource(const std::string& host_root, const std::string& path) {
  const Fd root = openFile(host_root, O_PATH | O_DIRECTORY);
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string prefix = path.substr(0, end);
    if (const Fd there = openInRoot(root.get(), prefix, O_PATH); !there) {
      const size_t slash = prefix.rfind('/');
      const Fd parent = openInRoot(root.get(), slash == 0 ? "/" : prefix.substr(0, slash), O_PATH);
      const std::string name = prefix.substr(slash + 1);
      if (!parent || (mkdirat(parent.get(), name.c_str(), 0755) < 0 && errno != EEXIST)) {
        const int cause = errno;
        throw Error(ErrorKind::kInternal, "error while creating mount source path '" + path +
                                              "': " + sysError("mkdir " + prefix, cause).what());
      }
    }
    if (end == std::string::npos) return;
  }
}

Fd openHostRoot(const MountPoint& mount, const std::string& host_root) {
  if (!fileExists(host_root)) {
    throw Error(ErrorKind::kUnavailable,
                "mount " + mount.source +
                    ": the host's files are not shared with this machine (install virtiofsd on the "
                    "host, then: hull machine stop; hull machine start)");
  }
  return openFile(host_root, O_PATH | O_DIRECTORY);
}

void checkSource(const MountPoint& mount, const std::string& host_root) {
  const Fd root = openHostRoot(mount, host_root);
  const Fd source = openInRoot(root.get(), mount.source, O_PATH);
  struct stat info {};
  if (source && fstat(source.get(), &info) == 0 && S_ISSOCK(info.st_mode)) {
    throw Error(ErrorKind::kNotSupported,
                "mount " + mount.source +
                    ": a socket of the host cannot be used in a container, which is a virtual "
                    "machine with a kernel of its own; let the service listen on TCP and reach it "
                    "at host.docker.internal (--add-host host.docker.internal:host-gateway). The "
                    "engine's own socket can be bound: /var/run/docker.sock");
  }
  if (source) return;
  if (mount.create_source) return makeSource(host_root, mount.source);
  throw Error(
      ErrorKind::kInvalidArgument,
      "invalid mount config for type \"bind\": bind source path does not exist: " + mount.source);
}

// Where the source leads on the host, by its links; as it is where there is nothing.
std::string resolvedSource(const std::string& source, const std::string& host_root) {
  if (!fileExists(host_root)) return source;
  const Fd root = openFile(host_root, O_PATH | O_DIRECTORY);
  const Fd place = openInRoot(root.get(), source, O_PATH);
  std::array<char, kMaxMountPathBytes> path;
  const std::string link = "/proc/self/fd/" + std::to_string(place.get());
  const ssize_t size = place ? readlink(link.c_str(), path.data(), path.size()) : -1;
  if (size <= 0) return source;
  const std::string found(path.data(), static_cast<size_t>(size));
  if (host_root == "/") return found;
  return found.starts_with(host_root + "/") ? found.substr(host_root.size()) : source;
}

[[noreturn]] void refuseBind(const MountPoint& mount) {
  throw Error(ErrorKind::kNotSupported,
              "mount " + mount.source +
                  ": showing folders of the host to a container needs an engine that runs as root "
                  "(without root: a volume, which is a disk then, and hull cp)");
}

// The folders that a machine is shown are fixed at its start.
void refuseShares(const std::vector<MountPoint>& points) {
  for (const MountPoint& point : points) {
    if (point.type == MountType::kTmpfs || point.driver == kDiskDriver || point.engine) continue;
    const bool volume = point.type == MountType::kVolume;
    throw Error(ErrorKind::kNotSupported,
                "mount " + (volume ? "volume " + point.name : point.source) + " at " +
                    point.destination +
                    ": a container that joins another one's network runs in that one's virtual "
                    "machine, whose shared folders are fixed when it starts (use a volume of the "
                    "disk driver, hull volume create --driver disk, or hull cp)");
  }
}

MountPoint pointOf(const MountRequest& request) {
  MountPoint point;
  point.type = request.type;
  point.source = request.source;
  point.destination = request.destination;
  point.mode = request.mode;
  point.propagation = request.propagation;
  point.read_only = request.read_only;
  point.create_source = request.create_source;
  point.recursive = request.recursive;
  point.recursive_read_only = request.recursive_read_only;
  point.subpath = request.subpath;
  return point;
}

guest::Mount guestMountOf(const MountPoint& point) {
  guest::Mount mount;
  mount.kind = guest::Mount::Kind::kVirtioFs;
  mount.destination = point.destination;
  mount.options = point.read_only ? "ro" : "";
  mount.initialise = point.initialise;
  mount.subpath = point.subpath;
  return mount;
}

// Replaces what is mounted there, or comes behind the others.
void put(std::vector<MountPoint>& points, MountPoint point) {
  const auto same = std::find_if(points.begin(), points.end(), [&](const MountPoint& each) {
    return each.destination == point.destination;
  });
  if (same == points.end()) {
    points.push_back(std::move(point));
  } else {
    *same = std::move(point);
  }
}

}  // namespace

MountPoint Containers::volumePoint(MountRequest request, const std::string& container,
                                   bool disks_only) {
  const bool there = !request.source.empty() && volumes_.has(request.source);
  if (disks_only && request.driver.empty() && !there) request.driver = kDiskDriver;
  VolumeRequest volume{request.source, request.driver, request.labels, request.options};
  const VolumeRecord record = volumes_.obtain(volume, container);
  MountPoint point = pointOf(request);
  point.name = record.name;
  point.source = volumes_.mountpoint(record);
  point.driver = record.driver;
  point.own = request.source.empty();
  point.initialise = request.copy && volumes_.mayBeEmpty(record);
  return point;
}

// The engine's socket is given to a container that asks for it by name, and to no other.
void Containers::checkBind(MountPoint& point) const {
  point.engine = isEngineSocket(point.source, options_.sockets) ||
                 isEngineSocket(resolvedSource(point.source, options_.host_root), options_.sockets);
  if (point.engine) return;
  if (options_.without_root) refuseBind(point);
  checkSource(point, options_.host_root);
}

// Docker's order: other containers' mounts, what was asked for, what the image wants (moby:
// daemon/volumes.go).
void Containers::resolveMounts(const ContainerSpec& spec, const std::string& container,
                               std::vector<MountPoint>& points) {
  const MountRequests& requests = spec.mounts;
  const bool joins = !spec.joins.empty();
  for (const VolumesFrom& from : requests.from) {
    for (MountPoint point : get(from.container)->mounts()) {
      if (point.type == MountType::kTmpfs) continue;
      point.read_only |= from.read_only;
      point.initialise = false;
      if (point.type == MountType::kVolume) volumes_.use(point.name, container);
      put(points, std::move(point));
    }
  }
  for (const MountRequest& request : requests.mounts) {
    MountPoint point = request.type == MountType::kVolume ? volumePoint(request, container, joins)
                                                          : pointOf(request);
    if (point.type == MountType::kBind) checkBind(point);
    if (point.type == MountType::kVolume && point.mode.empty()) point.mode = "z";  // as Docker
    put(points, std::move(point));
  }
  for (const std::string& destination : requests.image_volumes) {
    const bool taken = requests.tmpfs.contains(destination) ||
                       std::any_of(points.begin(), points.end(), [&](const MountPoint& point) {
                         return point.destination == destination;
                       });
    if (taken) continue;
    MountRequest request;
    request.destination = destination;
    points.push_back(volumePoint(request, container, joins));
  }
  if (points.size() > kMaxMounts) {
    throw Error(ErrorKind::kInvalidArgument, "more than 256 mounts");
  }
  if (joins) refuseShares(points);
}

// By name, each once.
std::vector<std::string> Containers::diskVolumes(const Container& container) const {
  std::vector<std::string> names;
  for (const MountPoint& point : container.mounts()) {
    const bool disk = point.type == MountType::kVolume && point.driver == kDiskDriver;
    if (disk && std::find(names.begin(), names.end(), point.name) == names.end()) {
      names.push_back(point.name);
    }
  }
  return names;
}

VmShare Containers::shareOf(const MountPoint& point) {
  VmShare share;
  if (point.type == MountType::kVolume) {
    share = volumes_.shareOf(volumes_.get(point.name));
  } else {
    checkSource(point, options_.host_root);
    share.source = point.source;
    share.root = options_.host_root;
    share.recursive = point.recursive;
    share.recursive_read_only = point.recursive_read_only;
    share.slave = point.propagation.ends_with("slave");
  }
  // Filling a volume needs it writable: see fillReadOnly.
  share.read_only |= point.read_only && !point.initialise;
  return share;
}

// What the virtual machine gets, and what its guest makes of it.
Containers::GuestMounts Containers::guestMounts(const Container& container) {
  GuestMounts mounts;
  const std::vector<std::string> disks = diskVolumes(container);
  if (disks.size() > Vm::kMaxExtraDisks) {
    throw Error(ErrorKind::kInvalidArgument,
                "more than " + std::to_string(Vm::kMaxExtraDisks) + " volumes of the disk driver");
  }
  for (const std::string& name : disks) {
    mounts.disks.push_back(volumes_.diskOf(volumes_.get(name)));
  }
  for (const MountPoint& point : container.mounts()) {
    if (point.type == MountType::kTmpfs) continue;  // ContainerSpec's
    guest::Mount mount = guestMountOf(point);
    const auto disk = std::find(disks.begin(), disks.end(), point.name);
    if (point.engine) {
      mount.kind = guest::Mount::Kind::kSocket;
      mount.source = kEngineSocketName;
    } else if (point.type == MountType::kVolume && disk != disks.end()) {
      mount.kind = guest::Mount::Kind::kDisk;
      mount.source = Vm::extraDisk(static_cast<size_t>(disk - disks.begin()));
    } else {
      mount.source = std::to_string(mounts.shares.size());
      mounts.shares.push_back(shareOf(point));
    }
    mounts.initialises |= mount.initialise;
    mounts.mounts.push_back(std::move(mount));
  }
  volumes_.attachDisks(disks, container.id(), [this](const std::string& holder) {
    const std::lock_guard lock(mutex_);
    const auto found = containers_.find(holder);
    return found == containers_.end() || !found->second->state().running();
  });
  return mounts;
}

// Serves the engine's API to a container that was given its socket, as to any client.
void Containers::beginSocket(const Container& container, const std::shared_ptr<Run>& run) {
  const auto mounts = container.mounts();
  if (std::none_of(mounts.begin(), mounts.end(), [](const auto& point) { return point.engine; })) {
    return;
  }
  guest::OpenStream stream;
  stream.kind = guest::OpenStream::Kind::kConnection;
  stream.path = kEngineSocketName;
  // The run outlives the socket, which is its own.
  run->serve(std::make_unique<GuestSocket>(
      Fd(), [stream, open = run.get()] { return open->openStream(stream); },
      GuestSocket::Limit{kMaxEngineConnections, tooManyConnections()},
      [this](Fd connection, std::shared_ptr<void> place) {
        door_.enter(std::move(connection), std::move(place));
      }));
}

// New volumes that the container only reads are filled by a machine that runs nothing of it: its
// own then cannot write to them.
void Containers::fillReadOnly(Container& container) {
  const auto mounts = container.mounts();
  const bool any = std::any_of(mounts.begin(), mounts.end(), [](const MountPoint& point) {
    return point.initialise && point.read_only;
  });
  if (!any) return;
  ContainerState ignored;
  const auto vm = boot(container, false, ignored);
  vm->stop(kFillPowerOffTime);
  volumes_.detachDisks(container.id());
}

// The image's files are in its volumes now: what the container deletes there stays deleted.
void Containers::noteInitialised(Container& container) {
  std::vector<MountPoint> mounts = container.mounts();
  for (MountPoint& mount : mounts) mount.initialise = false;
  container.setMounts(std::move(mounts));
  db_.updateDocuments(container.record());
}

void Containers::publishMounts(const Container& container, const char* action) {
  for (const MountPoint& point : container.mounts()) {
    if (point.type != MountType::kVolume) continue;
    std::map<std::string, std::string> more{{"container", container.id()}};
    if (std::string_view(action) == "mount") {
      more["destination"] = point.destination;
      more["read/write"] = point.read_only ? "false" : "true";
      more["propagation"] = point.propagation;
    }
    try {
      volumes_.publish(volumes_.get(point.name), action, std::move(more));
    } catch (const Error&) {
      // Its record is damaged; starting the container says so.
    }
  }
}

void Containers::removeOwnVolumes(const std::vector<MountPoint>& mounts) {
  for (const MountPoint& point : mounts) {
    if (point.type != MountType::kVolume || !point.own) continue;
    try {
      volumes_.remove(point.name);
    } catch (const Error& error) {
      // Another container uses it by now, or somebody removed it.
      if (error.kind() != ErrorKind::kConflict && error.kind() != ErrorKind::kNotFound) throw;
    }
  }
}

}  // namespace hull::engine
