// Random stacks of layers for property tests: few names, so that paths collide and every rule of
// image/layer/tree.h is met; every entry type; attributes at their edges. The same seed gives the
// same layers.
#pragma once

#include <cstdint>
#include <vector>

#include "image/layer/index.h"

namespace hull::image::testing {

struct RandomShape {
  size_t layers = 3;
  size_t entries_per_layer = 40;
  size_t names = 4;                 // different names per directory
  size_t depth = 4;                 // parts of a path at most
  uint64_t max_file_bytes = 20000;  // content is laid out without gaps or overlaps
  bool odd_names = false;           // any byte, up to 255 of them
};

std::vector<LayerIndex> randomLayers(uint64_t seed, const RandomShape& shape = {});

}  // namespace hull::image::testing
