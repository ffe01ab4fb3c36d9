// hull-share: shows a chosen set of the host's folders and files to one virtual machine, and
// nothing else. Started by the engine for a VM with shares; makes a mount namespace in which FOLDER
// holds an entry for each ("0", "1", …), read-only where asked, and becomes virtiofsd on FOLDER,
// which jails itself there.
//
//   hull-share SOCKET-FD STATUS-FD VIRTIOFSD FOLDER [FLAGS ROOT SOURCE]…
//
// SOCKET-FD listens; the VMM's end is connected already. FLAGS: letters of "r" (read-only), "t"
// (only the top mount is made read-only), "f" (flat: without what is mounted below), "s" (slave:
// what the host mounts below later appears), or "-". SOURCE is resolved inside ROOT, which symlinks
// do not leave. What fails before virtiofsd runs is written to STATUS-FD; its end without a text is
// success.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/fd.h"
#include "base/open_in_root.h"
#include "daemon/vm/share_arguments.h"

namespace hull::share {
namespace {

constexpr int kFirstShare = 5;
constexpr int kWordsPerShare = 3;
// The names of the shares and nothing else.
constexpr const char* kFolderOptions = "mode=0755,size=64k,nr_inodes=1024";
constexpr unsigned long kFolderFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

struct Share {
  std::string flags, root, source;
  bool has(char flag) const { return flags.find(flag) != std::string::npos; }
};

Fd openSource(const Share& share) {
  const Fd root = openFile(share.root, O_PATH | O_DIRECTORY);
  // O_DIRECTORY first: without it what mounts itself when it is entered is not entered.
  Fd source = openInRoot(root.get(), share.source, O_PATH | O_DIRECTORY);
  if (!source && errno == ENOTDIR) source = openInRoot(root.get(), share.source, O_PATH);
  if (!source) {
    if (errno == ENOENT || errno == ENOTDIR) {
      throw Error(ErrorKind::kInvalidArgument, "bind source path does not exist: " + share.source);
    }
    throw sysError("open " + share.source);
  }
  struct stat info;
  if (fstat(source.get(), &info) < 0) throw sysError("look at " + share.source);
  if (!S_ISDIR(info.st_mode) && !S_ISREG(info.st_mode)) {
    throw Error(ErrorKind::kNotSupported,
                "bind source " + share.source +
                    " is neither a folder nor a file: a container is a virtual machine and cannot "
                    "use a socket, pipe or device of the host");
  }
  return source;
}

// A copy of the source's mount that is not attached anywhere yet. What it is mounted with here is
// for virtiofsd, which neither runs programs nor opens devices; the guest's mount has its own
// flags.
Fd cloneMount(const Share& share, const Fd& source) {
  const unsigned below = share.has('f') ? 0 : AT_RECURSIVE;
  Fd tree(static_cast<int>(syscall(SYS_open_tree, source.get(), "",
                                   OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | below)));
  if (!tree) throw sysError("take the mount of " + share.source);
  mount_attr attributes{};
  attributes.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  if (share.has('r') && !share.has('t')) attributes.attr_set |= MOUNT_ATTR_RDONLY;
  attributes.propagation = share.has('s') ? MS_SLAVE : MS_PRIVATE;
  if (syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH | below, &attributes,
              sizeof attributes) < 0) {
    throw sysError("set up the mount of " + share.source);
  }
  if (share.has('r') && share.has('t')) {
    attributes = {};
    attributes.attr_set = MOUNT_ATTR_RDONLY;
    if (syscall(SYS_mount_setattr, tree.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) <
        0) {
      throw sysError("make " + share.source + " read-only");
    }
  }
  return tree;
}

void place(const Share& share, const std::string& at) {
  const Fd source = openSource(share);
  const Fd tree = cloneMount(share, source);
  struct stat info;
  if (fstat(source.get(), &info) < 0) throw sysError("look at " + share.source);
  if (S_ISDIR(info.st_mode)) {
    if (mkdir(at.c_str(), 0755) < 0) throw sysError("create " + at);
  } else {
    openFile(at, O_WRONLY | O_CREAT | O_EXCL, 0644);
  }
  if (syscall(SYS_move_mount, tree.get(), "", AT_FDCWD, at.c_str(), MOVE_MOUNT_F_EMPTY_PATH) < 0) {
    throw sysError("mount " + share.source);
  }
}

void makeFolder(const std::string& folder, const std::vector<Share>& shares) {
  if (unshare(CLONE_NEWNS) < 0) {
    throw Error(ErrorKind::kNotSupported,
                std::string(sysError("create mount namespace").what()) +
                    ": sharing folders with a virtual machine needs an engine that runs as root");
  }
  if (mount("none", "/", nullptr, MS_REC | MS_SLAVE, nullptr) < 0) {
    throw sysError("keep mounts from the host");
  }
  if (mount("hull-shares", folder.c_str(), "tmpfs", kFolderFlags, kFolderOptions) < 0) {
    throw sysError("mount " + folder);
  }
  for (size_t n = 0; n < shares.size(); ++n) place(shares[n], folder + "/" + std::to_string(n));
  if (mount("none", folder.c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | kFolderFlags,
            nullptr) < 0) {
    throw sysError("make " + folder + " read-only");
  }
}

void become(const std::string& virtiofsd, int socket, const std::string& folder) {
  auto words = engine::virtiofsdArguments(virtiofsd, socket, folder);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  char* environment[] = {nullptr};
  execve(virtiofsd.c_str(), argv.data(), environment);
  throw sysError("run " + virtiofsd);
}

int run(const std::vector<std::string>& words) {
  const int socket = std::stoi(words.at(1)), status = std::stoi(words.at(2));
  try {
    if (fcntl(status, F_SETFD, FD_CLOEXEC) < 0) throw sysError("use the status descriptor");
    std::vector<Share> shares;
    for (size_t at = kFirstShare; at + kWordsPerShare <= words.size(); at += kWordsPerShare) {
      shares.push_back({words[at], words[at + 1], words[at + 2]});
    }
    makeFolder(words.at(4), shares);
    become(words.at(3), socket, words.at(4));
  } catch (const Error& error) {
    writeFull(status, std::string(error.what()));
  }
  return 1;
}

}  // namespace
}  // namespace hull::share

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv, argv + argc);
  if (words.size() < hull::share::kFirstShare) return 2;
  return hull::share::run(words);
}
