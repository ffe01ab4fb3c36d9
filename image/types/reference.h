// Image references as Docker users write them, normalised: "debian" is
// docker.io/library/debian:latest (distribution/reference grammar). Pure values.
#pragma once

#include <string>
#include <string_view>

#include "image/types/digest.h"

namespace hull::image {

struct Reference {
  std::string registry;    // "docker.io", "localhost:5000"
  std::string repository;  // "library/debian"
  std::string tag;         // "latest"; empty only with a digest
  Digest digest;           // empty unless written as name@digest

  // Throws kInvalidArgument, saying which part is wrong: upper case, length over 255, bad
  // characters.
  static Reference parse(std::string_view text);

  std::string name() const;          // "docker.io/library/debian"
  std::string text() const;          // "docker.io/library/debian:latest[@sha256:…]"
  std::string familiarName() const;  // "debian", "localhost:5000/hello"
  std::string familiar() const;      // "debian:latest", "localhost:5000/hello@sha256:…"

  auto operator<=>(const Reference&) const = default;
};

}  // namespace hull::image
