// Images in files: `save`, `load`, `import`. Reads docker-archive (manifest.json) and OCI layout
// tars (oci-layout, index.json), plain or gzip/zstd; writes an archive that is both, as docker ≥ 25
// does. Archives are untrusted. Target hull_image.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/stream.h"
#include "image/store/image_store.h"

namespace hull::image {

// Returns the images with the names the archive gave them. Nothing is recorded when any is bad.
std::vector<Image> loadArchive(ImageStore& store, Source& archive,
                               const ProgressFunction& progress = {});

void saveArchive(ImageStore& store, const std::vector<std::string>& names, Sink& out);

// A root file system tar as a one-layer image; `changes` are Dockerfile instructions (CMD, ENV, …)
// already applied to `config`.
Image importRootfs(ImageStore& store, Source& tar, const RuntimeConfig& config,
                   const std::vector<Reference>& names, const std::string& message);

}  // namespace hull::image
