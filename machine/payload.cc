#include "machine/payload.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "machine/guest_init.h"

namespace hull::machine {

namespace fs = std::filesystem;

namespace {

// What the machine may run; those that are there go in.
constexpr std::array kPrograms = {"hulld",   "hull-vmm", "hull-share",   "hull-initramfs",
                                  "vmlinux", "hull",     "hull-registry"};
constexpr std::array kEngineNeeds = {
    std::pair("hull-vmm", "build it: ninja -C build programs"),
    std::pair("hull-share", "build it: ninja -C build programs"),
    std::pair("hull-initramfs", "build it: ninja -C build programs"),
    std::pair("vmlinux", "build the guest kernel with scripts/kernel and put it there"),
};
constexpr uint64_t kSlackMib = 16;

std::string mke2fs() {
  for (const char* path : {"/usr/sbin/mke2fs", "/sbin/mke2fs"}) {
    if (::access(path, X_OK) == 0) return path;
  }
  return "mke2fs";
}

std::vector<std::string> filesOf(const PayloadSource& source) {
  std::vector<std::string> files;
  for (const char* name : kPrograms) {
    const std::string path = source.directory + "/" + name;
    if (::access(path.c_str(), R_OK) == 0) files.push_back(path);
  }
  return files;
}

std::string identity(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) < 0) throw sysError("read " + path);
  return path + " " + std::to_string(info.st_size) + " " + std::to_string(info.st_ino) + " " +
         std::to_string(info.st_mtim.tv_sec) + "." + std::to_string(info.st_mtim.tv_nsec) + "\n";
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

uint64_t place(const std::string& from, const std::string& to) {
  fs::copy_file(from, to);  // follows links; takes the mode along
  return fs::file_size(to);
}

}  // namespace

std::string payloadProblem(const PayloadSource& source) {
  if (!fileExists(source.directory + "/hulld")) return "";
  for (const auto& [name, next_step] : kEngineNeeds) {
    const std::string path = source.directory + "/" + name;
    if (::access(path.c_str(), R_OK) != 0) return path + " is missing: " + next_step;
  }
  return "";
}

std::string payloadKey(const PayloadSource& source) {
  std::string key =
      std::string(kGuestInit) + joined(source.agent_arguments) + "\n" + identity(source.agent);
  for (const auto& file : filesOf(source)) key += identity(file);
  return key;
}

bool ensurePayload(const MachinePaths& paths, const PayloadSource& source) {
  const std::string key = payloadKey(source);
  if (fileExists(paths.payload()) && fileExists(paths.payloadKey()) &&
      readFile(paths.payloadKey()) == key) {
    return false;
  }
  const TemporaryDirectory work(paths.state, ".payload");
  const std::string tree = work.path() + "/tree", image = work.path() + "/payload.ext4";
  uint64_t bytes = 0;
  try {
    makeDirectories(tree);
    for (const auto& file : filesOf(source)) {
      bytes += place(file, tree + "/" + fs::path(file).filename().string());
    }
    bytes += place(source.agent, tree + "/machine-agent");
  } catch (const fs::filesystem_error& error) {
    throw Error(kindOfErrno(error.code().value()),
                std::string("copy the programs for the machine: ") + error.what());
  }
  writeFull(openFile(tree + "/machine-init", O_WRONLY | O_CREAT, 0755).get(), kGuestInit);
  writeFull(openFile(tree + "/agent-arguments", O_WRONLY | O_CREAT).get(),
            joined(source.agent_arguments) + "\n");
  writeFull(openFile(tree + "/engine-socket", O_WRONLY | O_CREAT).get(),
            fs::absolute(paths.engineSocket()).string() + "\n");
  const uint64_t mib = bytes / (1 << 20) * 21 / 20 + kSlackMib;
  checkCommand({mke2fs(), "-q",
                "-t",     "ext4",
                "-O",     "^has_journal,^resize_inode",
                "-m",     "0",
                "-b",     "4096",
                "-N",     "64",
                "-E",     "root_owner=0:0,lazy_itable_init=1",
                "-L",     "hull-payload",
                "-d",     tree,
                image,    std::to_string(mib) + "M"});
  // The key goes first and comes last: a crash in between makes the payload again.
  ::unlink(paths.payloadKey().c_str());
  renameDurably(image, paths.payload());
  writeFileAtomic(paths.payloadKey(), key, 0600);
  return true;
}

void ensureDataDisk(const MachinePaths& paths, uint64_t gib) {
  if (fileExists(paths.dataDisk())) return;
  PendingFile disk(paths.state, 0600);
  if (ftruncate(disk.fd(), static_cast<off_t>(gib << 30)) < 0) {
    throw sysError("make the machine's disk of " + std::to_string(gib) + " GiB in " + paths.state);
  }
  checkCommand({mke2fs(), "-q", "-F", "-t", "ext4", "-m", "0", "-L", "hull-data", "-E",
                "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,nodiscard", disk.path()});
  disk.publish(paths.dataDisk());
}

}  // namespace hull::machine
