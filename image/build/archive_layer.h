// Archives as layers: what is a tar by its content, in any of the compressions ADD knows. Pure but
// for the store. Any thread.
#pragma once

#include <cstdint>
#include <optional>

#include "image/store/layer_store.h"

namespace hull::build {

// The window [offset, offset + size) of `fd` unpacked as a layer without a blob; nullopt when it is
// no tar, plain or compressed by gzip, bzip2, xz or zstd. Throws what breaks a limit.
std::optional<image::IngestedLayer> ingestArchive(image::LayerStore& layers, int fd,
                                                  uint64_t offset, uint64_t size);

}  // namespace hull::build
