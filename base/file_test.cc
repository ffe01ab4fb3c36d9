#include "base/file.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace hull {
namespace {

TEST(File, AtomicWriteReplacesAndLeavesNoTemporary) {
  const TemporaryDirectory folder("hull-file-test");
  const std::string path = folder.path() + "/f";
  writeFileAtomic(path, "one");
  writeFileAtomic(path, "two");
  EXPECT_EQ(readFile(path), "two");
  size_t entries = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path()))
    ++entries;
  EXPECT_EQ(entries, 1u);
}

TEST(File, AnUnpublishedFileIsRemoved) {
  const TemporaryDirectory folder("hull-file-test");
  std::string path;
  {
    const PendingFile pending(folder.path());
    path = pending.path();
    EXPECT_TRUE(fileExists(path));
  }
  EXPECT_FALSE(fileExists(path));
}

TEST(File, ReadRefusesMoreThanItsLimit) {
  const TemporaryDirectory folder("hull-file-test");
  writeFileAtomic(folder.path() + "/f", "12345");
  EXPECT_EQ(readFile(folder.path() + "/f", 5), "12345");
  try {
    readFile(folder.path() + "/f", 4);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kTooLarge);
  }
}

TEST(File, MakesFoldersWithTheirParents) {
  const TemporaryDirectory folder("hull-file-test");
  makeDirectories(folder.path() + "/a/b/c");
  makeDirectories(folder.path() + "/a/b/c");
  EXPECT_TRUE(std::filesystem::is_directory(folder.path() + "/a/b/c"));
}

}  // namespace
}  // namespace hull
