#include "cli/client/locate.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <thread>
#include <vector>

#include "base/engine_paths.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "cli/client/endpoint.h"
#include "cli/client/machine_options.h"
#include "machine/detect.h"
#include "machine/machine.h"

namespace hull::cli {

namespace {

constexpr const char* kSystemLog = "/var/log/hulld.log";
constexpr auto kStartPoll = std::chrono::milliseconds(50);
constexpr int kStartPolls = 400;  // 20 s

bool answers(const std::string& socket) {
  try {
    return connectUnix(socket).valid();
  } catch (const Error&) {
    return false;
  }
}

std::vector<std::string> usualSockets() {
  if (geteuid() == 0) return {kSystemEngineSocket};
  return {kSystemEngineSocket, engineSocket()};
}

// A socket that is there but closed to this user deserves a better word than "no engine", where he
// cannot have an engine of his own.
void explainRefusedSocket() {
  if (fileExists(kSystemEngineSocket) && access(kSystemEngineSocket, W_OK) != 0 &&
      errno == EACCES) {
    throw Error(ErrorKind::kForbidden,
                std::string("connect to the engine at ") + kSystemEngineSocket +
                    ": permission denied (join the group hull, or use sudo)");
  }
}

// hulld as a process of its own that outlives this one: root's, or this user's without root. Two
// clients at once start one engine: hulld itself refuses to be the second.
std::string startDaemon() {
  const bool root = geteuid() == 0;
  const std::string socket = engineSocket();
  const std::string log_path = root ? kSystemLog : engineRoot() + "/hulld.log";
  if (!root) makeDirectories(engineRoot(), 0711);
  std::cerr << "hull: starting " << (root ? "the engine" : "an engine of your own, without root")
            << " (hulld; its log is " << log_path << ")" << std::endl;
  const Fd log = openFile(log_path, O_WRONLY | O_CREAT | O_APPEND, 0640);
  SubprocessOptions options;
  options.arguments = {programDirectory() + "/hulld"};
  options.descriptors = {{log.get(), 1}, {log.get(), 2}};
  options.new_session = true;
  options.working_directory = "/";
  Subprocess daemon(options);
  for (int i = 0; i < kStartPolls; ++i) {
    if (answers(socket)) {
      daemon.detach();
      return socket;
    }
    std::this_thread::sleep_for(kStartPoll);
  }
  throw Error(ErrorKind::kUnavailable,
              "start the engine: it does not answer (its log is " + log_path + ")");
}

std::string startEngine() {
  const machine::Detection detection = machine::detect();
  const bool usable = detection.usable();
  if (!usable || geteuid() == 0) explainRefusedSocket();
  if (usable) return startDaemon();
  const machine::MachineOptions options = machineOptions();
  std::cerr << "hull: " << detection.explanation
            << "; starting hull machine, an emulated host (slower)" << std::endl;
  machine::start(options, showMachineProgress);
  const std::string socket = machine::engineSocket(options.paths);
  if (socket.empty())
    throw Error(ErrorKind::kUnavailable,
                "hull machine is up, but no engine answers in it (see 'hull machine status')");
  return socket;
}

}  // namespace

std::string programDirectory() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
}

std::string findRunningEngine(const std::string& host) {
  if (!host.empty()) {
    const std::string path = socketPathOf(host);
    return answers(path) ? path : "";
  }
  for (const auto& socket : usualSockets()) {
    if (answers(socket)) return socket;
  }
  return machine::engineSocket(machine::MachinePaths::fromEnvironment());
}

std::string locateEngine(const std::string& host) {
  const std::string running = findRunningEngine(host);
  if (!running.empty()) return running;
  if (!host.empty()) {
    throw Error(ErrorKind::kUnavailable, "connect to the engine at " + socketPathOf(host) +
                                             ": nothing answers there (is hulld running?)");
  }
  return startEngine();
}

}  // namespace hull::cli
