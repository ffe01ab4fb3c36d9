#include "registry/server/range.h"

#include <algorithm>
#include <string>

#include "registry/server/message.h"

namespace hull::registry {

std::optional<ByteRange> parseRange(std::string_view header, uint64_t size) {
  if (!header.starts_with("bytes=") || header.find(',') != std::string_view::npos) {
    return std::nullopt;
  }
  header.remove_prefix(6);
  const size_t dash = header.find('-');
  if (dash == std::string_view::npos) return std::nullopt;
  const auto first = parseNumber(header.substr(0, dash));
  const auto last = parseNumber(header.substr(dash + 1));
  const bool suffix = dash == 0;
  if (suffix ? !last : !first || (!last && dash + 1 != header.size())) return std::nullopt;
  if (!suffix && last && *last < *first) return std::nullopt;
  const bool outside = suffix ? *last == 0 || size == 0 : *first >= size;
  if (outside) {
    throw ApiError(416, code::kSizeInvalid, "the range is outside of the blob",
                   {{"Content-Range", "bytes */" + std::to_string(size)}});
  }
  if (suffix) return ByteRange{size - std::min(*last, size), size - 1};
  return ByteRange{*first, std::min(last.value_or(size - 1), size - 1)};
}

}  // namespace hull::registry
