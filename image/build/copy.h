// COPY and ADD on the host: selects entries of a source tree and makes of them the layer that puts
// them into a destination tree. No file system is touched; both sides are layer indexes. Pure but
// for reading contents. One thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/stream.h"
#include "image/build/chmod.h"
#include "image/build/dockerignore.h"
#include "image/build/rootfs.h"

namespace hull::build {

inline constexpr size_t kMaxCopiedEntries = 4'000'000;

struct CopyRequest {
  std::vector<std::string> sources;  // paths or globs in the source tree; ".." stops at its root
  std::string destination;           // absolute or relative to working_directory
  std::string working_directory;     // of the destination
  std::optional<Owner> owner;        // --chown; otherwise 0:0
  std::optional<ModeChange> mode;    // --chmod
  bool keep_owner = false;           // an unpacked archive: owners as they are in it
  // --link: the layer does not depend on what is below it. Symlinks of the destination are not
  // followed, and parents are in no layer of ours: whoever applies it makes missing ones.
  bool link = false;
  bool parents = false;              // --parents: sources keep their folders; "/./" starts them
  std::vector<std::string> exclude;  // --exclude, .dockerignore patterns
  int64_t now_seconds = 0;           // the time of folders that are made
};

// One entry of the layer to be, and where its content is.
struct CopiedEntry {
  image::Entry entry;
  const image::Inode* source = nullptr;  // files with content
};

class CopyPlan {
 public:
  // Throws kNotFound for a source that is not there, kInvalidArgument for what cannot be.
  CopyPlan(RootFs& source, const RootFs& destination, const CopyRequest& request);

  const std::vector<CopiedEntry>& entries() const { return entries_; }
  // Over everything that decides the layer but times: the cache's key.
  std::string contentKey() const;
  void write(image::LayerTarWriter& tar) const;  // several plans may share one layer

 private:
  struct Match {
    std::string path;
    image::InodeNumber number;
  };
  void findTarget();
  std::vector<Match> matches(const std::string& pattern) const;
  std::vector<Match> expandPart(const std::vector<Match>& level, const std::string& part) const;
  void copyMatch(const Match& match);
  void copyWithParents(const Match& match, size_t skipped);
  void copyFile(const Match& match);
  void copyContents(image::InodeNumber directory, const std::string& target,
                    const std::string& relative);
  bool excluded(const std::string& full, const std::string& relative) const;
  image::InodeNumber existing(const std::string& path) const;  // in the destination
  void add(image::InodeNumber number, const std::string& target);
  void addParents(const std::string& target);
  void addDirectory(const std::string& target, const image::Inode* like);
  void setOwner(image::Entry& entry) const;
  void setMode(image::Entry& entry) const;

  RootFs& source_;
  const RootFs& destination_;
  CopyRequest request_;
  IgnoreRules exclude_;
  std::string target_;  // cleaned destination
  bool into_directory_ = false;
  std::vector<CopiedEntry> entries_;
  std::map<std::string, bool> made_;  // directories the layer holds already
};

// The directory layer that WORKDIR makes; empty when all of it is there.
std::vector<image::Entry> missingDirectories(const RootFs& root, const std::string& path,
                                             Owner owner);

// "a/../b//c" → "b/c"; ".." stops at the root.
std::string cleanPath(std::string_view path);

// Where `path` is, seen from `working_directory`; without a leading slash.
std::string joinPath(const std::string& working_directory, const std::string& path);

// Of an inode, for a path of its own.
image::Entry entryOf(const image::Inode& inode, const std::string& path);

}  // namespace hull::build
