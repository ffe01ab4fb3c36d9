#include <cstdint>
#include <string_view>

#include "registry/server/token.h"

// Claims behind a good signature come from a trusted issuer; the rest of a token does not. Both
// parsers see every input.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const hull::registry::TokenKeys keys(
      "-----BEGIN PUBLIC KEY-----\n"
      "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEPjlqHjJZbBXkuy/gUPmPVq+SG3BH\n"
      "jgdAcaJsgNSNol//z9ibctdZBoeUPcDswkkmngT/3qopXMjnW9o/yAV1Uw==\n"
      "-----END PUBLIC KEY-----\n");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (keys.verify(text, "issuer", "service", 1000)) __builtin_trap();  // nobody has that key
  const auto claims = hull::registry::parseClaims(text, "service");
  if (claims && (claims->expires < 0 || claims->not_before < 0 ||
                 claims->grants.size() > hull::registry::kMaxTokenGrants)) {
    __builtin_trap();
  }
  if (const auto scope = hull::registry::parseScope(text)) {
    if (scope->actions.size() > hull::registry::kMaxTokenGrants) __builtin_trap();
  }
  return 0;
}
