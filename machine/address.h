// "ADDRESS:PORT" inside the machine, as streams name their targets. Any thread.
#pragma once

#include <string_view>

#include "base/socket_address.h"

namespace hull::machine {

// Only numbers ("127.0.0.1:8080"): names are the asker's business. Throws kInvalidArgument.
SocketAddress parseTarget(std::string_view target);

}  // namespace hull::machine
