#include "base/detach_keys.h"

#include <cctype>

#include "base/error.h"

namespace hull {

namespace {

[[noreturn]] void invalid(std::string_view text) {
  throw Error(ErrorKind::kInvalidArgument,
              "invalid detach keys \"" + std::string(text) + "\" (write them like ctrl-p,ctrl-q)");
}

char controlOf(std::string_view key, std::string_view text) {
  constexpr std::string_view kOthers = "@[\\]^_";
  if (key.size() != 1) invalid(text);
  const auto c = static_cast<unsigned char>(key[0]);
  if (std::isalpha(c)) return static_cast<char>(std::tolower(c) - 'a' + 1);
  if (kOthers.find(key[0]) == std::string_view::npos) invalid(text);
  return static_cast<char>(key[0] & 0x1f);
}

}  // namespace

DetachKeys::DetachKeys(std::string_view text) {
  constexpr std::string_view kControl = "ctrl-";
  for (std::string_view rest = text; !rest.empty();) {
    const size_t comma = rest.find(',', 1);  // "," itself is a key
    const std::string_view key = rest.substr(0, comma);
    if (key.starts_with(kControl)) {
      keys_ += controlOf(key.substr(kControl.size()), text);
    } else if (key.size() == 1) {
      keys_ += key;
    } else {
      invalid(text);
    }
    if (keys_.size() > kMaxDetachKeys) invalid(text);
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
    if (rest.empty()) invalid(text);
  }
}

bool DetachKeys::feed(std::string_view input, std::string& pass) {
  pass.clear();
  if (keys_.empty()) {
    pass = input;
    return false;
  }
  for (const char c : input) {
    if (c == keys_[seen_]) {
      if (++seen_ == keys_.size()) return true;
      continue;
    }
    pass.append(keys_, 0, seen_);
    seen_ = c == keys_[0] ? 1 : 0;
    if (seen_ == 0) {
      pass += c;
    } else if (seen_ == keys_.size()) {
      return true;
    }
  }
  return false;
}

}  // namespace hull
