#include "daemon/engine/mount_spec.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include "base/error.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine {

using fields::Json;

namespace {

constexpr std::array<std::string_view, 6> kPropagations{"shared", "rshared", "slave",
                                                        "rslave", "private", "rprivate"};

[[noreturn]] void invalid(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, message);
}
[[noreturn]] void invalidMount(MountType type, const std::string& cause) {
  invalid("invalid mount config for type \"" + std::string(toString(type)) + "\": " + cause);
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (size_t start = 0;;) {
    const size_t end = text.find(separator, start);
    parts.emplace_back(text.substr(start, end - start));
    if (end == std::string_view::npos) return parts;
    start = end + 1;
  }
}

bool contains(const auto& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

// What docker's -v has after the second colon. Each kind of word at most once.
void readMode(const std::string& mode, MountRequest& request) {
  std::set<std::string> kinds;
  const auto once = [&](const char* kind) {
    if (!kinds.insert(kind).second) invalid("invalid mode: " + mode);
  };
  for (const std::string& word : split(mode, ',')) {
    if (word == "ro" || word == "rw") {
      once("access");
      request.read_only = word == "ro";
    } else if (word == "z" || word == "Z") {
      once("label");  // SELinux: nothing to do for a virtual machine
    } else if (contains(kPropagations, word) && request.type == MountType::kBind) {
      once("propagation");
      request.propagation = word;
    } else if (word == "nocopy" && request.type == MountType::kVolume) {
      once("copy");
      request.copy = false;
    } else if (word == "consistent" || word == "cached" || word == "delegated" ||
               word == "default") {
      once("consistency");
    } else {
      invalid("invalid mode: " + mode);
    }
  }
}

void checkPath(MountType type, const std::string& path) {
  if (!path.starts_with('/')) {
    invalidMount(type, "invalid mount path: '" + path + "' mount path must be absolute");
  }
  if (path.size() > kMaxMountPathBytes || path.find('\0') != std::string::npos) {
    invalidMount(type, "invalid mount path: longer than 4096 bytes or with a NUL in it");
  }
}

// From the host to the virtual machine, but never back.
void checkPropagation(MountRequest& request) {
  if (request.type != MountType::kBind) return;
  if (request.propagation.empty()) request.propagation = "rprivate";
  if (!contains(kPropagations, request.propagation)) {
    invalidMount(request.type, "invalid propagation mode: " + request.propagation);
  }
  if (request.propagation.ends_with("shared")) {
    throw Error(ErrorKind::kNotSupported,
                "bind propagation \"" + request.propagation +
                    "\": what a virtual machine mounts cannot appear on the host; use rslave for "
                    "the other direction");
  }
}

void finish(MountRequest& request) {
  if (request.destination.empty()) invalidMount(request.type, "field Target must not be empty");
  checkPath(request.type, request.destination);
  request.destination = cleanPath(request.destination);
  if (request.destination == "/") {
    invalidMount(request.type, "invalid specification: destination can't be '/'");
  }
  if (request.type == MountType::kBind) {
    if (request.source.empty()) invalidMount(request.type, "field Source must not be empty");
    checkPath(request.type, request.source);
    request.source = cleanPath(request.source);
  }
  checkPropagation(request);
}

std::string tmpfsOptions(const Json& mount) {
  std::string options = fields::boolean(mount, "ReadOnly") ? "ro" : "";
  const auto add = [&options](const std::string& option) {
    options += (options.empty() ? "" : ",") + option;
  };
  const Json* tmpfs = fields::find(mount, "TmpfsOptions");
  if (!tmpfs) return options;
  const int64_t size = fields::integer(*tmpfs, "SizeBytes"), mode = fields::integer(*tmpfs, "Mode");
  if (size < 0) invalidMount(MountType::kTmpfs, "field SizeBytes must not be negative");
  if (size > 0) add("size=" + std::to_string(size));
  if (mode > 0) {
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, mode, 8).ptr;
    add("mode=" + std::string(digits, end));
  }
  return options;
}

void readBindOptions(const Json& mount, MountRequest& request) {
  const Json* bind = fields::find(mount, "BindOptions");
  if (!bind) return;
  if (request.type != MountType::kBind) {
    invalidMount(request.type, "field BindOptions must not be specified");
  }
  request.propagation = fields::text(*bind, "Propagation");
  request.recursive = !fields::boolean(*bind, "NonRecursive");
  request.create_source = fields::boolean(*bind, "CreateMountpoint");
  request.recursive_read_only = !fields::boolean(*bind, "ReadOnlyNonRecursive");
}

void readVolumeOptions(const Json& mount, MountRequest& request) {
  const Json* volume = fields::find(mount, "VolumeOptions");
  if (!volume) return;
  if (request.type != MountType::kVolume) {
    invalidMount(request.type, "field VolumeOptions must not be specified");
  }
  request.copy = !fields::boolean(*volume, "NoCopy");
  request.labels = fields::textMap(*volume, "Labels");
  request.subpath = fields::text(*volume, "Subpath");
  const auto parts = split(request.subpath, '/');
  if (request.subpath.starts_with('/') || contains(parts, "..")) {
    invalidMount(request.type, "subpath must be a relative path within the volume");
  }
  if (const Json* driver = fields::find(*volume, "DriverConfig")) {
    request.driver = fields::text(*driver, "Name");
    request.options = fields::textMap(*driver, "Options");
  }
}

MountRequest readMount(const Json& mount) {
  const std::string type = fields::text(mount, "Type");
  MountRequest request;
  if (type == "bind") {
    request.type = MountType::kBind;
  } else if (type == "tmpfs") {
    request.type = MountType::kTmpfs;
  } else if (type == "image" || type == "cluster" || type == "npipe") {
    throw Error(ErrorKind::kNotSupported,
                "mounts of type " + type + " are not supported: use a bind mount or a volume");
  } else if (type != "volume") {
    invalid("invalid mount config for type \"" + type + "\": mount type unknown");
  }
  request.source = fields::text(mount, "Source");
  request.destination = fields::text(mount, "Target");
  request.read_only = fields::boolean(mount, "ReadOnly");
  readBindOptions(mount, request);
  readVolumeOptions(mount, request);
  if (request.type == MountType::kTmpfs) {
    if (!request.source.empty()) {
      invalidMount(request.type, "field Source must not be specified");
    }
    request.tmpfs_options = tmpfsOptions(mount);
  }
  finish(request);
  return request;
}

class Reader {
 public:
  Reader(const Json& config, const Json& host) : config_(config), host_(host) {}

  MountRequests read() {
    for (const std::string& from : fields::texts(host_, "VolumesFrom")) readFrom(from);
    for (const auto& [path, options] : fields::textMap(host_, "Tmpfs")) readTmpfs(path, options);
    const std::string driver = fields::text(host_, "VolumeDriver");
    for (const std::string& bind : fields::texts(host_, "Binds")) {
      MountRequest request = parseBind(bind);
      if (request.type == MountType::kVolume) request.driver = driver;
      add(std::move(request));
    }
    if (const Json* mounts = fields::find(host_, "Mounts")) {
      if (!mounts->is_array()) fields::wrongType("Mounts", "a list");
      for (const Json& mount : *mounts) add(readMount(mount));
    }
    for (const std::string& path : fields::keys(config_, "Volumes")) readImageVolume(path);
    return std::move(requests_);
  }

 private:
  void readFrom(const std::string& text) {
    const size_t colon = text.find(':');
    VolumesFrom from{text.substr(0, colon), false};
    if (from.container.empty()) invalid("malformed volumes-from specification: " + text);
    if (colon != std::string::npos) {
      MountRequest mode;
      readMode(text.substr(colon + 1), mode);
      from.read_only = mode.read_only;
    }
    requests_.from.push_back(std::move(from));
  }

  void readTmpfs(const std::string& path, const std::string& options) {
    if (!path.starts_with('/')) {
      invalid("invalid mount: \"" + path + "\": mount path must be absolute");
    }
    const std::string clean = cleanPath(path);
    if (clean == "/") invalid("invalid specification: destination can't be '/'");
    take(clean);
    requests_.tmpfs[clean] = options;
  }

  void readImageVolume(const std::string& path) {
    MountRequest request;
    request.destination = path;
    finish(request);
    requests_.image_volumes.push_back(request.destination);
  }

  void add(MountRequest request) {
    take(request.destination);
    if (requests_.mounts.size() >= kMaxMounts) invalid("more than 256 mounts");
    if (request.type == MountType::kTmpfs) {
      requests_.tmpfs[request.destination] = request.tmpfs_options;
    }
    requests_.mounts.push_back(std::move(request));
  }

  void take(const std::string& destination) {
    if (!taken_.insert(destination).second) invalid("Duplicate mount point: " + destination);
  }

  const Json& config_;
  const Json& host_;
  MountRequests requests_;
  std::set<std::string> taken_;
};

MountType parseType(const std::string& text) {
  for (const MountType type : {MountType::kBind, MountType::kVolume, MountType::kTmpfs}) {
    if (text == toString(type)) return type;
  }
  throw Error(ErrorKind::kCorrupt, "a container's mounts: unknown type " + text);
}

}  // namespace

std::string_view toString(MountType type) {
  switch (type) {
    case MountType::kBind:
      return "bind";
    case MountType::kVolume:
      return "volume";
    case MountType::kTmpfs:
      return "tmpfs";
  }
  return "";
}

std::string cleanPath(std::string_view path) {
  std::vector<std::string> kept;
  for (std::string& part : split(path, '/')) {
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      kept.push_back(std::move(part));
    } else if (!kept.empty()) {
      kept.pop_back();
    }
  }
  std::string clean;
  for (const std::string& part : kept) clean += "/" + part;
  return clean.empty() ? "/" : clean;
}

MountRequest parseBind(const std::string& text) {
  const auto parts = split(text, ':');
  const std::string wrong = "invalid volume specification: '" + text + "'";
  if (parts.size() > 3 || parts[0].empty()) invalid(wrong);
  MountRequest request;
  if (parts.size() == 1) {
    request.destination = parts[0];
  } else {
    request.source = parts[0];
    request.destination = parts[1];
  }
  if (request.source.starts_with('/')) {
    request.type = MountType::kBind;
    request.create_source = true;
  }
  if (parts.size() == 3) {
    request.mode = parts[2];
    readMode(parts[2], request);
  }
  try {
    finish(request);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInvalidArgument) throw;
    invalid(wrong + ": " + error.what());
  }
  return request;
}

MountRequests readMounts(const Json& config, const Json& host) {
  return Reader(config, host).read();
}

std::string toJson(const std::vector<MountPoint>& mounts) {
  Json list = Json::array();
  for (const MountPoint& mount : mounts) {
    list.push_back({{"type", toString(mount.type)},
                    {"name", mount.name},
                    {"source", mount.source},
                    {"destination", mount.destination},
                    {"driver", mount.driver},
                    {"mode", mount.mode},
                    {"propagation", mount.propagation},
                    {"read_only", mount.read_only},
                    {"create_source", mount.create_source},
                    {"recursive", mount.recursive},
                    {"recursive_read_only", mount.recursive_read_only},
                    {"initialise", mount.initialise},
                    {"own", mount.own},
                    {"subpath", mount.subpath},
                    {"engine", mount.engine}});
  }
  return fields::dump(list);
}

std::vector<MountPoint> parseMountPoints(std::string_view json) {
  if (json.empty()) return {};
  const Json list = Json::parse(json, nullptr, false);
  if (!list.is_array()) throw Error(ErrorKind::kCorrupt, "a container's mounts: no list");
  std::vector<MountPoint> mounts;
  for (const Json& item : list) {
    MountPoint mount;
    mount.type = parseType(fields::text(item, "type"));
    mount.name = fields::text(item, "name");
    mount.source = fields::text(item, "source");
    mount.destination = fields::text(item, "destination");
    mount.driver = fields::text(item, "driver");
    mount.mode = fields::text(item, "mode");
    mount.propagation = fields::text(item, "propagation");
    mount.read_only = fields::boolean(item, "read_only");
    mount.create_source = fields::boolean(item, "create_source");
    mount.recursive = fields::boolean(item, "recursive");
    mount.recursive_read_only = fields::boolean(item, "recursive_read_only");
    mount.initialise = fields::boolean(item, "initialise");
    mount.own = fields::boolean(item, "own");
    mount.subpath = fields::text(item, "subpath");
    mount.engine = fields::boolean(item, "engine");
    mounts.push_back(std::move(mount));
  }
  return mounts;
}

}  // namespace hull::engine
