#include <cstdint>
#include <cstring>
#include <string_view>

#include "registry/server/message.h"
#include "registry/server/range.h"

// The first 8 bytes are the blob's size.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::uint64_t blob = 0;
  if (size < sizeof blob) return 0;
  std::memcpy(&blob, data, sizeof blob);
  const std::string_view header(reinterpret_cast<const char*>(data) + sizeof blob,
                                size - sizeof blob);
  try {
    const auto range = hull::registry::parseRange(header, blob);
    if (range && (range->first > range->last || range->last >= blob)) __builtin_trap();
  } catch (const hull::registry::ApiError& error) {
    if (error.status() != 416) __builtin_trap();
  }
  return 0;
}
