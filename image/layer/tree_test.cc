#include "image/layer/tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "image/layer/testing/plain_tree.h"
#include "image/layer/testing/random_layers.h"

namespace hull::image {
namespace {

Entry entry(EntryType type, std::string path, std::string link = {}) {
  Entry made;
  made.type = type;
  made.path = std::move(path);
  made.link = std::move(link);
  made.mode = type == EntryType::kDirectory ? 0750 : 0640;
  return made;
}
Entry file(std::string path, uint64_t size = 0) {
  Entry made = entry(EntryType::kFile, std::move(path));
  made.size = size;
  return made;
}
Entry dir(std::string path) {
  return entry(EntryType::kDirectory, std::move(path));
}
Entry symlink(std::string path, std::string to) {
  return entry(EntryType::kSymlink, std::move(path), std::move(to));
}
Entry hardlink(std::string path, std::string to) {
  return entry(EntryType::kHardlink, std::move(path), std::move(to));
}
Entry whiteout(std::string path) {
  return entry(EntryType::kWhiteout, std::move(path));
}
Entry opaque(std::string path) {
  return entry(EntryType::kOpaque, std::move(path));
}

Tree treeOf(const std::vector<std::vector<Entry>>& layers) {
  Tree tree;
  for (const auto& entries : layers) tree.apply(LayerIndex{entries, 0});
  return tree;
}

void listBelow(const Tree& tree, InodeNumber directory, const std::string& prefix,
               std::vector<std::string>& out) {
  for (const auto& [name, child] : tree.at(directory).children) {
    out.push_back(prefix + name);
    listBelow(tree, child, prefix + name + "/", out);
  }
}
std::vector<std::string> paths(const Tree& tree) {
  std::vector<std::string> out;
  listBelow(tree, 0, "", out);
  return out;
}

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

template <typename Work>
void expectError(ErrorKind kind, const std::string& text, Work&& work) {
  try {
    work();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    EXPECT_THAT(error.what(), HasSubstr(text));
  }
}

TEST(Tree, StartsAsAnEmptyRoot) {
  const Tree tree;
  EXPECT_EQ(tree.at(0).type, EntryType::kDirectory);
  EXPECT_EQ(tree.at(0).mode, 0755);
  EXPECT_THAT(paths(tree), IsEmpty());
  EXPECT_EQ(tree.layerCount(), 0u);
}

TEST(Tree, ARootEntrySetsTheRootsAttributes) {
  Entry root = dir("");
  root.mode = 01777;
  root.uid = 7;
  const Tree tree = treeOf({{file("f"), root}});
  EXPECT_EQ(tree.at(0).mode, 01777);
  EXPECT_EQ(tree.at(0).uid, 7u);
  EXPECT_THAT(paths(tree), ElementsAre("f"));
}

TEST(Tree, FilesRememberTheirLayerAndPlace) {
  Entry f = file("f", 5);
  f.data_offset = 8192;
  const Tree tree = treeOf({{}, {f}});
  const Inode& inode = tree.at(tree.find("f"));
  EXPECT_EQ(inode.layer, 1u);
  EXPECT_EQ(inode.data_offset, 8192u);
  EXPECT_EQ(inode.size, 5u);
  EXPECT_EQ(tree.layerCount(), 2u);
}

TEST(Tree, AWhiteoutRemovesWhatLowerLayersPutThere) {
  EXPECT_THAT(paths(treeOf({{dir("d"), file("d/f"), file("g")}, {whiteout("d")}})),
              ElementsAre("g"));
}

TEST(Tree, AWhiteoutBeforeANewFileHidesOnlyTheOldOne) {
  EXPECT_THAT(paths(treeOf({{dir("d"), file("d/old")}, {whiteout("d"), file("d/new")}})),
              ElementsAre("d", "d/new"));
}

TEST(Tree, AWhiteoutAfterAFileOfItsOwnLayerRemovesIt) {
  EXPECT_THAT(paths(treeOf({{file("x")}, {file("x"), whiteout("x")}})), IsEmpty());
}

TEST(Tree, AWhiteoutOfNothingDoesNothing) {
  EXPECT_THAT(paths(treeOf({{file("f"), symlink("l", ".")},
                            {whiteout("no/such"), whiteout("f/x"), whiteout("l/f"), opaque("no"),
                             opaque("f")}})),
              ElementsAre("f", "l"));
}

TEST(Tree, AnOpaqueMarkerHidesLowerChildrenWhereverItStands) {
  for (const bool marker_last : {false, true}) {
    std::vector<Entry> upper{dir("d"), file("d/new"), file("d/sub/new")};
    upper.insert(marker_last ? upper.end() : upper.begin(), opaque("d"));
    EXPECT_THAT(paths(treeOf({{dir("d"), file("d/old"), file("d/sub/old"), file("e")}, upper})),
                ElementsAre("d", "d/new", "d/sub", "d/sub/new", "e"));
  }
}

TEST(Tree, AnOpaqueRootHidesEverythingBelow) {
  EXPECT_THAT(paths(treeOf({{file("a/b")}, {file("c"), opaque("")}})), ElementsAre("c"));
}

TEST(Tree, ADirectoryOverADirectoryMergesAttributesAndKeepsChildren) {
  Entry again = dir("d");
  again.mode = 0700;
  again.xattrs = {{"user.new", "2"}};
  Entry before = dir("d");
  before.xattrs = {{"user.old", "1"}};
  const Tree tree = treeOf({{before, file("d/f")}, {again}});
  EXPECT_THAT(paths(tree), ElementsAre("d", "d/f"));
  EXPECT_EQ(tree.at(tree.find("d")).mode, 0700);
  EXPECT_EQ(tree.at(tree.find("d")).xattrs, again.xattrs);
}

TEST(Tree, AnythingElseReplacesWithAllBelow) {
  EXPECT_THAT(paths(treeOf({{dir("d"), file("d/f")}, {symlink("d", "x")}})), ElementsAre("d"));
  EXPECT_THAT(paths(treeOf({{dir("d"), file("d/f")}, {file("d")}, {dir("d")}})), ElementsAre("d"));
}

TEST(Tree, OfDuplicatesTheLastWins) {
  const Tree tree = treeOf({{file("f", 1), file("f", 2)}});
  EXPECT_EQ(tree.at(tree.find("f")).size, 2u);
}

TEST(Tree, MissingParentsAreRootsDirectories) {
  const Tree tree = treeOf({{file("a/b/c")}});
  for (const char* path : {"a", "a/b"}) {
    const Inode& inode = tree.at(tree.find(path));
    EXPECT_EQ(inode.type, EntryType::kDirectory);
    EXPECT_EQ(inode.mode, 0755);
    EXPECT_EQ(inode.uid, 0u);
    EXPECT_EQ(inode.mtime_seconds, 0);
  }
}

TEST(Tree, AParentThatIsASymlinkIsReplacedNotFollowed) {
  const Tree tree =
      treeOf({{dir("etc"), symlink("l", "etc"), file("f")}, {file("l/passwd"), file("f/x")}});
  EXPECT_THAT(paths(tree), ElementsAre("etc", "f", "f/x", "l", "l/passwd"));
  EXPECT_EQ(tree.at(tree.find("l")).type, EntryType::kDirectory);
}

TEST(Tree, HardlinksShareAnInode) {
  const Tree tree = treeOf({{file("a"), hardlink("d/b", "a")}, {hardlink("c", "d/b")}});
  EXPECT_EQ(tree.find("a"), tree.find("d/b"));
  EXPECT_EQ(tree.find("a"), tree.find("c"));
  EXPECT_EQ(tree.at(tree.find("a")).links, 3u);
  EXPECT_EQ(tree.at(tree.find("a")).layer, 0u);
}

TEST(Tree, ReplacingOneNameLeavesTheOthers) {
  const Tree tree = treeOf({{file("a", 1), hardlink("b", "a")}, {file("a", 2)}});
  EXPECT_EQ(tree.at(tree.find("a")).size, 2u);
  EXPECT_EQ(tree.at(tree.find("b")).size, 1u);
  EXPECT_EQ(tree.at(tree.find("b")).links, 1u);
}

TEST(Tree, AHardlinkOutlivesItsTargetsName) {
  const Tree tree = treeOf({{file("a", 1)}, {hardlink("b", "a"), whiteout("a")}});
  EXPECT_THAT(paths(tree), ElementsAre("b"));
  EXPECT_EQ(tree.at(tree.find("b")).links, 1u);
}

TEST(Tree, AHardlinkMayReplaceItsOwnTargetsParent) {
  const Tree tree = treeOf({{file("a/b", 3), hardlink("a", "a/b")}});
  EXPECT_THAT(paths(tree), ElementsAre("a"));
  EXPECT_EQ(tree.at(tree.find("a")).size, 3u);
  EXPECT_EQ(tree.at(tree.find("a")).links, 1u);
}

TEST(Tree, AHardlinkToItselfChangesNothing) {
  const Tree tree = treeOf({{file("a", 3), hardlink("a", "a")}});
  EXPECT_EQ(tree.at(tree.find("a")).links, 1u);
  EXPECT_EQ(tree.at(tree.find("a")).size, 3u);
}

TEST(Tree, AHardlinkToNowhereNamesBothEnds) {
  expectError(ErrorKind::kCorrupt, "\"some/target\"",
              [] { treeOf({{hardlink("the/name", "some/target")}}); });
  expectError(ErrorKind::kCorrupt, "\"the/name\"",
              [] { treeOf({{hardlink("the/name", "some/target")}}); });
  expectError(ErrorKind::kCorrupt, "is a directory", [] {
    treeOf({{dir("d"), hardlink("l", "d")}});
  });
}

TEST(Tree, UncleanEntriesAreRefused) {
  for (const std::string& path :
       {std::string("/a"), std::string("a/"), std::string("a//b"), std::string("./a"),
        std::string("a/../b"), std::string(".."), std::string(256, 'x'), std::string("a\0b", 3),
        std::string("d/") + std::string(4096, 'x')}) {
    expectError(ErrorKind::kCorrupt, "apply layer", [&] { treeOf({{file(path)}}); });
    expectError(ErrorKind::kCorrupt, "apply layer", [&] { treeOf({{whiteout(path)}}); });
  }
  expectError(ErrorKind::kCorrupt, "root", [] { treeOf({{file("")}}); });
  expectError(ErrorKind::kCorrupt, "root", [] { treeOf({{whiteout("")}}); });
  expectError(ErrorKind::kCorrupt, "root", [] { treeOf({{file("f"), hardlink("", "f")}}); });
}

TEST(Tree, RemovedInodesAreUsedAgain) {
  Tree tree = treeOf({{file("a/b/c/d")}});
  const size_t before = tree.inodes().size();
  for (int i = 0; i < 10; ++i) {
    tree.apply(LayerIndex{{whiteout("a"), file("a/b/c/d")}, 0});
    EXPECT_EQ(tree.inodes().size(), before);
  }
  tree.apply(LayerIndex{{whiteout("a")}, 0});
  size_t linked = 0;
  for (const Inode& inode : tree.inodes()) linked += inode.links > 0;
  EXPECT_EQ(linked, 1u);
}

TEST(Tree, ImpliedParentsCountAgainstTheBound) {
  Tree tree(4);
  tree.apply(LayerIndex{{file("a/b/c")}, 0});
  expectError(ErrorKind::kTooLarge, "more than 4 files", [&] {
    tree.apply(LayerIndex{{file("d")}, 0});
  });
}

TEST(Tree, ResolveFollowsSymlinksInsideTheRoot) {
  const Tree tree = treeOf(
      {{file("usr/bin/sh"), symlink("bin", "usr/bin"), symlink("abs", "/usr"),
        symlink("up", "../../../usr/bin/sh"), symlink("usr/bin/rel", "../x"), file("usr/x"),
        symlink("loop", "loop"), symlink("gone", "no/where"), symlink("slash", "usr/bin/")}});
  const InodeNumber shell = tree.find("usr/bin/sh");
  for (const char* path : {"bin/sh", "/bin/sh", "abs/bin/sh", "up", "abs/../bin/sh",
                           "bin/../bin/sh", "//bin//./sh", "../../bin/sh", "slash/sh"})
    EXPECT_EQ(tree.resolve(path), shell) << path;
  EXPECT_EQ(tree.resolve("bin/rel"), tree.find("usr/x"));
  EXPECT_EQ(tree.resolve(""), 0u);
  EXPECT_EQ(tree.resolve("/.."), 0u);
  for (const char* path :
       {"loop", "loop/x", "gone", "bin/sh/x", "bin/sh/", "bin/sh/.", "nope", "bin/sh/.."})
    EXPECT_EQ(tree.resolve(path), kNoInode) << path;
}

TEST(Tree, ResolveCanStopAtTheLastSymlink) {
  const Tree tree = treeOf({{file("d/f"), symlink("l", "d"), symlink("d/m", "f")}});
  EXPECT_EQ(tree.resolve("l", false), tree.find("l"));
  EXPECT_EQ(tree.resolve("l/", false), tree.find("d"));
  EXPECT_EQ(tree.resolve("l/m", false), tree.find("d/m"));
}

TEST(Tree, ResolveGivesUpAfterSoManyHops) {
  std::vector<Entry> entries{file("l0")};
  for (int i = 1; i <= kMaxSymlinkHops + 1; ++i)
    entries.push_back(symlink("l" + std::to_string(i), "l" + std::to_string(i - 1)));
  const Tree tree = treeOf({entries});
  EXPECT_EQ(tree.resolve("l40"), tree.find("l0"));
  EXPECT_EQ(tree.resolve("l41"), kNoInode);
}

TEST(Tree, ResolvePathKeepsWhatDoesNotExist) {
  const Tree tree = treeOf({{dir("usr/bin"), symlink("bin", "usr/bin"), symlink("out", "/srv/new"),
                             symlink("loop", "loop")}});
  EXPECT_EQ(tree.resolvePath("bin/new/file"), "usr/bin/new/file");
  EXPECT_EQ(tree.resolvePath("/out/x"), "srv/new/x");
  EXPECT_EQ(tree.resolvePath("a/./b//../c/"), "a/c");
  EXPECT_EQ(tree.resolvePath("../../bin"), "usr/bin");
  EXPECT_EQ(tree.resolvePath("bin", false), "bin");
  EXPECT_EQ(tree.resolvePath("bin/", false), "usr/bin");
  EXPECT_EQ(tree.resolvePath("/"), "");
  EXPECT_EQ(tree.resolvePath("loop/x"), "loop/x");
}

void expectSame(const Tree& tree, const testing::PlainTree& plain) {
  std::vector<std::string> expected;
  std::map<const testing::PlainNode*, std::set<InodeNumber>> inodes;
  std::map<const testing::PlainNode*, uint32_t> links;
  for (const auto& [path, node] : plain) {
    const InodeNumber number = tree.find(path);
    ASSERT_NE(number, kNoInode) << path;
    const Inode& inode = tree.at(number);
    const Entry& wanted = node->attributes;
    EXPECT_EQ(inode.type, wanted.type) << path;
    EXPECT_EQ(inode.mode, wanted.mode) << path;
    EXPECT_EQ(inode.uid, wanted.uid) << path;
    EXPECT_EQ(inode.mtime_seconds, wanted.mtime_seconds) << path;
    EXPECT_EQ(inode.size, wanted.size) << path;
    EXPECT_EQ(inode.data_offset, wanted.data_offset) << path;
    EXPECT_EQ(inode.link, wanted.link) << path;
    EXPECT_EQ(inode.xattrs, wanted.xattrs) << path;
    EXPECT_EQ(inode.layer, wanted.type == EntryType::kFile ? node->layer : 0) << path;
    inodes[node.get()].insert(number);
    ++links[node.get()];
    if (!path.empty()) expected.push_back(path);
  }
  std::vector<std::string> found = paths(tree);
  std::sort(found.begin(), found.end());
  EXPECT_EQ(found, expected);
  std::set<InodeNumber> all;
  for (const auto& [node, numbers] : inodes) {
    EXPECT_EQ(numbers.size(), 1u);
    EXPECT_EQ(tree.at(*numbers.begin()).links, links[node]);
    all.insert(*numbers.begin());
  }
  EXPECT_EQ(all.size(), inodes.size());  // nodes that are not one are not one inode
}

TEST(Tree, AgreesWithThePlainModelOnRandomLayers) {
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(seed);
    testing::RandomShape shape;
    shape.names = 2 + seed % 4;
    shape.odd_names = seed % 5 == 0;
    const auto layers = testing::randomLayers(seed, shape);
    Tree tree;
    for (const LayerIndex& layer : layers) tree.apply(layer);
    expectSame(tree, testing::applyPlainly(layers));
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace hull::image
