// RUN --mount=type=…,key=value,…: the flag's text as a value
// (docs.docker.com/reference/dockerfile). Pure functions; the text is untrusted.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace hull::build {

inline constexpr uint16_t kCacheMountMode = 0755;
inline constexpr uint16_t kSecretMode = 0400;
inline constexpr uint16_t kSshSocketMode = 0600;
inline constexpr const char* kDefaultAgent = "default";

struct MountFlag {
  enum class Type { kBind, kCache, kTmpfs, kSecret, kSsh };
  enum class Sharing { kShared, kPrivate, kLocked };
  Type type = Type::kBind;
  std::string id;         // cache: defaults to the cleaned target; secret, ssh
  std::string from;       // bind, cache: a stage, image or named context
  std::string source;     // bind, cache: a path in `from`
  std::string target;     // empty: the default of secret and ssh
  std::string env;        // secret: the variable that holds it
  bool read_only = true;  // bind, cache
  Sharing sharing = Sharing::kShared;
  bool required = false;    // secret, ssh
  uint64_t size_bytes = 0;  // tmpfs; 0: no limit of its own
  std::optional<uint16_t> mode;
  uint32_t uid = 0;
  uint32_t gid = 0;
};

// Values go through `expand`, but for "from", which takes no variables. Throws kInvalidArgument
// with the cause only; callers add file and line. Targets stay relative when they are written so.
MountFlag parseMount(std::string_view text,
                     const std::function<std::string(const std::string&)>& expand);

// The "from" of a mount, unexpanded; empty when there is none.
std::string mountFrom(std::string_view text);

// "64m" → bytes (Docker's units: b, k, m, g, t).
uint64_t parseByteSize(const std::string& text, const std::string& what);

}  // namespace hull::build
