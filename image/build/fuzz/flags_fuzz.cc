// Values of flags of RUN and COPY: --mount and --chmod.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "image/build/chmod.h"
#include "image/build/mounts.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace hull::build;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const MountFlag mount = parseMount(text, [](const std::string& word) {
      return word.starts_with('$') ? "/" + word.substr(1) : word;
    });
    require(mount.from.find('$') == std::string::npos);
    require(mount.mode.value_or(0) <= 07777);
  } catch (const hull::Error&) {
  }
  try {
    const ModeChange change = ModeChange::parse(text);
    for (const uint16_t mode : {uint16_t{0}, uint16_t{0644}, uint16_t{07777}})
      require(change.apply(mode, true) <= 07777 && change.apply(mode, false) <= 07777);
  } catch (const hull::Error&) {
  }
  return 0;
}
