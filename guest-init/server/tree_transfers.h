// What each chunked kind of OpenStream does. The event loop's thread; the work itself runs in the
// transfer's child process.
#pragma once

#include <memory>

#include "guest-init/container/container.h"
#include "guest-init/server/transfer.h"

namespace hull::guest {

// Throws before anything is started when the request cannot be served.
std::unique_ptr<Transfer> makeTreeTransfer(Container& container, const Frame& frame,
                                           const OpenStream& request, Fd socket);

}  // namespace hull::guest
