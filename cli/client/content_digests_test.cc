#include "cli/client/content_digests.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/testing/digest_of.h"

namespace hull::cli {
namespace {

class Digests : public ::testing::Test {
 protected:
  struct stat put(const std::string& text) {
    const Fd file = openFile(file_, O_WRONLY | O_CREAT | O_TRUNC);  // the same inode
    writeFull(file.get(), text);
    return attributes();
  }
  struct stat attributes() const {
    struct stat info {};
    EXPECT_EQ(lstat(file_.c_str(), &info), 0);
    return info;
  }
  // A run of its own, so many seconds after the file was changed last.
  ContentDigests run(int64_t later) {
    return ContentDigests(cache_, [later] { return time(nullptr) + later; });
  }
  // Whether a next run knows the file without reading it.
  bool remembered(const struct stat& info) { return run(100).known(info).has_value(); }
  TemporaryDirectory folder_{"hull-digests-test"};
  const std::string file_ = folder_.path() + "/file";
  std::string cache_ = folder_.path() + "/cache/of/it";
};

TEST_F(Digests, AFileIsReadOnce) {
  const struct stat info = put("content");
  ContentDigests first = run(100);
  EXPECT_EQ(first.known(info), std::nullopt);
  EXPECT_EQ(first.of(file_, info), digestOf("content"));
  EXPECT_EQ(first.of(file_, info), digestOf("content"));
  EXPECT_EQ(first.known(info), digestOf("content"));
  EXPECT_EQ(first.filesRead(), 1u);
  first.save();
  ContentDigests second = run(100);
  EXPECT_EQ(second.of(file_, info), digestOf("content"));
  EXPECT_EQ(second.filesRead(), 0u);
}

TEST_F(Digests, OneThatWasJustChangedIsReadAgain) {
  const struct stat info = put("content");
  ContentDigests racy = run(0);
  EXPECT_EQ(racy.of(file_, info), digestOf("content"));
  EXPECT_EQ(racy.known(info), digestOf("content"));  // for this run it counts
  racy.save();
  EXPECT_FALSE(remembered(info));
  ContentDigests later = run(100);
  later.of(file_, info);
  later.save();
  EXPECT_TRUE(remembered(info));
}

TEST_F(Digests, AChangeOfTheSameSizeAndTimeIsSeen) {
  struct stat info = put("content");
  ContentDigests first = run(100);
  first.of(file_, info);
  first.save();
  put("another");
  const timespec times[2] = {info.st_atim, info.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, file_.c_str(), times, 0), 0);
  info.st_size = 7;
  const struct stat now = attributes();
  EXPECT_EQ(now.st_mtim.tv_nsec, info.st_mtim.tv_nsec);
  // The kernel's clock may not have ticked between the two; a change later than that has another
  // time, which nobody can set.
  struct stat ticked = now;
  if (ticked.st_ctim.tv_nsec == info.st_ctim.tv_nsec) ++ticked.st_ctim.tv_sec;
  EXPECT_FALSE(remembered(ticked));
}

TEST_F(Digests, WhatChangesWhileItIsReadIsNotKnown) {
  struct stat info = put("content");
  info.st_size = 6;  // it has grown since it was looked at
  ContentDigests digests = run(100);
  EXPECT_EQ(digests.of(file_, info), std::nullopt);
  EXPECT_EQ(digests.known(info), std::nullopt);
  EXPECT_EQ(digests.known(attributes()), std::nullopt);
  EXPECT_THROW(digests.of(file_ + ".gone", info), Error);
}

TEST_F(Digests, ADamagedCacheIsEmptyAndAnImpossibleOneNoError) {
  const struct stat info = put("content");
  ContentDigests digests = run(100);
  digests.of(file_, info);
  digests.save();
  const std::string whole = readFile(cache_);
  for (const size_t size : {size_t{0}, size_t{5}, whole.size() - 1}) {
    writeFileAtomic(cache_, std::string_view(whole).substr(0, size));
    EXPECT_FALSE(remembered(info)) << size;
  }
  writeFileAtomic(cache_, whole);
  EXPECT_TRUE(remembered(info));
  cache_ = file_ + "/below/a/file";
  ContentDigests nowhere = run(100);
  EXPECT_EQ(nowhere.of(file_, info), digestOf("content"));
  nowhere.save();
}

TEST_F(Digests, WhatNoRunAskedForIsForgotten) {
  const struct stat info = put("content");
  ContentDigests first = run(100);
  first.of(file_, info);
  first.save();
  run(100).save();
  EXPECT_FALSE(remembered(info));
}

}  // namespace
}  // namespace hull::cli
