// Draws the engine's progress objects: a line per layer that is rewritten in place on a terminal,
// one plain line per change of status elsewhere. Main thread.
#pragma once

#include <cstdio>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace hull::cli {

class ProgressDisplay {
 public:
  explicit ProgressDisplay(std::FILE* out);
  void show(
      const nlohmann::json& event);  // {"status", "id", "progressDetail": {"current", "total"}}

 private:
  void rewrite(const std::string& id, const std::string& line);
  std::FILE* out_;
  bool terminal_;
  std::vector<std::string> order_;               // ids, top to bottom
  std::map<std::string, std::string> statuses_;  // last status printed of each, when not a terminal
};

}  // namespace hull::cli
