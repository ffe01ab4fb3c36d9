// Dockerfile text through the parser and the stage planner.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "image/build/dockerfile.h"
#include "image/build/stages.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto file =
        hull::build::parseDockerfile("Dockerfile", {reinterpret_cast<const char*>(data), size});
    hull::build::planStages(file, {{"A", "x"}}, "");
  } catch (const hull::Error&) {
  }
  return 0;
}
