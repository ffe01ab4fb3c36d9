#include "image/types/digest.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace hull::image {

namespace {

constexpr std::string_view kSha256Prefix = "sha256:";
constexpr std::string_view kSha512Prefix = "sha512:";
constexpr size_t kSha256HexDigits = 64;
constexpr size_t kSha512HexDigits = 128;
constexpr size_t kShortHexDigits = 12;
constexpr size_t kMaxQuotedBytes = 160;  // of wrong input in a message

bool isLowerHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool isDigest(std::string_view text) {
  if (text.starts_with(kSha256Prefix)) {
    text.remove_prefix(kSha256Prefix.size());
    return text.size() == kSha256HexDigits && isLowerHex(text);
  }
  if (text.starts_with(kSha512Prefix)) {
    text.remove_prefix(kSha512Prefix.size());
    return text.size() == kSha512HexDigits && isLowerHex(text);
  }
  return false;
}

}  // namespace

Digest Digest::parse(std::string_view text) {
  if (!isDigest(text)) {
    throw Error(ErrorKind::kInvalidArgument,
                "parse digest \"" + std::string(text.substr(0, kMaxQuotedBytes)) +
                    "\": expected sha256:<64 lower-case hex digits> or sha512:<128>");
  }
  return Digest(std::string(text));
}

Digest Digest::ofSha256Hex(std::string hex) {
  return parse(std::string(kSha256Prefix) + hex);
}

Digest Digest::of(std::string_view content) {
  return ofSha256Hex(sha256Hex(content));
}

std::string_view Digest::algorithmName() const {
  return std::string_view(text_).substr(0, text_.find(':'));
}

HashAlgorithm Digest::algorithm() const {
  return text_.starts_with(kSha512Prefix) ? HashAlgorithm::kSha512 : HashAlgorithm::kSha256;
}

std::string_view Digest::hex() const {
  if (text_.empty()) return {};
  return std::string_view(text_).substr(text_.find(':') + 1);
}

std::string Digest::shortHex() const {
  return std::string(hex().substr(0, kShortHexDigits));
}

}  // namespace hull::image
