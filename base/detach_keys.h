// Docker's detach keys ("ctrl-p,ctrl-q"): what a user types to leave an attached terminal without
// ending its process. Used by the client and, for clients that do not look themselves, by the
// engine. One object per attached input; one thread.
#pragma once

#include <string>
#include <string_view>

namespace hull {

inline constexpr std::string_view kDefaultDetachKeys = "ctrl-p,ctrl-q";
inline constexpr size_t kMaxDetachKeys = 16;

class DetachKeys {
 public:
  // Comma-separated keys: one character, or ctrl- with a letter or one of @ [ \ ] ^ _. Empty text:
  // never detaches. Throws kInvalidArgument.
  explicit DetachKeys(std::string_view text);

  // True when the keys were typed. `pass` gets the bytes meant for the process: what might be the
  // beginning of the keys is held back until that is known.
  bool feed(std::string_view input, std::string& pass);

 private:
  std::string keys_;
  size_t seen_ = 0;  // of keys_
};

}  // namespace hull
