// Holds a stitched disk against what it should be: e2fsck, and the plain model. For tests.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "image/ext4/testing/disk_reader.h"
#include "image/layer/testing/plain_tree.h"

namespace hull::image::testing {

// e2fsck is content. Says so on the output where it is not installed.
void expectClean(const Assembly& assembly);

// The disk holds exactly what the plain model says.
void expectSame(const Assembly& assembly, const PlainTree& plain);

// As that, for what was read from any disk; `content` gives what a file should hold.
using ContentFunction = std::function<std::string(const PlainNode& file)>;
void expectSame(const std::map<std::string, ReadNode>& nodes, const ContentFunction& content,
                const PlainTree& plain);

// Stitches the layers and expects both.
void expectStitches(const std::vector<LayerIndex>& layers);

// Pairs of names with one directory hash: a pair that a leaf's end parts must still be found.
std::vector<std::string> collidingNames(size_t pairs);

}  // namespace hull::image::testing
