#include "daemon/engine/engine.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "daemon/engine/names.h"

namespace hull::engine {

namespace {

std::string installationId(const std::string& root) {
  const std::string path = root + "/engine-id";
  if (!fileExists(path)) writeFileAtomic(path, newId().substr(0, 32) + "\n");
  std::string id = readFile(path, 256);
  while (!id.empty() && (id.back() == '\n' || id.back() == '\r')) id.pop_back();
  return id;
}

// What a killed engine left of builds is of no use to anyone.
void sweepBuilds(EngineParts& parts, const EngineOptions& options) {
  const std::string folder = buildFolder(options);
  makeDirectories(folder, 0711);
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    try {
      if (auto stray = parts.adopt_vm(entry.path().string())) {
        stray->stop(std::chrono::milliseconds(0));
      }
      // A session's place in the network has its folder's name.
      if (parts.network) parts.network->detach(entry.path().filename().string());
    } catch (const Error& error) {
      log::warning(std::string("end a build's virtual machine: ") + error.what());
    }
    std::error_code ignored;
    std::filesystem::remove_all(entry.path(), ignored);
  }
}

}  // namespace

EngineLock::EngineLock(const std::string& root) {
  makeDirectories(root, 0711);
  const std::string path = root + "/hulld.pid";
  file_ = openFile(path, O_RDWR | O_CREAT, 0644);
  if (flock(file_.get(), LOCK_EX | LOCK_NB) != 0) {
    std::string pid = readFile(path, 64);
    while (!pid.empty() && pid.back() == '\n') pid.pop_back();
    throw Error(ErrorKind::kConflict, "use " + root + ": another engine (process " + pid +
                                          ") uses it; stop that one first, or choose another "
                                          "folder with --root");
  }
  if (ftruncate(file_.get(), 0) != 0) throw sysError("write " + path);
  pwriteFull(file_.get(), asBytes(std::to_string(getpid()) + "\n"), 0);
}

Engine::Engine(EngineLock lock, EngineParts parts, EngineOptions options)
    : lock_(std::move(lock)),
      options_(std::move(options)),
      parts_(std::move(parts)),
      id_(installationId(options_.root)),
      networks_(parts_, options_.root, events_),
      containers_(parts_, options_, events_, networks_, door_),
      execs_(events_, containers_.tasks()) {
  sweepBuilds(parts_, options_);
  containers_.restore(execs_);
}

// The containers' tasks use the execs, which are destroyed first.
Engine::~Engine() {
  containers_.shutdown();
}

}  // namespace hull::engine
