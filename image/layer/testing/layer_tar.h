// A layer's index turned back into the tar it could have come from, by the plainest means: PAX
// records for everything. Shares no code with LayerTarWriter. For tests.
#pragma once

#include <functional>
#include <string>

#include "image/layer/index.h"

namespace hull::image::testing {

// `content` gives the bytes of a file. Whiteouts and opaque markers become members named as AUFS
// did.
std::string tarOfLayer(const LayerIndex& layer,
                       const std::function<std::string(const Entry& file)>& content);

}  // namespace hull::image::testing
