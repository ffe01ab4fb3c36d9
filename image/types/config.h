// The image configuration (OCI image-spec config.md plus Docker's additions): what runs by default,
// and which layers make the file system. Parsed from untrusted JSON. Pure values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "image/types/digest.h"
#include "image/types/manifest.h"

namespace hull::image {

struct HealthCheck {
  std::vector<std::string> test;  // {"NONE"}, {"CMD", …}, {"CMD-SHELL", "…"}
  int64_t interval_ns = 0;
  int64_t timeout_ns = 0;
  int64_t start_period_ns = 0;
  int64_t start_interval_ns = 0;
  int64_t retries = 0;
};

struct RuntimeConfig {  // "config" of the document; Docker's container Config shares it
  std::string user;
  std::vector<std::string> env;  // "K=V", order kept
  std::optional<std::vector<std::string>> entrypoint;
  std::optional<std::vector<std::string>> cmd;
  std::string working_dir;
  std::map<std::string, std::string> labels;
  std::vector<std::string> exposed_ports;  // "80/tcp", sorted
  std::vector<std::string> volumes;        // sorted
  std::string stop_signal;
  std::vector<std::string> shell;
  std::vector<std::string> on_build;
  std::optional<HealthCheck> health_check;
};

struct HistoryEntry {
  std::string created;  // RFC 3339
  std::string created_by;
  std::string author;
  std::string comment;
  bool empty_layer = false;
};

inline constexpr size_t kMaxCacheSteps = 10'000;
inline constexpr size_t kMaxCacheTextBytes = 1024;  // of a step's description

// A build step that the image's layers can stand in for (hull build --cache-to): its key, and what
// it made. Only builds read it, and only those that name the image.
struct CacheStep {
  std::string key;          // 64 hexadecimal digits
  std::string created;      // RFC 3339
  std::string description;  // "RUN make"
  // Of diff_ids; none: the step changed the configuration only.
  std::optional<size_t> layer;
};

struct ImageConfig {
  Platform platform;
  std::string created;  // RFC 3339
  std::string author;
  RuntimeConfig config;
  std::vector<Digest> diff_ids;
  std::vector<HistoryEntry> history;
  std::vector<CacheStep> build_cache;  // "hull.build.cache.v1" of the document
};

ImageConfig parseImageConfig(std::string_view json);
std::string toJson(const ImageConfig& config);

}  // namespace hull::image
