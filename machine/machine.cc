#include "machine/machine.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/stream.h"
#include "base/subprocess.h"
#include "machine/config.h"
#include "machine/console_log.h"
#include "machine/lock.h"
#include "machine/payload.h"

namespace hull::machine {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kStartTime{300};  // a busy host emulates slowly
constexpr std::chrono::seconds kStopTime{30};
constexpr std::chrono::milliseconds kPoll{50};
constexpr size_t kTailLines = 12;
constexpr size_t kMaxStatusBytes = 64 * 1024;
constexpr const char* kStateFiles[] = {
    "config.json",    "data.ext4",  "payload.ext4", "payload.key",  "console.log",  "console.log.1",
    "supervisor.log", "share.sock", "engine.sock",  "control.sock", "emulator.lock"};

std::string runningProgram() {
  return fs::read_symlink("/proc/self/exe").string();
}

PayloadSource payloadSource(const MachineOptions& options) {
  const std::string self = runningProgram();
  return {options.payload_directory.empty() ? fs::path(self).parent_path().string()
                                            : options.payload_directory,
          self, options.agent_arguments};
}

std::string findProgram(const std::string& name, const std::string& package) {
  const char* path = getenv("PATH");
  std::string rest = path ? path : "/usr/local/bin:/usr/bin:/bin";
  while (!rest.empty()) {
    const size_t colon = rest.find(':');
    const std::string candidate = rest.substr(0, colon) + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    rest = colon == std::string::npos ? "" : rest.substr(colon + 1);
  }
  throw Error(ErrorKind::kNotFound, "start the machine: no " + name +
                                        " (run: sudo apt-get install --no-install-recommends " +
                                        package + ")");
}

// In the source tree, or where an installed Hull has it.
std::string imageScript() {
  const fs::path bin = fs::path(runningProgram()).parent_path();
  for (const char* place : {"../../scripts/machine-image", "../../../scripts/machine-image",
                            "../share/hull/scripts/machine-image"}) {
    const fs::path script = bin / place;
    if (::access(script.c_str(), X_OK) == 0) return script.lexically_normal().string();
  }
  throw Error(ErrorKind::kNotFound, "make the machine's image: scripts/machine-image is not near " +
                                        bin.string() +
                                        " (run it yourself and name its folder with --image)");
}

// The script's progress goes to our standard error as it comes; its last line is the folder.
std::string imageDirectory(const MachineOptions& options, const Progress& progress) {
  if (!options.image_directory.empty()) return options.image_directory;
  SubprocessOptions script;
  script.arguments = {imageScript()};
  if (!options.image_packages.empty()) {
    script.arguments.insert(script.arguments.end(), {"--with", options.image_packages});
  }
  FdPair output = makePipe(), messages = makePipe();
  script.descriptors = {{output.second.get(), 1}, {messages.second.get(), 2}};
  Subprocess child(script);
  output.second.reset();
  messages.second.reset();
  FILE* lines = fdopen(messages.first.release(), "r");
  if (!lines) throw sysError("read the image script's messages");
  std::string last;
  char* line = nullptr;
  size_t capacity = 0;
  for (ssize_t size; (size = getline(&line, &capacity, lines)) > 0;) {
    last.assign(line, static_cast<size_t>(line[size - 1] == '\n' ? size - 1 : size));
    progress(last);
  }
  free(line);
  fclose(lines);
  FdSource source(output.first.get());
  std::string text = readAll(source, kMaxStatusBytes, "the image script's answer");
  while (!text.empty() && text.back() == '\n') text.pop_back();
  if (child.wait() != 0 || text.empty()) {
    throw Error(ErrorKind::kInternal, "make the machine's image: " + last);
  }
  return text.substr(text.rfind('\n') + 1);
}

std::optional<std::string> ask(const MachinePaths& paths, const std::string& request) {
  try {
    const Fd control = connectUnix(paths.controlSocket());
    writeFull(control.get(), request + "\n");
    FdSource source(control.get());
    return readAll(source, kMaxStatusBytes, "the supervisor's answer");
  } catch (const Error&) {
    return std::nullopt;
  }
}

bool isRunning(const MachinePaths& paths) {
  return isLocked(paths.supervisorLock());
}

int supervisorPid(const MachinePaths& paths) {
  try {
    return std::stoi(readFile(paths.supervisorLock(), 64));
  } catch (const std::exception&) {
    return 0;
  }
}

MachinePhase phaseNamed(const std::string& name) {
  for (const auto phase : {MachinePhase::kAgentUp, MachinePhase::kReady}) {
    if (name == toString(phase)) return phase;
  }
  return MachinePhase::kBooting;
}

// Adds what the supervisor says of itself, when it answers.
void askStatus(const MachinePaths& paths, MachineStatus& status) {
  const auto answer = ask(paths, R"({"status":{}})");
  const auto json = nlohmann::json::parse(answer.value_or(""), nullptr, false);
  if (!json.is_object()) return;
  status.phase = phaseNamed(json.value("phase", ""));
  status.engine = json.value("engine", false);
  status.memory_mib = json.value("memoryMib", uint64_t{0});
  status.connections = json.value("connections", uint64_t{0});
  status.started_at = json.value("startedAt", int64_t{0});
}

[[noreturn]] void failStart(const MachinePaths& paths, const std::string& what) {
  std::string message = "start the machine: " + what;
  const std::string said = tailOf(paths.supervisorLog(), 3);
  if (!said.empty()) message += "\n  supervisor: " + said;
  const std::string console = tailOf(paths.consoleLog(), kTailLines);
  if (!console.empty()) message += "\nthe console's last lines:\n" + console;
  throw Error(
      ErrorKind::kUnavailable,
      message + "\nnext: read " + paths.consoleLog() +
          "; a disk that was damaged is replaced by hull machine rm (deletes what is in it)");
}

// `supervisor`: the process just started, or null when it was running before.
void waitReady(const MachinePaths& paths, Subprocess* supervisor, const Progress& progress) {
  const auto began = Clock::now();
  MachinePhase shown = MachinePhase::kStopped;
  for (;;) {
    MachineStatus status;
    status.phase = MachinePhase::kBooting;
    askStatus(paths, status);
    const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
    if (status.phase != shown) {
      char text[64];
      snprintf(text, sizeof text, "[%5.1f s] %s", seconds,
               std::string(toString(status.phase)).c_str());
      progress(text);
      shown = status.phase;
    }
    if (status.phase == MachinePhase::kReady) return;
    pollfd ended{supervisor ? supervisor->pidfd() : -1, POLLIN, 0};
    if (supervisor ? poll(&ended, 1, 0) == 1 : !isRunning(paths)) {
      failStart(paths, "it ended while starting");
    }
    if (Clock::now() - began > kStartTime) {
      if (supervisor) supervisor->kill(SIGKILL);
      failStart(paths, "it was not ready after " + std::to_string(kStartTime.count()) + " seconds");
    }
    std::this_thread::sleep_for(kPoll);
  }
}

Subprocess startSupervisor(const MachineOptions& options) {
  const MachinePaths& paths = options.paths;
  const Fd log = openFile(paths.supervisorLog(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
  ::unlink(paths.consoleLog().c_str());
  SubprocessOptions child;
  child.arguments = {runningProgram()};
  child.arguments.insert(child.arguments.end(), options.supervise_arguments.begin(),
                         options.supervise_arguments.end());
  child.arguments.push_back(paths.state);
  child.descriptors = {{log.get(), 1}, {log.get(), 2}};
  child.working_directory = "/";
  child.new_session = true;
  return Subprocess(child);
}

MachineConfig prepare(const MachineOptions& options, const Progress& progress) {
  MachineConfig config;
  config.qemu = findProgram("qemu-system-x86_64", "qemu-system-x86");
  config.memory_mib = options.memory_mib != 0 ? options.memory_mib : defaultMemoryMib();
  config.image_directory = imageDirectory(options, progress);
  for (const char* name : {"/vmlinux", "/initrd", "/root.ext4"}) {
    if (!fileExists(config.image_directory + name)) {
      throw Error(ErrorKind::kNotFound, "start the machine: no " + config.image_directory + name +
                                            " (make the image with scripts/machine-image)");
    }
  }
  ensureDataDisk(options.paths, options.disk_gib != 0 ? options.disk_gib : kDefaultDiskGib);
  return config;
}

// Compared with the folder the machine was started from, unless another one is named.
bool isPayloadCurrent(const MachineOptions& options) {
  if (!fileExists(options.paths.payloadKey())) return true;
  try {
    PayloadSource source = payloadSource(options);
    if (options.payload_directory.empty()) {
      source.directory = loadConfig(options.paths).payload_directory;
    }
    return readFile(options.paths.payloadKey()) == payloadKey(source);
  } catch (const Error&) {
    return false;
  }
}

// Somebody who asks for other packages must not get a machine without them.
void checkSameImage(const MachineOptions& options, const Progress& progress) {
  if (options.image_directory.empty() && options.image_packages.empty()) return;
  if (imageDirectory(options, progress) == loadConfig(options.paths).image_directory) return;
  throw Error(ErrorKind::kConflict,
              "start the machine: it runs with another image (stop it first: hull machine stop)");
}

Fd lockStart(const MachinePaths& paths, const Progress& progress) {
  makeDirectories(paths.state, 0700);
  return lockFile(paths.startLock(),
                  [&] { progress("another start or stop is under way; waiting for it"); });
}

}  // namespace

std::string_view toString(MachinePhase phase) {
  switch (phase) {
    case MachinePhase::kAbsent:
      return "absent";
    case MachinePhase::kStopped:
      return "stopped";
    case MachinePhase::kBooting:
      return "booting";
    case MachinePhase::kAgentUp:
      return "starting the engine";
    case MachinePhase::kReady:
      return "ready";
  }
  return "unknown";
}

void init(const MachineOptions& options, const Progress& progress) {
  const Fd lock = lockStart(options.paths, progress);
  if (!isRunning(options.paths)) prepare(options, progress);
}

void start(const MachineOptions& options, const Progress& progress) {
  const MachinePaths& paths = options.paths;
  const Fd lock = lockStart(paths, progress);
  if (isRunning(paths)) {
    checkSameImage(options, progress);
    return waitReady(paths, nullptr, progress);
  }
  const PayloadSource source = payloadSource(options);
  if (const std::string problem = payloadProblem(source); !problem.empty()) {
    throw Error(ErrorKind::kNotFound, "start the machine: " + problem);
  }
  MachineConfig config = prepare(options, progress);
  config.payload_directory = source.directory;
  if (ensurePayload(paths, source)) progress("made the disk with the programs");
  saveConfig(paths, config);
  Subprocess supervisor = startSupervisor(options);
  waitReady(paths, &supervisor, progress);
  supervisor.detach();
}

void stop(const MachinePaths& paths, const Progress& progress) {
  if (!fileExists(paths.state)) return;
  const Fd lock = lockStart(paths, progress);
  if (!isRunning(paths)) return;
  ask(paths, R"({"stop":{}})");
  const auto began = Clock::now();
  while (isRunning(paths)) {
    if (Clock::now() - began > kStopTime) {
      progress("it does not power off; ending it");
      if (const int pid = supervisorPid(paths); pid > 1) ::kill(pid, SIGKILL);
      while (isRunning(paths)) std::this_thread::sleep_for(kPoll);
    }
    std::this_thread::sleep_for(kPoll);
  }
}

void remove(const MachinePaths& paths, const Progress& progress) {
  stop(paths, progress);
  if (!fileExists(paths.state)) return;
  const Fd lock = lockStart(paths, progress);
  if (isRunning(paths)) {
    throw Error(ErrorKind::kConflict, "remove the machine: it was started again meanwhile");
  }
  for (const char* name : kStateFiles) ::unlink((paths.state + "/" + name).c_str());
  ::rmdir((paths.state + "/share").c_str());
}

MachineStatus status(const MachineOptions& options) {
  const MachinePaths& paths = options.paths;
  MachineStatus status;
  struct stat disk {};
  if (::stat(paths.dataDisk().c_str(), &disk) == 0) {
    status.phase = MachinePhase::kStopped;
    status.disk_used_bytes = static_cast<uint64_t>(disk.st_blocks) * 512;
  }
  status.payload_current = isPayloadCurrent(options);
  if (!isRunning(paths)) return status;
  status.phase = MachinePhase::kBooting;
  status.supervisor_pid = supervisorPid(paths);
  askStatus(paths, status);
  return status;
}

std::string engineSocket(const MachinePaths& paths) {
  if (!isRunning(paths)) return "";
  MachineStatus status;
  askStatus(paths, status);
  return status.engine ? paths.engineSocket() : "";
}

int run(const MachinePaths& paths, const ExecRequest& request) {
  if (!isRunning(paths)) {
    throw Error(ErrorKind::kUnavailable,
                "run in the machine: it is not running (start it: hull machine start)");
  }
  const Fd control = connectUnix(paths.controlSocket());
  writeFull(control.get(), "{\"exec\":" + encodeExecRequest(request) + "}\n");
  ExecParser parser([](ExecChannel channel, std::string_view bytes) {
    writeFull(channel == ExecChannel::kErrors ? STDERR_FILENO : STDOUT_FILENO, bytes);
  });
  std::vector<std::byte> buffer(kMaxPayloadBytes);
  bool input = true;
  while (!parser.status() && parser.failure().empty()) {
    pollfd polled[] = {{control.get(), POLLIN, 0}, {input ? STDIN_FILENO : -1, POLLIN, 0}};
    if (poll(polled, 2, -1) < 0 && errno != EINTR) throw sysError("run in the machine");
    if (polled[0].revents != 0) {
      const size_t got = readSome(control.get(), buffer);
      if (got == 0 || !parser.feed({reinterpret_cast<const char*>(buffer.data()), got})) {
        throw Error(ErrorKind::kUnavailable, "run in the machine: the machine went away");
      }
    }
    if (polled[1].revents != 0) {
      // Blocks while the command does not read; its output waits in the windows meanwhile.
      const size_t got = readSome(STDIN_FILENO, buffer);
      input = got != 0;
      if (got == 0) shutdown(control.get(), SHUT_WR);
      try {
        if (got != 0) writeFull(control.get(), std::span(buffer).first(got));
      } catch (const Error&) {
        input = false;  // the command ended before its input did; what it said is still to be read
      }
    }
  }
  if (!parser.failure().empty()) {
    throw Error(ErrorKind::kNotFound, "run in the machine: " + parser.failure());
  }
  return *parser.status();
}

}  // namespace hull::machine
