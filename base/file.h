// Whole files and folders, with the durability rules written once: what is published under its
// final name is complete and on disk. Any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/fd.h"

namespace hull {

std::string readFile(const std::string& path, size_t limit_bytes = size_t{64} << 20);
bool fileExists(const std::string& path);

// Writes a temporary sibling, fsyncs it, renames it over `path`, fsyncs the folder.
void writeFileAtomic(const std::string& path, std::string_view contents, mode_t mode = 0644);

void makeDirectories(const std::string& path, mode_t mode = 0755);
void syncDirectory(const std::string& path);
void renameDurably(const std::string& from, const std::string& to);  // rename + fsync of the folder

// A file being made: nameless to others until publish(). Destroyed unpublished, it is removed.
class PendingFile {
 public:
  // Creates "<directory>/.tmp-<random>"; sweepers may delete such names when no process owns them.
  explicit PendingFile(const std::string& directory, mode_t mode = 0644);
  PendingFile(PendingFile&& other) noexcept;
  PendingFile& operator=(PendingFile&&) = delete;
  ~PendingFile();

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }
  void publish(const std::string& path);  // fsync, rename, fsync folder

 private:
  std::string path_;
  Fd fd_;
};
inline constexpr std::string_view kPendingFilePrefix = ".tmp-";

// Removed with everything in it on destruction.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const std::string& prefix = "hull");  // under $TMPDIR or /tmp
  TemporaryDirectory(const std::string& parent, const std::string& prefix);
  TemporaryDirectory(TemporaryDirectory&& other) noexcept : path_(std::move(other.path_)) {
    other.path_.clear();
  }
  TemporaryDirectory& operator=(TemporaryDirectory&&) = delete;
  ~TemporaryDirectory();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace hull
