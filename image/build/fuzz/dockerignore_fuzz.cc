// .dockerignore text, then a path: parse and match must end and stay in bounds.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "image/build/dockerignore.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto rules = hull::build::IgnoreRules::parse(text);
    rules.excludes(text.substr(0, 64));
    rules.prunes("a/b");
  } catch (const hull::Error&) {
  }
  return 0;
}
