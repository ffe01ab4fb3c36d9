// -v, --mount and --tmpfs in docker's words, as the engine's API has them. Relative paths become
// the client's (docker/cli: opts/mount.go, cli/compose/loader/volume.go). Pure but for the paths
// given.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace hull::cli {

struct ClientPaths {
  std::string working_directory;
  std::string home;
};
ClientPaths clientPaths();  // of this process

// "./data" → "/work/data"; what is no path of the client stays as it is.
std::string absoluteSource(const std::string& source, const ClientPaths& paths);

// -v source:/destination[:options] is one of HostConfig.Binds; -v /destination one of
// Config.Volumes.
void addVolumeOption(const std::string& text, const ClientPaths& paths, nlohmann::json& config,
                     nlohmann::json& host);
// --mount type=…,source=…,target=… as one of HostConfig.Mounts. Throws hull::Error
// (kInvalidArgument) naming the field.
nlohmann::json mountOption(const std::string& text, const ClientPaths& paths);

}  // namespace hull::cli
