// What COPY --chmod and ADD --chmod say: a mode in octal ("755"), or a change of the source's mode
// in symbols ("u+rwX,go-w"), as chmod(1) reads them, without a umask. Pure; the text is untrusted.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace hull::build {

class ModeChange {
 public:
  // Throws kInvalidArgument naming the text.
  static ModeChange parse(std::string_view text);

  // The mode of a file that has `mode` before.
  uint16_t apply(uint16_t mode, bool directory) const;

 private:
  struct Action {
    uint16_t who = 0;           // bits of the mode that may change
    char operation = '=';       // '+', '-', '='
    uint16_t bits = 0;          // r, w, x, s and t, for everyone
    bool search = false;        // X: x of folders and of what somebody may execute already
    uint16_t copied_shift = 0;  // with `copies`: 6, 3, 0 for the bits of u, g, o
    bool copies = false;        // "g=u"
  };
  static void parseClause(std::string_view& rest, std::vector<Action>& actions);

  std::vector<Action> actions_;
};

}  // namespace hull::build
