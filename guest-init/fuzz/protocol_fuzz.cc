// Whatever decodes must encode to the same bytes: the encoding has one form only.

#include <cstdlib>
#include <string_view>

#include "guest-init/protocol/protocol.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull::guest;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (size < kFrameHeaderBytes) return 0;
  const auto header = decodeHeader(input.substr(0, kFrameHeaderBytes));
  if (!header) return 0;
  const auto frame = decodePayload(*header, input.substr(kFrameHeaderBytes));
  if (frame && encode(*frame) != input) std::abort();
  return 0;
}
