// Builds an image from a Dockerfile and a context. COPY, ADD, WORKDIR and metadata are done on the
// host over trees of layer indexes; only RUN needs a VM, through StepRunner. Steps are cached by
// content (<store root>/build.db). One call, one thread of control; it may use more inside.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/stream.h"
#include "image/build/step_runner.h"
#include "image/store/image_store.h"

namespace hull::build {

struct BuildRequest {
  std::string dockerfile_path = "Dockerfile";  // inside the context
  std::vector<image::Reference> tags;
  std::map<std::string, std::string> build_args;
  std::map<std::string, std::string> labels;
  std::string target;
  bool no_cache = false;
  bool pull = false;
  bool network = true;
  uint64_t memory_bytes = 0;
  std::vector<std::string> extra_hosts;
};

// What the build reports, in order. The API turns it into Docker's classic JSON stream.
struct BuildEvent {
  enum class Kind {
    kStepStarted,   // text: "Step 3/7 : RUN make"
    kStepCached,    //
    kStepFinished,  // id: short id of the intermediate result
    kOutput,        // text of a RUN; stream says which
    kWarning,       // text
    kFinished,      // id: the image
  };
  Kind kind;
  std::string text;
  OutputStream stream = OutputStream::kStdout;
  std::string id;
};
using EventFunction = std::function<void(const BuildEvent&)>;

struct BuildHooks {
  // FROM of an image that is not in the store, or with pull: fetches it.
  std::function<image::Image(const image::Reference&, const image::Platform&)> pull_image;
  EventFunction report;
  std::function<bool()> cancelled;
};

// `context` is a tar (plain, gzip, zstd), ignore rules already applied by the client and applied
// again here. Throws hull::Error; Dockerfile errors read "Dockerfile:3:5: …" with the line quoted
// and a caret below.
image::Image buildImage(image::ImageStore& store, StepRunner& runner, Source& context,
                        const BuildRequest& request, const BuildHooks& hooks);

}  // namespace hull::build
