// The Docker Engine API: every path Hull answers, one file of handlers per area. makeRouter() is
// all that main needs. Handlers run on their connection's thread.
#pragma once

#include "daemon/api/router.h"
#include "daemon/engine/engine.h"

namespace hull::engine::api {

Router makeRouter(Engine& engine);

void addSystemRoutes(Router& router, Engine& engine);
void addContainerRoutes(Router& router, Engine& engine);
void addStreamRoutes(Router& router, Engine& engine);   // attach, logs, wait, exec
void addArchiveRoutes(Router& router, Engine& engine);  // cp, export, changes, commit
void addImageRoutes(Router& router, Engine& engine);
void addTransferRoutes(Router& router, Engine& engine);  // pull, push, load, save, import
void addBuildRoutes(Router& router, Engine& engine);
void addNetworkRoutes(Router& router, Engine& engine);  // networks, swarm's refusals
void addVolumeRoutes(Router& router, Engine& engine);

}  // namespace hull::engine::api
