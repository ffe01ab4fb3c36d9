// What a container asks to have mounted, read from its documents (HostConfig's Binds, Mounts, Tmpfs
// and VolumesFrom, Config's Volumes) with Docker's refusals (moby: volume/mounts/linux_parser.go,
// validate.go); and what it has mounted, which is kept with its record. Pure values and functions;
// the text is a client's.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace hull::engine {

inline constexpr size_t kMaxMounts = 256;  // of one container
inline constexpr size_t kMaxMountPathBytes = 4096;

enum class MountType { kBind, kVolume, kTmpfs };
std::string_view toString(MountType type);  // "bind", "volume", "tmpfs"

struct MountRequest {
  MountType type = MountType::kVolume;
  std::string source;       // bind: a path of the host; volume: a name, empty: a volume of its own
  std::string destination;  // absolute, without "." and ".."
  bool read_only = false;
  std::string mode;            // as -v had it
  std::string propagation;     // bind
  bool create_source = false;  // bind: what is missing becomes a folder
  bool recursive = true;       // bind: with what is mounted below
  bool recursive_read_only = true;
  bool copy = true;     // volume: gets the image's files when it is new
  std::string subpath;  // volume
  std::string driver;   // volume
  std::map<std::string, std::string> labels, options;
  std::string tmpfs_options;
};

struct VolumesFrom {
  std::string container;
  bool read_only = false;
};

struct MountRequests {
  std::vector<VolumesFrom> from;
  std::vector<MountRequest> mounts;          // one for each destination
  std::vector<std::string> image_volumes;    // destinations, where nothing else is mounted
  std::map<std::string, std::string> tmpfs;  // destination → options; those of `mounts` too
};

// Throws kInvalidArgument in Docker's words, kNotSupported with what to do instead.
MountRequests readMounts(const nlohmann::json& config, const nlohmann::json& host);
// "source:destination:mode". Throws as readMounts().
MountRequest parseBind(const std::string& text);

// What a container has mounted: shown by inspect.
struct MountPoint {
  MountType type = MountType::kVolume;
  std::string name;    // of a volume
  std::string source;  // bind: the host's path
  std::string destination;
  std::string driver;
  std::string mode;
  std::string propagation;
  bool read_only = false;
  bool create_source = false;
  bool recursive = true;
  bool recursive_read_only = true;
  bool initialise = false;  // gets the image's files when it is empty; until that was done once
  bool own = false;         // a volume without a given name: removed with the last that has it
  std::string subpath;
  bool engine = false;  // bind: not what is there on the host, but the engine's socket

  bool operator==(const MountPoint&) const = default;
};

// As part of a container's record. The text is the engine's own; what is damaged throws kCorrupt.
std::string toJson(const std::vector<MountPoint>& mounts);
std::vector<MountPoint> parseMountPoints(std::string_view json);

// "/a//b/../c/" → "/a/c".
std::string cleanPath(std::string_view path);

}  // namespace hull::engine
