// What `hull build` was asked for, and the parts of it: where the context comes from, where
// the result goes. Main thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/stream.h"
#include "cli/commands/context.h"

namespace hull::cli {

struct BuildOptions {
  std::vector<std::string> tags, build_args, labels, add_hosts, secrets, ssh, outputs,
      build_contexts, no_cache_filter, cache_from, cache_to;
  std::string dockerfile, target, network = "default", memory, iidfile, metadata_file, platform,
                                  progress = "auto";
  bool no_cache = false, pull = false, quiet = false, rm = true, check = false, load = false;
  std::string context;
};

using Query = std::vector<std::pair<std::string, std::string>>;

// The request's body, and the query's part that tells of it.
struct BuildContext {
  std::unique_ptr<Source> body;  // null: the engine fetches the context
  std::string type = "application/x-tar";
  Query query;
  // Of a lean context: the bytes of its files, and how many of them the engine has; and the body
  // when the engine then says that it has not.
  uint64_t bytes = 0, held = 0;
  std::function<std::unique_ptr<Source>()> whole;
};
BuildContext openBuildContext(const EngineClient& engine, const BuildOptions& options);

// A folder as a tar, whole.
std::unique_ptr<Source> openFolder(const std::string& folder);

// --cache-from and --cache-to, as the query tells of them. Folders are in the engine already, as
// nameless images that go when the build is over.
struct BuildCaches {
  Query query;
  std::vector<std::string> loaded;  // images by id
  std::string folder;               // where the build's cache goes; empty: nowhere here
};
BuildCaches openBuildCaches(const EngineClient& engine, const BuildOptions& options);
void writeCacheFolder(const EngineClient& engine, const std::string& image,
                      const std::string& folder);

// --output: "type=local,dest=d", a lone folder, or "-" for a tar on standard output.
struct BuildOutput {
  enum class Type { kImage, kLocal, kTar, kOci, kDocker };
  Type type = Type::kImage;
  std::string destination;  // "-": standard output
  std::string name;         // type=image: one more tag
};
BuildOutput parseOutput(const std::string& text);

// Unpacks the tar that GET `target` answers.
void unpackAnswer(const EngineClient& engine, const std::string& target, const std::string& folder);

// Brings the image where `output` says.
void writeOutput(const EngineClient& engine, const BuildOutput& output, const std::string& image,
                 const std::vector<std::string>& tags);

}  // namespace hull::cli
