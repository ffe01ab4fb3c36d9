// --cache-from with an image that says nothing of its steps but its history, as the classic builder
// takes it: one made by docker build, or pulled. A stage that begins as the image does follows its
// history step by step. A RUN is found by its command, because everything before it was the same;
// what the host makes (COPY, ADD, WORKDIR) only when the image's layer holds just what the step
// makes, whatever the history says. The first step that differs ends it. A stage's own; one thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "image/build/cache.h"
#include "image/build/rootfs.h"
#include "image/store/image_store.h"

namespace hull::build {

// "RUN /bin/sh -c make # buildkit" and the classic builder's "/bin/sh -c make" alike; of its
// "/bin/sh -c #(nop)  ENV A=1" what is behind the sign.
std::string plainHistory(std::string_view created_by);

// Do the two layers make the same of what is below? Times do not count.
bool sameOn(const RootFs& below, image::LayerStore& layers, const image::Digest& one,
            const image::Digest& other);

class HistoryFollower {
 public:
  // `history` and `layers` are what a stage begins with. Nothing when the image begins otherwise,
  // or its history does not fit its layers.
  static std::optional<HistoryFollower> begin(const image::Image& image,
                                              const std::vector<image::HistoryEntry>& history,
                                              const std::vector<image::IngestedLayer>& layers);

  // The layer of the next step, when that made one.
  std::optional<CachedStep> layer() const;
  // Does the image itself have all of these variables ("A=1")?
  bool has(const std::vector<std::string>& variables) const;
  bool isNext(std::string_view created_by) const;
  // Behind a step of the stage; false when the image is another from here on. `by_text`: a step
  // that makes no layer is the same when its text is.
  bool advance(std::string_view created_by, const std::optional<image::Digest>& layer,
               bool by_text);

 private:
  struct Step {
    std::string created_by;  // plain
    std::string created;
    std::optional<image::IngestedLayer> layer;
  };
  std::vector<Step> steps_;               // those of the image behind the stage's beginning
  std::vector<std::string> environment_;  // the image's
  size_t next_ = 0;
};

}  // namespace hull::build
