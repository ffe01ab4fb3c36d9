// The pieces of a layer index's encoding, for the one writer that streams it (image/store): the
// header, then `count` entries. Pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "image/layer/index.h"

namespace hull::image {

inline constexpr size_t kMaxSymlinkBytes = 4095;  // PATH_MAX with its NUL

std::string encodeIndexHeader(uint64_t count, uint64_t data_bytes);
void encodeEntry(ByteWriter& out, const Entry& entry);

}  // namespace hull::image
