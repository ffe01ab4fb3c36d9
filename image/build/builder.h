// Builds an image from a Dockerfile and a context. COPY, ADD, WORKDIR and metadata are done on the
// host over trees of layer indexes; only RUN needs a VM, through StepRunner. Steps are cached by
// content (<store root>/build.db). Calls from any thread.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
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
  bool lean_context = false;  // the tar is a lean one (lean_tar.h), and its files are kept
  // Instead of the tar: a git repository, or the address of a tar or of a single Dockerfile.
  std::string remote_context;
  bool check_only = false;  // report what the build checks find, build nothing
  bool no_cache = false;
  std::set<std::string> no_cache_stages;  // names, lower case, or numbers
  bool pull = false;
  bool network = true;
  std::string platform = "linux/amd64";
  // Named contexts (lower case): "docker-image://ref", an address of git or HTTP, or
  // "context://folder" for a folder of the context's tar that is then no part of the main context.
  std::map<std::string, std::string> contexts;
  std::map<std::string, std::string> secrets;               // by id; in memory only
  std::map<std::string, std::shared_ptr<SshAgent>> agents;  // by id
  std::string git_protocols;  // GIT_ALLOW_PROTOCOL of ADD; empty: those of the network
  uint64_t memory_bytes = 0;
  std::vector<std::string> extra_hosts;
  // Caches of elsewhere (--cache-from): images by name or id, fetched when they are not in the
  // store, or always when `fetch`. One that cannot be had is a warning.
  struct CacheSource {
    std::string image;
    bool fetch = false;
  };
  std::vector<CacheSource> cache_from;
  bool inline_cache = false;  // the image is a cache, too (--cache-to type=inline)
};

// Steps of a build for elsewhere (--cache-to): those of the result, or all.
enum class CacheMode { kMin, kMax };

// What the build reports, in order. The API turns it into Docker's classic JSON stream.
struct BuildEvent {
  enum class Kind {
    kStepStarted,    // text: "Step 3/7 : RUN make"
    kStepCached,     //
    kStepFinished,   // id: short id of the intermediate result
    kStageFinished,  // no step of `stage` follows
    kOutput,         // text of a RUN; stream says which
    kWarning,        // text; of a build check with its rule as `name`, id: its page, line
    kFinished,       // id: the image
  };
  Kind kind;
  std::string text = {};
  OutputStream stream = OutputStream::kStdout;
  std::string id = {};
  uint64_t vertex = 0;    // the step the event belongs to, 1, 2, …; 0: the build
  int stage = -1;         // of the Dockerfile; -1: the build
  std::string name = {};  // kStepStarted: "[builder 2/4] RUN make"
  int line = 0;
};
// Called from the threads of the stages, one at a time.
using EventFunction = std::function<void(const BuildEvent&)>;

struct BuildHooks {
  // FROM of an image that is not in the store, or with pull: fetches it.
  std::function<image::Image(const image::Reference&, const image::Platform&)> pull_image;
  EventFunction report;
  std::function<bool()> cancelled;
  // With `cache_mode`: the image that holds the build's cache, nameless; before buildImage returns.
  std::optional<CacheMode> cache_mode;
  std::function<void(const image::Image&)> deliver_cache;
};

// `context` is a tar (plain, gzip, zstd), ignore rules already applied by the client and applied
// again here. Stages that do not need each other are built in parallel. Throws hull::Error;
// Dockerfile errors read "Dockerfile:3:5: …" with the line quoted and a caret below.
//
// With check_only the result is empty, and a Dockerfile with warnings is kInvalidArgument.
image::Image buildImage(image::ImageStore& store, StepRunner& runner, Source& context,
                        const BuildRequest& request, const BuildHooks& hooks);

}  // namespace hull::build
