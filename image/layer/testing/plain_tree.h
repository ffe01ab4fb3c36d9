// Applies layers the obvious way: one flat map from path to attributes, every rule a scan of it.
// Written from the rules in image/layer/tree.h and sharing no code with Tree, so that the two check
// each other. For tests; slow by design.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "image/layer/index.h"

namespace hull::image::testing {

struct PlainNode {
  Entry attributes;    // path is not meaningful: a hardlinked node has several
  uint32_t layer = 0;  // whose data file holds the content
};

// Path ("" is the root) → node; hardlinks share the node.
using PlainTree = std::map<std::string, std::shared_ptr<PlainNode>>;

PlainTree applyPlainly(const std::vector<LayerIndex>& layers);

}  // namespace hull::image::testing
