// Lines on the VM's console, hull-init's standard error. Control characters are escaped, so that
// hostile text cannot forge lines. (base/log.h would pull time zones and scanf into the static
// program, a tenth of its size.) Any process of the guest side.
#pragma once

#include <string_view>

namespace hull::guest {

void note(std::string_view message);

}  // namespace hull::guest
