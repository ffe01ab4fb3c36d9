// Variable expansion and word splitting.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "image/build/words.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto lookup = [](std::string_view name) {
    return name.size() % 2 == 0 ? std::nullopt
                                : std::optional<std::string>(std::string(name) + "/v.x");
  };
  try {
    for (const auto& word : hull::build::splitWords(text, '\\'))
      hull::build::expandWord(word, '\\', lookup);
    hull::build::expandText(text, '`', lookup);
    hull::build::splitPairs(text, '\\', true);
  } catch (const hull::Error&) {
  }
  return 0;
}
