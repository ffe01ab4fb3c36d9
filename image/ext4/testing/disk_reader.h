// Puts a stitched disk together as one file and reads it back with libext2fs, sharing no code with
// the stitcher; and asks e2fsck what it thinks of it. For tests.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/file.h"
#include "image/ext4/stitch.h"

namespace hull::image::testing {

// What e2fsck -fn prints, empty when it is content; kNoE2fsck without the program.
std::string checkDisk(const std::string& path);
inline constexpr const char* kNoE2fsck = "unavailable";

// Copies what is not a hole.
void copySparse(int from, uint64_t from_offset, uint64_t length, int to, uint64_t to_offset);

// A folder with the metadata, the layers' data and the disk made of them.
class Assembly {
 public:
  // Data files of the sizes; what is not written to them reads as zeros.
  explicit Assembly(const std::vector<uint64_t>& data_bytes);

  int data(size_t layer) const { return data_[layer].get(); }
  // Bytes that tell layer and place apart, over the whole of each data file.
  void fillData();
  std::string contentOf(uint32_t layer, uint64_t offset, uint64_t size) const;

  // Stitches, assembles, keeps the result. Once.
  void stitch(const Tree& tree);
  const StitchedDisk& disk() const { return disk_; }
  std::string metadata() const;
  uint64_t metadataBytesAllocated() const;
  std::string path() const { return folder_.path() + "/disk"; }

  std::string check() const { return checkDisk(path()); }

 private:
  TemporaryDirectory folder_;
  std::vector<uint64_t> data_bytes_;
  std::vector<Fd> data_;
  Fd metadata_;
  StitchedDisk disk_;
};
struct ReadNode {
  uint32_t inode = 0;
  uint16_t mode = 0;  // with type bits
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t times[4] = {};  // mtime, ctime, atime, crtime
  uint32_t nanoseconds[4] = {};
  uint32_t links = 0;
  uint32_t flags = 0;
  uint64_t size = 0;
  std::string content;  // of files up to the limit; target of symlinks
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::map<std::string, std::string> xattrs;
};

// Path ("" is the root) → node, everything that is there.
std::map<std::string, ReadNode> readDisk(const std::string& path,
                                         uint64_t content_limit = 16 << 20);

// Some bytes of one file.
std::string readAt(const std::string& disk_path, const std::string& file, uint64_t offset,
                   size_t size);

}  // namespace hull::image::testing
