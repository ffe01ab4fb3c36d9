#include "base/open_in_root.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <thread>

#include "base/file.h"

namespace hull {
namespace {

TEST(OpenInRoot, NothingLeadsOut) {
  const TemporaryDirectory folder("hull-fd-test");
  makeDirectories(folder.path() + "/root/a");
  writeFileAtomic(folder.path() + "/outside", "");
  writeFileAtomic(folder.path() + "/root/inside", "");
  const Fd root = openFile(folder.path() + "/root", O_PATH | O_DIRECTORY);
  EXPECT_TRUE(openInRoot(root.get(), "", O_PATH));
  EXPECT_TRUE(openInRoot(root.get(), "a/../../../inside", O_RDONLY));
  EXPECT_FALSE(openInRoot(root.get(), "../outside", O_RDONLY));
  EXPECT_EQ(errno, ENOENT);
  ASSERT_EQ(symlink((folder.path() + "/outside").c_str(), (folder.path() + "/root/link").c_str()),
            0);
  EXPECT_FALSE(openInRoot(root.get(), "link", O_RDONLY));
}

// The kernel gives up on ".." with EAGAIN whenever something, anywhere, is renamed meanwhile.
TEST(OpenInRoot, WhatIsThereIsFoundWhileOthersRename) {
  const TemporaryDirectory folder("hull-fd-test");
  makeDirectories(folder.path() + "/a/b");
  writeFileAtomic(folder.path() + "/file", "");
  std::atomic<bool> done = false;
  std::thread renamer([&] {
    const std::string one = folder.path() + "/one", two = folder.path() + "/two";
    makeDirectories(one);
    while (!done) {
      rename(one.c_str(), two.c_str());
      rename(two.c_str(), one.c_str());
    }
  });
  const Fd root = openFile(folder.path(), O_PATH | O_DIRECTORY);
  std::string path;
  for (int i = 0; i < 40; ++i) path += "a/b/../../";
  int opened = 0;
  constexpr int kTimes = 2000;
  for (int i = 0; i < kTimes; ++i) opened += openInRoot(root.get(), path + "file", O_PATH).valid();
  done = true;
  renamer.join();
  EXPECT_EQ(opened, kTimes);
}

}  // namespace
}  // namespace hull
