// Bodies of container create and exec create: anything must be a specification or an Error.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "daemon/engine/containers.h"
#include "daemon/engine/execs.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  image::RuntimeConfig image;
  image.cmd = {"sh"};
  try {
    const auto documents = engine::completeDocuments(text, image);
    const auto spec = engine::specOf(documents);
    (void)engine::createMessage(spec, "host", "10.0.0.2", "10.0.0.1", true);
    (void)engine::mainProcess(spec, "host");
  } catch (const Error&) {
    // Refused.
  }
  try {
    (void)engine::parseExecSpec(text);
  } catch (const Error&) {
    // Refused.
  }
  return 0;
}
