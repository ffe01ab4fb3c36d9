// `--change` of import and commit: one Dockerfile instruction that alters an image's configuration.
// Pure; the text is untrusted.
#pragma once

#include <string>

#include "image/types/config.h"

namespace hull::engine {

// CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR; throws
// kInvalidArgument on anything else.
void applyChange(const std::string& change, image::RuntimeConfig& config);

}  // namespace hull::engine
