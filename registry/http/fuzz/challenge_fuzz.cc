#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "registry/http/challenge.h"
#include "registry/http/url.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto& challenge : hull::registry::parseChallenges(text)) {
    if (challenge.scheme.empty()) __builtin_trap();
    try {
      const auto url = hull::registry::Url::parse(challenge.parameter("realm"));
      // What was understood once is understood the same way again.
      const auto again = hull::registry::Url::parse(url.text());
      if (!again.sameOrigin(url) || again.target != url.target) __builtin_trap();
      url.resolve(text.substr(0, 64));
    } catch (const hull::Error&) {
    }
  }
  return 0;
}
