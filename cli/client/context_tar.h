// A build context as a tar stream: a folder without what .dockerignore names. One thread.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/stream.h"

namespace hull::cli {

// Writes the folder's files, sorted, owned by 0:0, to `out`. The Dockerfile and the ignore file
// always travel. `dockerfile` is relative to `folder`, or absolute and outside it: then it travels
// as `outside_name`. Throws naming the file that cannot be read.
struct ContextOptions {
  std::string folder;
  std::string dockerfile;          // relative to the folder; empty when outside
  std::string outside_dockerfile;  // contents, when it is not in the folder
  std::string outside_name;
  std::string outside_ignore = {};  // <Dockerfile>.dockerignore beside it; empty: the folder's own
  // Folders of named contexts (--build-context): each below `prefix`, with its own ignore file.
  struct Folder {
    std::string folder;
    std::string prefix;
  };
  std::vector<Folder> others = {};
};

// What packing took. Of an ignored folder not even the names are read, unless a rule with "!" may
// want something in it; of an ignored file nothing but its name.
struct ContextCost {
  size_t names = 0;      // read from folders
  size_t inspected = 0;  // names whose attributes were read
  size_t entries = 0;    // sent
  uint64_t bytes = 0;    // of files, read and sent
  uint64_t named = 0;    // bytes of files that were named only
};
ContextCost writeContext(const ContextOptions& options, Sink& out);

// The same tar as a lean one (image/build/lean_tar.h): where `held` knows a digest for a file's
// attributes, the engine has the content and it is named.
using HeldFunction = std::function<std::optional<Sha256>(const struct stat& info)>;
ContextCost writeLeanContext(const ContextOptions& options, const HeldFunction& held, Sink& out);

// The regular files of the context, with their attributes.
struct ContextFile {
  std::string path;
  struct stat info;
};
std::vector<ContextFile> contextFiles(const ContextOptions& options);

}  // namespace hull::cli
