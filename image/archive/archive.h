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

// What an imported root file system is to be: Dockerfile instructions (CMD, ENV, …) are applied to
// `config` already.
struct ImportRequest {
  RuntimeConfig config;
  Platform platform;
  std::vector<Reference> names;
  std::string message;
};
// A root file system tar, plain or compressed, as an image of one layer.
Image importRootfs(ImageStore& store, Source& tar, const ImportRequest& request);

}  // namespace hull::image
