// What a registry needs to know of a pushed manifest, whatever its kind: image, index, artifact.
// Untrusted JSON; its bytes are stored as they came. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "registry/server/repositories.h"

namespace hull::registry {

// Everything but the tag. `content_type` is the request's header and may be empty. `digest` is that
// of `bytes`. Throws ApiError 400 (MANIFEST_INVALID).
NewManifest readManifest(std::string_view bytes, const image::Digest& digest,
                         std::string_view content_type);

}  // namespace hull::registry
