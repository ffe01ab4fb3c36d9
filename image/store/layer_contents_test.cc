// Everything a layer can hold, from the bytes of the tar to the disk as libext2fs reads it.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "base/subprocess.h"
#include "image/ext4/testing/layer_maker.h"
#include "image/store/testing/disk_fixture.h"

namespace hull::image {
namespace {

using testing::DiskTest;
using ::testing::ElementsAre;
using testing::ReadNode;
using testing::TarBuilder;
using testing::TarMember;

using LayerContents = DiskTest;

TEST_F(LayerContents, AWhiteoutHidesLowerLayersAndWhatStoodBeforeItInItsOwn) {
  ingest(TarBuilder()
             .directory("d")
             .file("d/old", "1")
             .file("d/both", "1")
             .file("d/stays", "1")
             .end());
  ingest(TarBuilder()
             .file("d/.wh.old", "")
             .file("d/.wh.both", "")
             .file("d/both", "2")  // after its whiteout: stays
             .file("d/new", "2")
             .file("d/.wh.new", "")  // after it: goes
             .file(".wh.nothing", "")
             .end());
  EXPECT_THAT(listing(), ElementsAre("d", "d/both=2", "d/stays=1"));
}

TEST_F(LayerContents, AWhiteoutRemovesWholeTreesAndTheirMetadataOnly) {
  ingest(TarBuilder().directory("d").directory("d/e").file("d/e/f", "1").file("dd", "1").end());
  ingest(TarBuilder().file(".wh.d", "").end());
  EXPECT_THAT(listing(), ElementsAre("dd=1"));
}

TEST_F(LayerContents, AnOpaqueMarkerHidesLowerLayersFromAnyPlaceInTheTar) {
  const std::string lower =
      TarBuilder().directory("d").file("d/low", "1").directory("d/sub").file("d/sub/x", "1").end();
  const TarMember marker{"d/.wh..wh..opq"};
  const std::string orders[] = {TarBuilder().directory("d").add(marker).file("d/high", "2").end(),
                                TarBuilder().directory("d").file("d/high", "2").add(marker).end(),
                                TarBuilder().add(marker).directory("d").file("d/high", "2").end(),
                                TarBuilder().file("d/high", "2").directory("d").add(marker).end()};
  for (const std::string& upper : orders) {
    layers_.clear();
    ingest(lower);
    ingest(upper);
    EXPECT_THAT(listing(), ElementsAre("d", "d/high=2"));
  }
}

TEST_F(LayerContents, TheLongestNamesAndPathsCanBeRemovedToo) {
  const std::string name(255, 'n');
  std::string folder(254, 'a');
  while (folder.size() + 256 <= 3900) folder += "/" + std::string(255, 'b');
  folder += "/" + std::string(100, 'm');
  folder += "/" + std::string(4096 - folder.size() - 1, 'c');
  ASSERT_EQ(folder.size(), 4096u);
  const size_t slash = folder.rfind('/');
  ingest(TarBuilder().file(name, "1").pax({{"path", folder}}).directory("x").end());
  ingest(TarBuilder()
             .pax({{"path", ".wh." + name}})
             .file("x", "")
             .pax({{"path", folder + "/.wh..wh..opq"}})
             .file("x", "")
             .pax({{"path", folder.substr(0, slash + 1) + ".wh." + folder.substr(slash + 1)}})
             .file("x", "")
             .end());
  const auto nodes = read();
  EXPECT_FALSE(nodes.contains(name));
  EXPECT_FALSE(nodes.contains(folder));
  EXPECT_TRUE(nodes.contains(folder.substr(0, slash)));
  EXPECT_THROW(ingest(TarBuilder().pax({{"path", ".wh." + name + "n"}}).file("x", "").end()),
               Error);
}

TEST_F(LayerContents, AufsBookkeepingIsLeftOut) {
  ingest(TarBuilder()
             .directory(".wh..wh.plnk")
             .file(".wh..wh.plnk/1.2", "x")
             .file(".wh..wh.aufs", "")
             .file("kept", "1")
             .end());
  EXPECT_THAT(listing(), ElementsAre("kept=1"));
}

TEST_F(LayerContents, HardlinksAreOneInodeWithinAndAcrossLayers) {
  ingest(TarBuilder().file("a", "one").hardlink("b", "a").hardlink("d/c", "./b").end());
  ingest(TarBuilder().hardlink("e", "/d/c").file("b", "two").hardlink("f", "b").end());
  auto nodes = read();
  for (const char* name : {"d/c", "e"}) EXPECT_EQ(nodes.at(name).inode, nodes.at("a").inode);
  EXPECT_EQ(nodes.at("a").links, 3u);
  EXPECT_EQ(nodes.at("a").content, "one");
  EXPECT_EQ(nodes.at("f").inode, nodes.at("b").inode);
  EXPECT_EQ(nodes.at("f").content, "two");
}

TEST_F(LayerContents, SpecialFilesCanBeHardlinked) {
  ingest(TarBuilder()
             .add({"fifo", '6'})
             .hardlink("fifo2", "fifo")
             .symlink("link", "to/nowhere")
             .hardlink("link2", "link")
             .end());
  auto nodes = read();
  EXPECT_EQ(nodes.at("fifo").inode, nodes.at("fifo2").inode);
  EXPECT_EQ(nodes.at("link").inode, nodes.at("link2").inode);
  EXPECT_EQ(nodes.at("link2").content, "to/nowhere");
}

TEST_F(LayerContents, SymlinksOfEveryLengthPointWhereTheySay) {
  TarBuilder tar;
  std::map<std::string, std::string> targets;
  for (const size_t length : {size_t{1}, size_t{59}, size_t{60}, size_t{100}, size_t{4095}}) {
    const std::string name = "l" + std::to_string(length);
    targets[name] = std::string(length, 'x');
    tar.pax({{"linkpath", targets[name]}}).symlink(name, "short");
  }
  targets["up"] = "../../../../etc/passwd";
  tar.symlink("up", targets["up"]);
  targets["bytes"] = "\xff\x01 \n";
  tar.symlink("bytes", targets["bytes"]);
  ingest(tar.end());
  auto nodes = read();
  for (const auto& [name, target] : targets) {
    EXPECT_EQ(nodes.at(name).content, target);
    EXPECT_TRUE(S_ISLNK(nodes.at(name).mode));
  }
}

TEST_F(LayerContents, DevicesAndFifosKeepTypeAndNumbers) {
  ingest(TarBuilder()
             .add({"null", '3', "", "", 0666, 0, 0, 1, 1, 3})
             .add({"disk", '4', "", "", 0660, 0, 6, 1, 259, 70000})
             .add({"most", '3', "", "", 0600, 0, 0, 1, 4095, 1048575})
             .add({"fifo", '6', "", "", 0622})
             .end());
  auto nodes = read();
  EXPECT_EQ(nodes.at("null").mode, S_IFCHR | 0666);
  EXPECT_EQ(nodes.at("disk").mode, S_IFBLK | 0660);
  EXPECT_EQ(nodes.at("fifo").mode, S_IFIFO | 0622);
  const auto numbers = [&](const char* name) {
    return std::pair(nodes.at(name).device_major, nodes.at(name).device_minor);
  };
  EXPECT_EQ(numbers("null"), std::pair(1u, 3u));
  EXPECT_EQ(numbers("disk"), std::pair(259u, 70000u));
  EXPECT_EQ(numbers("most"), std::pair(4095u, 1048575u));
}

TEST_F(LayerContents, EveryExtendedAttributeArrives) {
  const std::string capability("\1\0\0\2\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  // Where an entry has no id the kernel's form says -1, which libext2fs reads back as 0.
  const std::string acl =
      testing::acl({{1, 6, 0}, {2, 4, 1000}, {4, 4, 0}, {8, 5, 77}, {0x10, 7, 0}, {0x20, 4, 0}});
  const std::vector<std::pair<std::string, std::string>> wanted = {
      {"security.capability", capability},
      {"security.selinux", std::string("system_u:object_r:bin_t:s0\0", 27)},
      {"system.posix_acl_access", acl},
      {"trusted.x", "t"},
      {"user.bytes", std::string("\0=\n\xff", 4)},
      {"user.empty", ""},
      {"user.large", std::string(3000, 'l')}};
  std::vector<std::pair<std::string, std::string>> records;
  for (const auto& [name, value] : wanted) records.emplace_back("SCHILY.xattr." + name, value);
  ingest(TarBuilder().pax(records).file("f", "x").pax(records).directory("d").end());
  auto nodes = read();
  const std::map<std::string, std::string> expected(wanted.begin(), wanted.end());
  EXPECT_EQ(nodes.at("f").xattrs, expected);
  EXPECT_EQ(nodes.at("d").xattrs, expected);
}

TEST_F(LayerContents, SetuidSetgidStickyAndLargeOwnersArrive) {
  ingest(TarBuilder()
             .add({"setuid", '0', "x", "", 04755, 0, 0})
             .add({"setgid", '5', "", "", 02775, 0, 50})
             .add({"sticky", '5', "", "", 01777})
             .add({"nothing", '0', "", "", 0})
             .pax({{"uid", "4294967294"}, {"gid", "3000000000"}})
             .add({"large", '0', "", "", 07777})
             .end());
  auto nodes = read();
  EXPECT_EQ(nodes.at("setuid").mode, S_IFREG | 04755);
  EXPECT_EQ(nodes.at("setgid").mode, S_IFDIR | 02775);
  EXPECT_EQ(nodes.at("setgid").gid, 50u);
  EXPECT_EQ(nodes.at("sticky").mode, S_IFDIR | 01777);
  EXPECT_EQ(nodes.at("nothing").mode, S_IFREG | 0u);
  EXPECT_EQ(nodes.at("large").mode, S_IFREG | 07777);
  EXPECT_EQ(nodes.at("large").uid, 4294967294u);
  EXPECT_EQ(nodes.at("large").gid, 3000000000u);
}

TEST_F(LayerContents, TimesBelowASecondBefore1970AndAfter2038Arrive) {
  ingest(TarBuilder()
             .pax({{"mtime", "1700000000.123456789"}})
             .file("now", "x")
             .pax({{"mtime", "-1.5"}})
             .file("before", "x")
             .pax({{"mtime", "4294967296.000000001"}})
             .file("after", "x")
             .pax({{"mtime", "1234567890.5"}})
             .directory("d")
             .file("d/inside", "x")  // does not touch its directory's time
             .end());
  auto nodes = read();
  const auto time = [&](const char* name) {
    return std::pair(nodes.at(name).times[0], nodes.at(name).nanoseconds[0]);
  };
  EXPECT_EQ(time("now"), std::pair(int64_t{1700000000}, 123456789u));
  EXPECT_EQ(time("before"), std::pair(int64_t{-2}, 500000000u));
  EXPECT_EQ(time("after"), std::pair(int64_t{4294967296}, 1u));
  EXPECT_EQ(time("d"), std::pair(int64_t{1234567890}, 500000000u));
}

TEST_F(LayerContents, NamesOf255BytesOfAnyValueButNulAndSlash) {
  std::string every;
  for (int c = 1; c < 256; ++c)
    if (c != '/') every.push_back(static_cast<char>(c));
  const std::string longest = every + "x";
  ASSERT_EQ(longest.size(), 255u);
  ingest(TarBuilder()
             .pax({{"path", longest}})
             .file("x", "all bytes")
             .file("\xff\xfe", "no utf-8")
             .file(" ", "a blank")
             .file("\n", "a line")
             .end());
  EXPECT_EQ(read().at(longest).content, "all bytes");
  std::vector<std::string> expected{"\n=a line", " =a blank", "\xff\xfe=no utf-8",
                                    longest + "=all bytes"};
  std::sort(expected.begin(), expected.end());
  auto lines = listing();
  std::sort(lines.begin(), lines.end());
  EXPECT_EQ(lines, expected);
}

TEST_F(LayerContents, PathsOf4096Bytes) {
  std::string path(254, 'a');
  while (path.size() + 256 <= 4096) path += "/" + std::string(255, 'b');
  path += "/" + std::string(4096 - path.size() - 1, 'c');
  ASSERT_EQ(path.size(), 4096u);
  ingest(TarBuilder().pax({{"path", path}}).file("x", "deep").end());
  EXPECT_EQ(read().at(path).content, "deep");
  EXPECT_THROW(ingest(TarBuilder().pax({{"path", path + "c"}}).file("x", "").end()), Error);
}

// Four bytes that tell places apart.
std::string markOf(uint64_t place) {
  return std::to_string(1000 + place % 8999);
}

// As GNU tar writes them, in each of its forms; the file is larger than 32 bits can say.
class SparseLayers : public DiskTest,
                     public ::testing::WithParamInterface<std::vector<std::string>> {};

TEST_P(SparseLayers, FilesBeyond4GiBAndTheirHolesArrive) {
  constexpr uint64_t kSize = (uint64_t{9} << 30) + 123;
  const std::string source = folder_.path() + "/large";
  const std::vector<uint64_t> places{0, 70'000, uint64_t{5} << 30, kSize - 7};
  {
    const Fd fd = openFile(source, O_RDWR | O_CREAT);
    for (const uint64_t place : places) pwriteFull(fd.get(), asBytes(markOf(place)), place);
    ASSERT_EQ(::ftruncate(fd.get(), static_cast<off_t>(kSize)), 0);
  }
  std::vector<std::string> command{"tar", "--sparse", "-C", folder_.path(), "-cf", "-"};
  command.insert(command.end(), GetParam().begin(), GetParam().end());
  command.push_back("large");
  ingest(checkCommand(command));
  const std::string path = disk();
  EXPECT_EQ(testing::readDisk(path, 0).at("large").size, kSize);
  for (const uint64_t place : places)
    EXPECT_EQ(testing::readAt(path, "large", place, 4), markOf(place));
  EXPECT_EQ(testing::readAt(path, "large", uint64_t{6} << 30, 8), std::string(8, '\0'));
  struct stat data {};
  ASSERT_EQ(::stat(store_.layers().dataPath(layers_[0]).c_str(), &data), 0);
  EXPECT_LT(data.st_blocks * 512, 8 << 20) << "holes became zeros on disk";
}

INSTANTIATE_TEST_SUITE_P(
    Formats, SparseLayers,
    ::testing::Values(std::vector<std::string>{"--format=gnu"},
                      std::vector<std::string>{"--format=pax", "--sparse-version=0.0"},
                      std::vector<std::string>{"--format=pax", "--sparse-version=0.1"},
                      std::vector<std::string>{"--format=pax", "--sparse-version=1.0"}),
    [](const auto& test) {
      std::string name = test.param.size() == 1 ? "gnu" : "pax" + test.param[1].substr(17);
      std::replace(name.begin(), name.end(), '.', '_');
      return name;
    });

// A tar made while it is read: `member(i)` gives the i-th member's blocks, empty at the end.
class MadeTar final : public Source {
 public:
  explicit MadeTar(std::function<std::string(size_t)> member) : member_(std::move(member)) {}
  size_t read(std::span<std::byte> into) override {
    while (rest_.empty() && !ended_) {
      pending_ = member_(next_++);
      ended_ = pending_.empty();
      if (ended_) pending_ = std::string(1024, '\0');
      rest_ = pending_;
    }
    const size_t size = std::min(into.size(), rest_.size());
    std::copy_n(rest_.data(), size, reinterpret_cast<char*>(into.data()));
    rest_.remove_prefix(size);
    return size;
  }

 private:
  std::function<std::string(size_t)> member_;
  size_t next_ = 0;
  bool ended_ = false;
  std::string pending_;
  std::string_view rest_;
};

std::string emptyFile(const std::string& name) {
  return testing::header({name});
}

TEST_F(LayerContents, ADirectoryOf200000Entries) {
  constexpr size_t kNames = 200'000;
  MadeTar tar([](size_t i) { return i < kNames ? emptyFile("d/file-" + std::to_string(i)) : ""; });
  ingest(tar);
  ingest(TarBuilder().file("d/.wh.file-77", "").file("d/file-78", "new").end());
  const auto nodes = read();
  EXPECT_EQ(nodes.size(), kNames + 1);  // and the root, and d, without one
  EXPECT_FALSE(nodes.contains("d/file-77"));
  EXPECT_EQ(nodes.at("d/file-78").content, "new");
}

TEST_F(LayerContents, AnImageOf127Layers) {
  for (int i = 0; i < 127; ++i) {
    TarBuilder tar;
    tar.file("layer-" + std::to_string(i), "from " + std::to_string(i));
    tar.file("top", std::to_string(i));
    if (i > 0) tar.hardlink("chain-" + std::to_string(i), "layer-" + std::to_string(i - 1));
    if (i > 1) tar.file(".wh.chain-" + std::to_string(i - 1), "");
    ingest(tar.end());
  }
  const auto nodes = read();
  EXPECT_EQ(nodes.at("top").content, "126");
  for (int i = 0; i < 127; ++i)
    EXPECT_EQ(nodes.at("layer-" + std::to_string(i)).content, "from " + std::to_string(i));
  EXPECT_EQ(nodes.at("chain-126").inode, nodes.at("layer-125").inode);
  EXPECT_EQ(nodes.size(), 1u + 127 + 1 + 1);
}

TEST_F(LayerContents, AMillionFiles) {
  constexpr size_t kFiles = 1'000'000;
  MadeTar tar([](size_t i) {
    return i < kFiles ? emptyFile("d" + std::to_string(i / 1000) + "/f" + std::to_string(i)) : "";
  });
  ingest(tar);
  const Tree tree = store_.treeOf(layers_);
  EXPECT_EQ(tree.inodes().size(), kFiles + 1000 + 1);
  const std::string path = disk();  // and e2fsck walked all of it
  EXPECT_EQ(testing::readAt(path, "d999/f999999", 0, 1), "");
  EXPECT_EQ(testing::readAt(path, "d0/f0", 0, 1), "");
}

// An eStargz layer: a member of gzip for each file, a table of contents, a footer. To everybody who
// does not know it, a layer (stargz-snapshotter docs/estargz.md).
TEST_F(LayerContents, EstargzLayersAreLayers) {
  const std::string contents = R"({"version":1,"entries":[]})";
  const std::string first = TarBuilder().file("a", "1").unfinished();
  const std::string second = TarBuilder().file("b", "2").unfinished();
  const std::string table = TarBuilder().file("stargz.index.json", contents).end();
  // 51 bytes: a gzip header with the extra field "SG", 22 bytes, offset and magic; an empty block.
  std::string footer("\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0", 16);
  footer += "0000000000000400STARGZ";
  footer += std::string("\x01\0\0\xff\xff\0\0\0\0\0\0\0\0", 13);
  ingest(testing::gzip(first) + testing::gzip(second) + testing::gzip(table) + footer);
  EXPECT_EQ(layers_[0], Digest::of(first + second + table));
  EXPECT_THAT(listing(), ElementsAre("a=1", "b=2", "stargz.index.json=" + contents));
}

TEST_F(LayerContents, ZstdOfSeveralFramesWithASeekTableIsALayer) {
  // zstd:chunked ends in skippable frames, as the seekable format does.
  const std::string tar = TarBuilder().file("a", "1").file("b", "2").end();
  const std::string table(
      "\x5e\x2a\x4d\x18\x08\0\0\0"
      "seek....",
      16);
  ingest(testing::zstd(tar.substr(0, 700)) + table + testing::zstd(tar.substr(700)) + table);
  EXPECT_EQ(layers_[0], Digest::of(tar));
  EXPECT_THAT(listing(), ElementsAre("a=1", "b=2"));
}

TEST_F(LayerContents, ADotEntrySetsTheRootsAttributes) {
  ingest(TarBuilder().add({"./", '5', "", "", 0711, 7, 8, 99}).file("./a", "1").end());
  const ReadNode root = read().at("");
  EXPECT_EQ(root.mode, S_IFDIR | 0711);
  EXPECT_EQ(root.uid, 7u);
  EXPECT_EQ(root.times[0], 99);
}

TEST_F(LayerContents, MissingParentsAreMade0755) {
  ingest(TarBuilder().file("a/b/c", "1").end());
  auto nodes = read();
  EXPECT_EQ(nodes.at("a").mode, S_IFDIR | 0755);
  EXPECT_EQ(nodes.at("a/b").mode, S_IFDIR | 0755);
}

TEST_F(LayerContents, KindsReplaceEachOtherBetweenLayers) {
  ingest(TarBuilder().directory("x").file("x/in", "1").file("y", "1").symlink("z", "x").end());
  ingest(TarBuilder().file("x", "2").directory("y").file("y/in", "2").directory("z").end());
  EXPECT_THAT(listing(), ElementsAre("x=2", "y", "y/in=2", "z"));
}

TEST_F(LayerContents, OfDuplicatesTheLastWins) {
  ingest(TarBuilder()
             .file("a", "1")
             .file("a", "22")
             .directory("d")
             .file("d/x", "1")
             .directory("d")
             .end());
  EXPECT_THAT(listing(), ElementsAre("a=22", "d", "d/x=1"));
}

}  // namespace
}  // namespace hull::image
