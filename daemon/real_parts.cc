// The parts that are plain functions of other libraries.
#include "daemon/engine/engine_parts.h"

namespace hull::engine {

void useRealParts(EngineParts& parts) {
  parts.pull = registry::pull;
  parts.push = registry::push;
  parts.login = registry::login;
  parts.resolve = registry::resolve;
  parts.parse_auth = registry::parseAuthHeader;
  parts.load = image::loadArchive;
  parts.save = image::saveArchive;
  parts.import_rootfs = image::importRootfs;
  parts.build = build::buildImage;
}

}  // namespace hull::engine
