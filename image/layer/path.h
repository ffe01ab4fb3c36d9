// Names from tars as paths of our own: cleaned lexically and clamped at the root, so that no name
// can mean anything outside the image. Pure functions. Target hull_layer_index.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace hull::image {

// "/a/./b/../c/" → "a/c"; "../../x" → "x"; "" and "/" → "". Any byte but NUL and '/' may be part
// of a name. Throws kCorrupt on NUL, on a name over kMaxNameBytes or a path over kMaxPathBytes,
// each allowed `slack` bytes more: a whiteout has a mark in front of the name that it removes.
std::string cleanPath(std::string_view path, size_t slack = 0);

// Whether `path` is what cleanPath returns: the form of Entry::path.
bool isCleanPath(std::string_view path);

// For messages: control characters and quotes escaped, long ones shortened.
std::string quotePath(std::string_view path);

}  // namespace hull::image
