// A build context as a tar stream: a folder without what .dockerignore names. Main thread.
#pragma once

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
void writeContext(const ContextOptions& options, Sink& out);

}  // namespace hull::cli
