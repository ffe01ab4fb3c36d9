// A stack of layers seen as a file system, read on the host: the tree of the indexes plus the data
// files behind it. What COPY reads from and what user names are looked up in. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "image/layer/tree.h"
#include "image/store/layer_store.h"

namespace hull::build {

struct Owner {
  uint32_t uid = 0;
  uint32_t gid = 0;
};

class RootFs {
 public:
  RootFs(image::LayerStore& layers, std::vector<image::Digest> diff_ids);
  // Of a tree that is made already (a filtered context).
  RootFs(image::LayerStore& layers, std::vector<image::Digest> diff_ids, image::Tree tree);

  const image::Tree& tree() const { return tree_; }
  const std::vector<image::Digest>& layers() const { return diff_ids_; }
  void push(const image::Digest& diff_id);  // one more layer on top

  // The data file that holds a file inode's content.
  int dataFd(const image::Inode& inode);
  std::string readFile(std::string_view path, size_t limit);  // symlinks followed; "" when absent
  std::string contentDigest(const image::Inode& inode);       // sha256 hex of a file's bytes

  // "user[:group]" as --chown takes it: numbers as they are, names from /etc/passwd and /etc/group;
  // a lone user's number is its group's, too. Throws kInvalidArgument naming what is missing.
  Owner lookUpOwner(const std::string& spec);
  // As USER means it: the group of a lone user is the one in /etc/passwd.
  Owner lookUpUser(const std::string& spec);

 private:
  image::LayerStore& store_;
  std::vector<image::Digest> diff_ids_;
  image::Tree tree_;
  std::mutex mutex_;  // data_
  std::map<uint32_t, Fd> data_;
};

// The whole tree as a tar, sorted by path; names of one inode become hard links.
void writeTree(RootFs& root, Sink& out);

}  // namespace hull::build
