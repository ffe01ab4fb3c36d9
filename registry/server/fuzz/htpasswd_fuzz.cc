#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "registry/server/passwords.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const hull::registry::Passwords passwords(text);
    for (const auto& name : passwords.users()) {
      const auto rest = hull::registry::withoutUser(text, name);
      if (!rest) __builtin_trap();  // whoever is listed can be removed
      for (const auto& other : hull::registry::Passwords(*rest).users()) {
        if (other == name) __builtin_trap();
      }
    }
  } catch (const hull::Error&) {
  }
  return 0;
}
