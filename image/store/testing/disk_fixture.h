// From tars to a disk that libext2fs reads: the whole way of a layer through the stores, for tests
// of what a layer may hold.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "image/ext4/testing/disk_reader.h"
#include "image/layer/testing/tar_builder.h"
#include "image/store/image_store.h"

namespace hull::image::testing {

class DiskTest : public ::testing::Test {
 protected:
  TemporaryDirectory folder_{"hull-disk-test"};
  ImageStore store_{folder_.path() + "/store"};
  std::vector<Digest> layers_;  // ingested so far, lowest first

  void ingest(Source& stream) {
    const IngestedLayer layer = store_.layers().ingest(stream, KeepBlob::kNo);
    layers_.push_back(layer.diff_id);
    pins_.push_back(layer.pin);
  }
  void ingest(const std::string& stream) {
    StringSource source(stream);
    ingest(source);
  }

  // The disk of the layers so far, assembled as one file. e2fsck is content with it.
  std::string disk() {
    const RootDisk root = store_.rootDisk(layers_);
    const std::string path = folder_.path() + "/disk" + std::to_string(disks_++);
    const Fd out = openFile(path, O_RDWR | O_CREAT | O_EXCL);
    if (::ftruncate(out.get(), static_cast<off_t>(root.disk_bytes)) != 0)
      throw sysError("size " + path);
    for (const RootDisk::Segment& segment : root.segments) {
      const Fd from = openFile(segment.path, O_RDONLY);
      copySparse(from.get(), segment.file_offset, segment.length, out.get(), segment.disk_offset);
    }
    const std::string complaint = checkDisk(path);
    if (complaint == kNoE2fsck)
      std::cout << "SKIPPED CHECK: e2fsck (package e2fsprogs) is not installed\n";
    else
      EXPECT_EQ(complaint, "");
    return path;
  }

  std::map<std::string, ReadNode> read() { return readDisk(disk()); }

  // What is there, as "path" or "path=content" for files and links.
  std::vector<std::string> listing() {
    std::vector<std::string> lines;
    for (const auto& [path, node] : read()) {
      const bool directory = (node.mode & 0170000) == 0040000;
      if (!path.empty()) lines.push_back(directory ? path : path + "=" + node.content);
    }
    return lines;
  }

 private:
  std::vector<std::shared_ptr<void>> pins_;
  int disks_ = 0;
};

}  // namespace hull::image::testing
