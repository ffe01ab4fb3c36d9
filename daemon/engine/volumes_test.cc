#include "daemon/engine/volumes.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"

namespace hull::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class VolumesTest : public ::testing::Test {
 protected:
  VolumesTest() { boot(); }
  void boot() {
    volumes_.reset();
    db_.reset();
    db_ = std::make_unique<StateDb>(root_.path() + "/engine.db");
    volumes_ = std::make_unique<Volumes>(*db_, root_.path(), "/", events_);
  }
  std::string refusal(ErrorKind kind, const std::function<void()>& work) {
    try {
      work();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind) << error.what();
      return error.what();
    }
    return "accepted";
  }
  std::string refusedCreate(const VolumeRequest& request,
                            ErrorKind kind = ErrorKind::kInvalidArgument) {
    return refusal(kind, [&] { volumes_->create(request); });
  }
  std::vector<std::string> entries() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(root_.path() + "/volumes")) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  TemporaryDirectory root_{"hull-volumes"};
  EventBus events_;
  std::unique_ptr<StateDb> db_;
  std::unique_ptr<Volumes> volumes_;
};

TEST_F(VolumesTest, AVolumeIsAFolderUntilItIsRemoved) {
  const VolumeRecord made = volumes_->create({"data", "", {{"k", "v"}}, {}});
  EXPECT_EQ(made.driver, "local");
  EXPECT_EQ(volumes_->mountpoint(made), root_.path() + "/volumes/data/_data");
  struct stat info {};
  ASSERT_EQ(stat(volumes_->mountpoint(made).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0755u);
  ASSERT_EQ(stat((root_.path() + "/volumes").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0077, 0001u) << "nobody lists volumes but root";
  boot();
  EXPECT_EQ(volumes_->get("data").labels.at("k"), "v");
  volumes_->remove("data");
  EXPECT_THAT(entries(), IsEmpty());
  EXPECT_EQ(refusal(ErrorKind::kNotFound, [&] { volumes_->get("data"); }),
            "get data: no such volume");
  boot();
  EXPECT_THAT(volumes_->list(), IsEmpty());
}

TEST_F(VolumesTest, CreatingItAgainChangesNothing) {
  volumes_->create({"data", "", {{"k", "v"}}, {}});
  EXPECT_EQ(volumes_->create({"data", "local", {{"k", "other"}}, {}}).labels.at("k"), "v");
  EXPECT_THAT(refusedCreate({"data", "disk", {}, {}}, ErrorKind::kConflict),
              HasSubstr("already exists with the local driver"));
}

TEST_F(VolumesTest, NamesDriversAndOptionsAreCheckedInDockersWords) {
  EXPECT_THAT(refusedCreate({"a", "", {}, {}}), HasSubstr("volume name is too short"));
  for (const char* name : {"../x", "a/b", ".hidden", "a b", "-x", "\xc3\xa4\xc3\xa4"}) {
    EXPECT_THAT(refusedCreate({name, "", {}, {}}),
                HasSubstr("includes invalid characters for a local volume name"))
        << name;
  }
  EXPECT_THAT(refusedCreate({std::string(256, 'a'), "", {}, {}}), HasSubstr("invalid characters"));
  EXPECT_THAT(refusedCreate({"vol", "nfs", {}, {}}, ErrorKind::kNotFound),
              HasSubstr("plugin \"nfs\" not found"));
  EXPECT_THAT(refusedCreate({"vol", "", {}, {{"colour", "red"}}}),
              HasSubstr("invalid option: \"colour\""));
  EXPECT_THAT(refusedCreate({"vol", "", {}, {{"o", "bind"}}}), HasSubstr("missing device"));
  EXPECT_THAT(refusedCreate({"vol", "", {}, {{"type", "nfs"}, {"o", "addr=x"}, {"device", ":/x"}}},
                            ErrorKind::kNotSupported),
              HasSubstr("--driver disk"));
  EXPECT_THAT(refusedCreate({"vol", "disk", {}, {{"size", "1m"}}}), HasSubstr("16 MiB"));
  EXPECT_THAT(refusedCreate({"vol", "disk", {}, {{"size", "much"}}}), HasSubstr("size"));
  EXPECT_THAT(entries(), IsEmpty());
}

TEST_F(VolumesTest, WhatAContainerUsesStays) {
  volumes_->obtain({"data", "", {}, {}}, "c1");
  volumes_->use("data", "c2");
  EXPECT_EQ(refusal(ErrorKind::kConflict, [&] { volumes_->remove("data"); }),
            "remove data: volume is in use - [c1, c2]");
  volumes_->release("c1");
  EXPECT_THAT(volumes_->usersOf("data"), ElementsAre("c2"));
  volumes_->release("c2");
  volumes_->remove("data");
  EXPECT_THAT(volumes_->list(), IsEmpty());
}

TEST_F(VolumesTest, OneWithoutANameIsLabelledAnonymous) {
  const VolumeRecord made = volumes_->create({});
  EXPECT_EQ(made.name.size(), 64u);
  EXPECT_TRUE(made.labels.contains(kAnonymousLabel));
}

TEST_F(VolumesTest, ADiskIsSparseAndBelongsToOneMachineAtATime) {
  const VolumeRecord disk = volumes_->create({"db", "disk", {}, {{"size", "1g"}}});
  EXPECT_EQ(volumes_->mountpoint(disk), "");
  EXPECT_EQ(fileSize(openFile(volumes_->diskOf(disk), O_RDONLY).get()), uint64_t{1} << 30);
  EXPECT_LT(volumes_->bytesOf(disk), uint64_t{64} << 20);
  volumes_->attachDisks({"db"}, "0123456789abcdef");
  volumes_->attachDisks({"db"}, "0123456789abcdef");
  EXPECT_THAT(refusal(ErrorKind::kConflict, [&] { volumes_->attachDisks({"db"}, "other"); }),
              HasSubstr("container 0123456789ab has it"));
  // Who is about to let go is waited for.
  int looks = 0;
  volumes_->attachDisks({"db"}, "other", [&](const std::string& holder) {
    EXPECT_EQ(holder, "0123456789abcdef");
    if (++looks == 2) volumes_->detachDisks(holder);
    return true;
  });
  EXPECT_EQ(looks, 2);
  refusal(ErrorKind::kConflict, [&] {
    volumes_->attachDisks({"db"}, "third", [](const std::string&) { return false; });
  });
}

TEST_F(VolumesTest, AKilledEnginesRemainsAreSweptAndDataComesBack) {
  const std::string folder = root_.path() + "/volumes/";
  makeDirectories(folder + ".new-1/_data");
  makeDirectories(folder + ".removed-2/_data");
  makeDirectories(folder + "orphan/_data");
  writeFileAtomic(folder + "orphan/_data/precious", "x");
  boot();
  EXPECT_THAT(entries(), ElementsAre("orphan"));
  EXPECT_EQ(volumes_->get("orphan").driver, "local");
  EXPECT_EQ(readFile(folder + "orphan/_data/precious"), "x");
}

TEST_F(VolumesTest, AFolderOfTheHostIsSharedAsItIs) {
  const VolumeRecord made = volumes_->create(
      {"host", "local", {}, {{"type", "none"}, {"o", "bind,ro"}, {"device", "/srv"}}});
  const VmShare share = volumes_->shareOf(made);
  EXPECT_EQ(share.source, "/srv");
  EXPECT_TRUE(share.read_only);
  EXPECT_FALSE(share.recursive);
}

TEST_F(VolumesTest, SizesAddUpWithoutFollowingLinks) {
  const VolumeRecord made = volumes_->create({"data", "", {}, {}});
  const std::string at = volumes_->mountpoint(made);
  writeFileAtomic(at + "/file", std::string(1 << 20, 'x'));
  std::filesystem::create_symlink("/usr", at + "/link");
  EXPECT_GE(volumes_->bytesOf(made), uint64_t{1} << 20);
  EXPECT_LT(volumes_->bytesOf(made), uint64_t{2} << 20);
}

TEST_F(VolumesTest, RequestsAreRead) {
  const VolumeRequest request = parseVolumeRequest(
      R"({"Name":"n","Driver":"disk","DriverOpts":{"size":"1g"},"Labels":null})");
  EXPECT_EQ(request.name, "n");
  EXPECT_EQ(request.options.at("size"), "1g");
  refusal(ErrorKind::kInvalidArgument, [] { parseVolumeRequest(R"({"Name":1})"); });
  refusal(ErrorKind::kInvalidArgument, [] { parseVolumeRequest("["); });
  refusal(ErrorKind::kNotSupported, [] { parseVolumeRequest(R"({"ClusterVolumeSpec":{}})"); });
}

TEST_F(VolumesTest, WithoutFoldersAPlainVolumeIsADisk) {
  volumes_ = std::make_unique<Volumes>(*db_, root_.path(), "/", events_, true);
  for (const char* driver : {"", "local", "disk"}) {  // "local" is what docker sends by itself
    VolumeRequest request;
    request.name = std::string("volume") + driver;
    request.driver = driver;
    EXPECT_EQ(volumes_->create(request).driver, kDiskDriver) << driver;
    EXPECT_EQ(volumes_->create(request).driver, kDiskDriver) << driver;  // and again
  }
  VolumeRequest folder;
  folder.name = "folder";
  folder.options = {{"type", "none"}, {"o", "bind"}, {"device", "/srv"}};
  EXPECT_THAT(refusedCreate(folder, ErrorKind::kNotSupported), HasSubstr("runs as root"));
}

}  // namespace
}  // namespace hull::engine
