// Draws the engine's progress objects: a line per layer that is rewritten in place on a terminal,
// one plain line per change of status elsewhere. Main thread.
#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace hull::cli {

// How far one transfer is: a bar, its rate since its present status began and, once a second of
// that has passed, the time that is left.
class TransferProgress {
 public:
  // `now` in seconds of any clock; a `total` of 0 is unknown.
  std::string line(const std::string& status, uint64_t current, uint64_t total, double now);

 private:
  std::string status_;
  uint64_t began_at_ = 0;  // bytes there were then already
  double began_ = 0;
};

class ProgressDisplay {
 public:
  explicit ProgressDisplay(std::FILE* out);
  void show(
      const nlohmann::json& event);  // {"status", "id", "progressDetail": {"current", "total"}}

 private:
  void rewrite(const std::string& id, const std::string& line);
  std::FILE* out_;
  bool terminal_;
  std::vector<std::string> order_;  // ids, top to bottom
  std::map<std::string, TransferProgress> transfers_;
  std::map<std::string, std::string> statuses_;  // last status printed of each, when not a terminal
};

}  // namespace hull::cli
