// Temporaries of a store (names starting with kPendingFilePrefix) and who owns them: each is locked
// with flock(2) as long as its process lives, so a start can sweep what a killed one left behind
// without harming a running one. Any thread, any process.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/file.h"

namespace hull::image {

// A file that is being made in `directory`, a folder under the store `root`.
PendingFile makePendingFile(const std::string& root, const std::string& directory);

// A folder that is being made. Destroyed unpublished, it is removed with everything in it.
class PendingFolder {
 public:
  PendingFolder(const std::string& root, const std::string& directory);
  ~PendingFolder();
  PendingFolder(const PendingFolder&) = delete;
  PendingFolder& operator=(const PendingFolder&) = delete;

  const std::string& path() const { return path_; }
  // Syncs and renames it. False when `path` exists already: then this one is dropped.
  bool publish(const std::string& path);

 private:
  std::string path_;
  Fd lock_;
};

// Takes `path` away from under its name at once and removes it; absent is fine.
void removeFolder(const std::string& path);

// Removes the temporaries in `directory` that no living process owns.
void sweepAbandoned(const std::string& root, const std::string& directory);

}  // namespace hull::image
