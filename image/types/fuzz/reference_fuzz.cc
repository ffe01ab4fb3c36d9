// Whatever parses must be its own normal form.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "image/types/reference.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using hull::image::Reference;
  try {
    const auto reference =
        Reference::parse(std::string_view(reinterpret_cast<const char*>(data), size));
    if (Reference::parse(reference.text()) != reference) abort();
    if (Reference::parse(reference.familiar()) != reference) abort();
  } catch (const hull::Error& error) {
    if (error.kind() != hull::ErrorKind::kInvalidArgument) abort();
  }
  return 0;
}
