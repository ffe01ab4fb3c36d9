// A build context as a tar stream: a folder without what .dockerignore names. Main thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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
};
ContextCost writeContext(const ContextOptions& options, Sink& out);

}  // namespace hull::cli
