// The SHA-256 of a text, for tests. Any thread.
#pragma once

#include <string_view>

#include "base/hash.h"

namespace hull {

inline Sha256 digestOf(std::string_view text) {
  Hasher hasher;
  hasher.update(text);
  return hasher.finishSha256();
}

}  // namespace hull
