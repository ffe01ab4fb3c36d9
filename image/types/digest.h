// Content digests as OCI writes them ("sha256:<64 hex>", "sha512:<128 hex>"; OCI image-spec
// descriptor.md). A Digest is valid by construction, so its text can be used as a file name.
#pragma once

#include <compare>
#include <string>
#include <string_view>

#include "base/hash.h"

namespace hull::image {

class Digest {
 public:
  Digest() = default;                          // empty: no digest
  static Digest parse(std::string_view text);  // throws kInvalidArgument on anything else
  static Digest ofSha256Hex(std::string hex);
  static Digest of(std::string_view content);  // sha256 of the bytes

  bool empty() const { return text_.empty(); }
  const std::string& text() const { return text_; }  // "sha256:ab…"
  std::string_view algorithmName() const;            // "sha256"
  HashAlgorithm algorithm() const;
  std::string_view hex() const;
  std::string shortHex() const;  // first 12

  auto operator<=>(const Digest&) const = default;

 private:
  explicit Digest(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

}  // namespace hull::image
