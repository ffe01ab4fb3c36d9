// Layer limits from text.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/error.h"
#include "image/store/layer_store.h"

namespace hull::image {

namespace {

struct Named {
  std::string_view name;
  uint64_t LayerLimits::*limit;
  uint64_t most;  // beyond it something else gives way
};
constexpr uint64_t kMostBytes = uint64_t{1} << 50;
constexpr Named kNamed[] = {{"blob-bytes", &LayerLimits::max_blob_bytes, kMostBytes},
                            {"unpacked-bytes", &LayerLimits::max_unpacked_bytes, kMostBytes},
                            {"entries", &LayerLimits::max_entries, kMaxEntriesPerLayer},
                            {"index-bytes", &LayerLimits::max_index_bytes, kMostBytes},
                            {"ratio", &LayerLimits::max_ratio, kMostBytes}};

// A number of at least 1, with k, m, g or t for powers of 1024; 0 when it is none.
uint64_t parseAmount(std::string_view text) {
  uint64_t number = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  constexpr std::string_view kLower = "kmgt", kUpper = "KMGT";
  if (failed != std::errc{} || unit.size() > 1) return 0;
  if (unit.empty()) return number;
  const size_t power = std::min(kLower.find(unit[0]), kUpper.find(unit[0]));
  if (power == std::string_view::npos) return 0;
  const unsigned shift = 10 * (static_cast<unsigned>(power) + 1);
  return number > (std::numeric_limits<uint64_t>::max() >> shift) ? 0 : number << shift;
}

}  // namespace

void setLayerLimit(LayerLimits& limits, std::string_view text) {
  const size_t equals = text.find('=');
  const uint64_t amount =
      equals == std::string_view::npos ? 0 : parseAmount(text.substr(equals + 1));
  for (const Named& named : kNamed) {
    if (text.substr(0, equals) != named.name) continue;
    if (amount >= 1 && amount <= named.most) {
      limits.*named.limit = amount;
      return;
    }
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("layer limit \"{}\": expected a number from 1 to {}, like {}=100", text,
                            named.most, named.name));
  }
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("layer limit \"{}\": expected blob-bytes, unpacked-bytes, entries, "
                          "index-bytes or ratio, and =NUMBER",
                          text));
}

}  // namespace hull::image
