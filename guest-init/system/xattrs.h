// Extended attributes of a file, as tar carries them. Any process of the guest side.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace hull::guest {

inline constexpr std::string_view kOverlayXattrPrefix = "trusted.overlay.";

// All but overlay's own; empty where the file system has none. `fd` may be O_PATH (needs /proc).
std::map<std::string, std::string> readXattrs(int fd);
// By path, the last component's symlink not followed.
std::map<std::string, std::string> readXattrsOf(const std::string& path);
// One attribute, overlay's own included; empty when absent.
std::string readXattrOf(const std::string& path, const char* name);

// False when the file system does not take such attributes; throws when it should have.
bool setXattr(int fd, const std::string& name, const std::string& value);  // needs /proc
bool setXattrOf(const std::string& path, const std::string& name, const std::string& value);

}  // namespace hull::guest
