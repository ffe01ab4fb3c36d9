// Tree::resolve and resolvePath against the kernel: the same directories and symlinks are made in a
// temporary folder and the same paths opened there with openat2(RESOLVE_IN_ROOT).

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>

#include "base/error.h"
#include "base/file.h"
#include "image/layer/tree.h"

namespace hull::image {
namespace {

class RandomLinks {
 public:
  explicit RandomLinks(uint64_t seed) : random_(seed) {}

  uint64_t below(uint64_t limit) { return random_() % limit; }

  // Few names, so that paths meet something; dots, slashes and dead ends among them.
  std::string path(size_t most_parts) {
    static const char* const kParts[] = {"a", "b", "c", "d", "..", ".", "", "none"};
    std::string made = below(3) == 0 ? "/" : "";
    for (size_t parts = 1 + below(most_parts); parts > 0; --parts) {
      made += kParts[below(8) < 5 ? below(4) : below(8)];
      if (parts > 1 || below(8) == 0) made += "/";
    }
    return made.empty() ? "a" : made;
  }

  LayerIndex layer() {
    static const char* const kNames[] = {"a", "b", "c", "d"};
    LayerIndex layer;
    std::vector<std::string> directories{""};
    for (int i = 0; i < 25; ++i) {
      Entry entry;
      const std::string& parent = directories[below(directories.size())];
      entry.path = parent + (parent.empty() ? "" : "/") + kNames[below(4)];
      entry.type = below(3) == 0   ? EntryType::kDirectory
                   : below(3) == 0 ? EntryType::kFile
                                   : EntryType::kSymlink;
      if (entry.type == EntryType::kSymlink) entry.link = path(4);
      const bool taken = std::any_of(layer.entries.begin(), layer.entries.end(),
                                     [&](const Entry& other) { return other.path == entry.path; });
      if (taken) continue;
      if (entry.type == EntryType::kDirectory) directories.push_back(entry.path);
      layer.entries.push_back(entry);
    }
    return layer;
  }

 private:
  std::mt19937_64 random_;
};

void makeThem(const LayerIndex& layer, const std::string& root) {
  for (const Entry& entry : layer.entries) {
    const std::string path = root + "/" + entry.path;
    if (entry.type == EntryType::kDirectory) {
      makeDirectories(path);
    } else if (entry.type == EntryType::kSymlink) {
      ASSERT_EQ(::symlink(entry.link.c_str(), path.c_str()), 0);
    } else {
      openFile(path, O_CREAT | O_WRONLY);
    }
  }
}

// The host's inode that `path` leads to inside `root`; 0 when nowhere.
ino_t kernelResolves(int root, const std::string& path, bool follow_last) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  if (!follow_last) how.flags |= O_NOFOLLOW;
  how.resolve = RESOLVE_IN_ROOT;
  const Fd fd(static_cast<int>(::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)));
  if (!fd.valid()) return 0;
  struct stat status {};
  return ::fstat(fd.get(), &status) == 0 ? status.st_ino : 0;
}

ino_t hostInode(const std::string& root, const std::string& path) {
  struct stat status {};
  return ::lstat((root + "/" + path).c_str(), &status) == 0 ? status.st_ino : 0;
}

TEST(TreeResolve, GoesWhereTheKernelGoes) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    const TemporaryDirectory folder("hull-resolve");
    RandomLinks random(seed);
    const LayerIndex layer = random.layer();
    makeThem(layer, folder.path());
    Tree tree;
    tree.apply(layer);
    std::map<ino_t, InodeNumber> by_host{{hostInode(folder.path(), ""), 0}};
    for (const Entry& entry : layer.entries)
      by_host[hostInode(folder.path(), entry.path)] = tree.find(entry.path);

    const Fd root = openFile(folder.path(), O_PATH | O_DIRECTORY);
    if (kernelResolves(root.get(), "/", true) == 0)
      GTEST_SKIP() << "openat2 does not work here: " << std::strerror(errno);
    for (int i = 0; i < 500; ++i) {
      const std::string path = random.path(6);
      for (const bool follow_last : {true, false}) {
        const ino_t host = kernelResolves(root.get(), path, follow_last);
        const InodeNumber wanted = host == 0 ? kNoInode : by_host.at(host);
        ASSERT_EQ(tree.resolve(path, follow_last), wanted)
            << "seed " << seed << " path " << path << " follow " << follow_last;
        // The cleaned path of what exists has no symlinks left to follow.
        if (wanted == kNoInode) continue;
        ASSERT_EQ(tree.find(tree.resolvePath(path, follow_last)), wanted)
            << "seed " << seed << " path " << path << " follow " << follow_last;
      }
    }
  }
}

}  // namespace
}  // namespace hull::image
