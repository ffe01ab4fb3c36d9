// The kernel's opinion: mounts stitched disks through a loop device and compares what it shows with
// the plain model. Needs root and loop devices; skipped visibly without.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/subprocess.h"
#include "image/ext4/testing/disk_reader.h"
#include "image/ext4/testing/expectations.h"
#include "image/layer/testing/plain_tree.h"
#include "image/layer/testing/random_layers.h"

namespace hull::image {
namespace {

using testing::Assembly;

// Mounted in a mount namespace of this process: nothing is left behind however the test ends.
class LoopMount {
 public:
  explicit LoopMount(const std::string& disk) {
    if (::geteuid() != 0) {
      reason_ = "not root";
    } else if (::unshare(CLONE_NEWNS) != 0 ||
               ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
      reason_ = std::string("no mount namespace: ") + std::strerror(errno);
    } else {
      const CommandResult result =
          runCommand({"mount", "-t", "ext4", "-o", "loop,ro", disk, folder_.path()});
      mounted_ = result.status == 0;
      if (!mounted_) reason_ = result.errors;
    }
  }
  ~LoopMount() {
    if (mounted_) ::umount2(folder_.path().c_str(), 0);
  }
  LoopMount(const LoopMount&) = delete;
  LoopMount& operator=(const LoopMount&) = delete;

  bool mounted() const { return mounted_; }
  const std::string& reason() const { return reason_; }
  const std::string& root() const { return folder_.path(); }

 private:
  TemporaryDirectory folder_{"hull-mount"};
  bool mounted_ = false;
  std::string reason_;
};

// Whether this host can mount ext4 at all: then a stitched disk that does not mount is a failure.
std::string whyNotMountable() {
  const TemporaryDirectory folder("hull-mkfs");
  const std::string disk = folder.path() + "/disk";
  {
    const Fd file = openFile(disk, O_RDWR | O_CREAT);
    if (::ftruncate(file.get(), 16 << 20) != 0) throw sysError("size " + disk);
  }
  try {
    if (runCommand({"mkfs.ext4", "-q", disk}).status != 0) return "mkfs.ext4 failed";
  } catch (const Error&) {
    return "mkfs.ext4 (package e2fsprogs) is not installed";
  }
  const LoopMount mount(disk);
  return mount.reason();
}

std::map<std::string, std::string> xattrsOf(const std::string& path) {
  std::map<std::string, std::string> xattrs;
  std::vector<char> names(64 << 10), value(64 << 10);
  const ssize_t size = ::llistxattr(path.c_str(), names.data(), names.size());
  for (ssize_t at = 0; at < size; at += static_cast<ssize_t>(std::strlen(&names[at])) + 1) {
    const char* const name = &names[static_cast<size_t>(at)];
    const ssize_t got = ::lgetxattr(path.c_str(), name, value.data(), value.size());
    xattrs[name] = got < 0 ? std::string("unreadable: ") + std::strerror(errno)
                           : std::string(value.data(), static_cast<size_t>(got));
  }
  return xattrs;
}

void expectNode(const Assembly& assembly, const std::string& path,
                const testing::PlainNode& plain) {
  const Entry& wanted = plain.attributes;
  struct stat status {};
  ASSERT_EQ(::lstat(path.c_str(), &status), 0) << std::strerror(errno);
  EXPECT_EQ(status.st_mode & 07777, wanted.mode);
  EXPECT_EQ(status.st_uid, wanted.uid);
  EXPECT_EQ(status.st_gid, wanted.gid);
  EXPECT_EQ(status.st_mtim.tv_sec, wanted.mtime_seconds);
  EXPECT_EQ(status.st_mtim.tv_nsec, wanted.mtime_nanoseconds);
  std::map<std::string, std::string> xattrs(wanted.xattrs.begin(), wanted.xattrs.end());
  // The kernel hides user.* of all but files and directories.
  if (wanted.type != EntryType::kFile && wanted.type != EntryType::kDirectory)
    std::erase_if(xattrs, [](const auto& item) { return item.first.starts_with("user."); });
  auto shown = xattrsOf(path);
  std::erase_if(shown, [&](const auto& item) { return !xattrs.contains(item.first); });
  EXPECT_EQ(shown, xattrs);
  switch (wanted.type) {
    case EntryType::kFile: {
      EXPECT_TRUE(S_ISREG(status.st_mode));
      EXPECT_TRUE(readFile(path) ==
                  assembly.contentOf(plain.layer, wanted.data_offset, wanted.size));
      break;
    }
    case EntryType::kSymlink:
      EXPECT_TRUE(S_ISLNK(status.st_mode));
      EXPECT_EQ(std::filesystem::read_symlink(path).native(), wanted.link);
      break;
    case EntryType::kDirectory:
      EXPECT_TRUE(S_ISDIR(status.st_mode));
      break;
    case EntryType::kFifo:
      EXPECT_TRUE(S_ISFIFO(status.st_mode));
      break;
    default:
      EXPECT_EQ(S_ISCHR(status.st_mode), wanted.type == EntryType::kCharDevice);
      EXPECT_EQ(major(status.st_rdev), wanted.device_major);
      EXPECT_EQ(minor(status.st_rdev), wanted.device_minor);
  }
}

Tree treeOf(const std::vector<LayerIndex>& layers) {
  Tree tree;
  for (const LayerIndex& layer : layers) tree.apply(layer);
  return tree;
}

TEST(StitchMount, TheKernelShowsWhatThePlainModelSays) {
  if (const std::string reason = whyNotMountable(); !reason.empty())
    GTEST_SKIP() << "cannot mount ext4 here: " << reason;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const auto layers = testing::randomLayers(
        1000 + seed, {.entries_per_layer = 80, .names = 4 + seed, .odd_names = seed % 2 == 0});
    std::vector<uint64_t> sizes;
    for (const LayerIndex& layer : layers) sizes.push_back(layer.data_bytes);
    Assembly assembly(sizes);
    assembly.fillData();
    assembly.stitch(treeOf(layers));
    const LoopMount mount(assembly.path());
    ASSERT_TRUE(mount.mounted()) << mount.reason();
    const auto plain = testing::applyPlainly(layers);
    for (const auto& [path, node] : plain) {
      SCOPED_TRACE("path " + ::testing::PrintToString(path));
      expectNode(assembly, mount.root() + "/" + path, *node);
    }
    size_t shown = 1;
    for ([[maybe_unused]] const auto& found :
         std::filesystem::recursive_directory_iterator(mount.root()))
      ++shown;
    EXPECT_EQ(shown, plain.size());
    if (HasFailure()) return;
  }
}

// Every name of list, one-level and two-level directories is found by lookup, no other is, and a
// listing shows each once.
TEST(StitchMount, TheKernelFindsEveryNameOfAHashTree) {
  if (const std::string reason = whyNotMountable(); !reason.empty())
    GTEST_SKIP() << "cannot mount ext4 here: " << reason;
  LayerIndex layer;
  const std::map<std::string, int> directories{{"list", 100}, {"one", 5000}, {"two", 60'000}};
  for (const auto& [directory, count] : directories) {
    for (int i = 0; i < count; ++i) {
      Entry entry;
      entry.path = directory + "/" + std::to_string(i) + std::string(40, '\xf0');
      layer.entries.push_back(entry);
    }
  }
  for (const std::string& name : testing::collidingNames(300)) {
    Entry entry;
    entry.path = "collisions/" + name;
    layer.entries.push_back(entry);
  }
  Assembly assembly({0});
  assembly.stitch(treeOf({layer}));
  const LoopMount mount(assembly.path());
  ASSERT_TRUE(mount.mounted()) << mount.reason();
  for (const Entry& entry : layer.entries)
    ASSERT_EQ(::access((mount.root() + "/" + entry.path).c_str(), F_OK), 0) << entry.path;
  for (const auto& [directory, count] : directories) {
    const std::string path = mount.root() + "/" + directory;
    for (int i = 0; i < 1000; ++i)
      ASSERT_NE(::access((path + "/" + std::to_string(i)).c_str(), F_OK), 0);
    std::set<std::string> names;
    for (const auto& found : std::filesystem::directory_iterator(path))
      EXPECT_TRUE(names.insert(found.path().filename()).second);
    EXPECT_EQ(names.size(), static_cast<size_t>(count));
  }
}

TEST(StitchMount, TheKernelUnderstandsAclsAndCapabilities) {
  if (const std::string reason = whyNotMountable(); !reason.empty())
    GTEST_SKIP() << "cannot mount ext4 here: " << reason;
  // linux/posix_acl_xattr.h: owner rw-, user 1000 rwx, group r--, mask rwx, other ---.
  const std::string acl(
      "\2\0\0\0"
      "\1\0\6\0\xff\xff\xff\xff"
      "\2\0\7\0\xe8\3\0\0"
      "\4\0\4\0\xff\xff\xff\xff"
      "\x10\0\7\0\xff\xff\xff\xff"
      "\x20\0\0\0\xff\xff\xff\xff",
      44);
  const std::string capability("\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
  LayerIndex layer;
  Entry directory;
  directory.path = "d";
  directory.type = EntryType::kDirectory;
  directory.mode = 0670;
  directory.xattrs = {{"system.posix_acl_access", acl}, {"system.posix_acl_default", acl}};
  Entry file;
  file.path = "d/f";
  file.mode = 0755;
  file.xattrs = {{"security.capability", capability}};
  layer.entries = {directory, file};
  Assembly assembly({0});
  assembly.stitch(treeOf({layer}));
  const LoopMount mount(assembly.path());
  ASSERT_TRUE(mount.mounted()) << mount.reason();
  auto shown = xattrsOf(mount.root() + "/d");
  EXPECT_EQ(shown["system.posix_acl_access"], acl);
  EXPECT_EQ(shown["system.posix_acl_default"], acl);
  EXPECT_EQ(xattrsOf(mount.root() + "/d/f")["security.capability"], capability);
}

// What the guest does with the disk: a writable overlay on top, with copies up and whiteouts.
TEST(StitchMount, AnOverlayStandsOnIt) {
  if (const std::string reason = whyNotMountable(); !reason.empty())
    GTEST_SKIP() << "cannot mount ext4 here: " << reason;
  const auto layers =
      testing::randomLayers(5, {.layers = 1, .entries_per_layer = 120, .names = 12});
  std::vector<uint64_t> sizes;
  for (const LayerIndex& layer : layers) sizes.push_back(layer.data_bytes);
  Assembly assembly(sizes);
  assembly.fillData();
  assembly.stitch(treeOf(layers));
  const LoopMount lower(assembly.path());
  ASSERT_TRUE(lower.mounted()) << lower.reason();

  const TemporaryDirectory upper("hull-overlay");
  ASSERT_EQ(::mount("tmpfs", upper.path().c_str(), "tmpfs", 0, nullptr), 0);
  for (const char* name : {"/upper", "/work", "/merged"}) makeDirectories(upper.path() + name);
  const std::string merged = upper.path() + "/merged";
  const std::string options = "lowerdir=" + lower.root() + ",upperdir=" + upper.path() +
                              "/upper,workdir=" + upper.path() + "/work";
  const bool stands = ::mount("overlay", merged.c_str(), "overlay", 0, options.c_str()) == 0;
  const int error_number = errno;
  if (stands) {
    int changed = 0;
    for (const auto& [path, node] : testing::applyPlainly(layers)) {
      if (node->attributes.type != EntryType::kFile) continue;
      const std::string whole = merged + "/" + path;
      const std::string before = readFile(whole);
      writeFull(openFile(whole, O_WRONLY | O_APPEND).get(), "more");
      EXPECT_EQ(readFile(whole), before + "more");
      EXPECT_EQ(::unlink(whole.c_str()), 0);
      EXPECT_FALSE(fileExists(whole));
      EXPECT_EQ(readFile(lower.root() + "/" + path), before);
      ++changed;
    }
    EXPECT_GT(changed, 3);
    ::umount2(merged.c_str(), 0);
  }
  ::umount2(upper.path().c_str(), MNT_DETACH);
  if (!stands) GTEST_SKIP() << "cannot mount overlayfs here: " << std::strerror(error_number);
}

// Offsets beyond what four extents and one level of index blocks map.
TEST(StitchMount, TheKernelReadsDeepExtentTrees) {
  if (const std::string reason = whyNotMountable(); !reason.empty())
    GTEST_SKIP() << "cannot mount ext4 here: " << reason;
  constexpr uint64_t kSize = uint64_t{200} << 30;
  LayerIndex layer;
  Entry entry;
  entry.path = "large";
  entry.size = kSize;
  layer.entries.push_back(entry);
  layer.data_bytes = kSize;
  Assembly assembly({kSize});
  const std::vector<uint64_t> places{0, 127 << 20, uint64_t{600} << 20, uint64_t{100} << 30,
                                     kSize - 9};
  for (const uint64_t place : places)
    pwriteFull(assembly.data(0), asBytes("at " + std::to_string(place % 100000)), place);
  assembly.stitch(treeOf({layer}));
  const LoopMount mount(assembly.path());
  ASSERT_TRUE(mount.mounted()) << mount.reason();
  const Fd file = openFile(mount.root() + "/large", O_RDONLY);
  for (const uint64_t place : places) {
    std::string bytes("at " + std::to_string(place % 100000));
    const std::string wanted = bytes;
    preadFull(file.get(), std::as_writable_bytes(std::span(bytes)), place);
    EXPECT_EQ(bytes, wanted);
  }
}

}  // namespace
}  // namespace hull::image
