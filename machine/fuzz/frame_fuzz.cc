// Bytes from a hostile machine, in reads of uneven sizes.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "machine/exec.h"
#include "machine/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hull::machine::FrameParser parser;
  hull::machine::ExecParser exec([](hull::machine::ExecChannel, std::string_view) {});
  bool exec_good = true;
  for (size_t at = 0; at < size && !parser.failed();) {
    const auto space = parser.space();
    const size_t step = std::min({space.size(), size - at, size_t{1} + data[at] % 97});
    std::memcpy(space.data(), data + at, step);
    parser.commit(step);
    at += step;
    while (const auto frame = parser.next()) {
      if (frame->payload.size() > hull::machine::kMaxPayloadBytes) abort();
      exec_good = exec_good && exec.feed(frame->payload);
    }
  }
  return 0;
}
