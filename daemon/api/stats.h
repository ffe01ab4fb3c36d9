// `docker stats`: what a container's virtual machine takes of the host, read from /proc of its VMM.
#pragma once

#include "daemon/api/http.h"
#include "daemon/engine/engine.h"

namespace hull::engine::api {

void stats(Exchange& exchange, Engine& engine);

}  // namespace hull::engine::api
