// .dockerignore rules (Docker's moby/patternmatcher semantics): later rules win, "!" re-includes,
// "**" spans folders, a match of a parent counts. Target hull_dockerignore (base only): the client
// uses it when it packs a context. Pure values.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace hull::build {

inline constexpr size_t kMaxIgnoreBytes = 1 << 20;
inline constexpr size_t kMaxIgnorePatterns = 10'000;

class IgnoreRules {
 public:
  // Throws kInvalidArgument with `file` and the line's number.
  static IgnoreRules parse(std::string_view text, const std::string& file = ".dockerignore");

  bool excludes(std::string_view path) const;  // relative, cleaned path
  // No path below this excluded folder can be re-included: a walker may skip it.
  bool prunes(std::string_view directory) const;

 private:
  struct Pattern {
    std::vector<std::string> parts;  // path components, each a glob; "**" spans any number
    bool exception = false;          // written with "!"
  };
  std::vector<Pattern> patterns_;
};

}  // namespace hull::build
