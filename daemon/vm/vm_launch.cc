#include "daemon/vm/vm_launch.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/stream.h"
#include "base/subprocess.h"
#include "daemon/vm/passt_process.h"
#include "daemon/vm/vm_core.h"
#include "daemon/vm/writable_disk.h"
#include "vmm/config/vm_config.h"

namespace hull::engine {

namespace {

using std::chrono::milliseconds;

// While a guest boots, a connection may be refused at once or answered never: short tries first.
constexpr milliseconds kFirstTry{200}, kLongestTry{5000};
constexpr milliseconds kFirstPause{2}, kLongestPause{100};
constexpr int kFirstPassedFd = 3;
constexpr int kShareListenerFd = 3, kShareStatusFd = 4;  // in hull-share
constexpr milliseconds kPasstPatience{10000};
constexpr size_t kLastWordsBytes = 2048;  // of hull-share, in the message of a failed start

int64_t wallClockNs() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
}

Fd openResource(const std::string& path, const char* what, const char* next_step) {
  try {
    return openFile(path, O_RDONLY);
  } catch (const Error& error) {
    throw Error(ErrorKind::kUnavailable,
                std::string(what) + ": " + error.what() + " (" + next_step + ")");
  }
}

Fd tryToGreet(const std::string& socket, Deadline deadline, Deadline connect_by, int pidfd) {
  Fd control = connectGuest(socket, guest::kControlPort, std::min(deadline, connect_by), pidfd);
  guest::Hello hello;
  hello.wall_clock_ns = wallClockNs();
  sendAll(control.get(), guest::encode({1, "", hello}), deadline, pidfd);
  const guest::Frame frame = receiveFrame(control.get(), deadline, pidfd);
  const auto* reply = std::get_if<guest::HelloReply>(&frame.message);
  if (reply == nullptr || frame.request != 1) {
    throw Error(ErrorKind::kCorrupt, "the guest did not say hello");
  }
  if (reply->version != guest::kProtocolVersion) {
    throw Error(ErrorKind::kCorrupt, "the guest speaks protocol " + std::to_string(reply->version) +
                                         ", this engine " +
                                         std::to_string(guest::kProtocolVersion));
  }
  return control;
}

}  // namespace

Fd greetGuest(const std::string& directory, Deadline deadline, int pidfd) {
  milliseconds patience = kFirstTry, pause = kFirstPause;
  for (;;) {
    try {
      return tryToGreet(directory + "/" + kVsockSocket, deadline, deadlineIn(patience), pidfd);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kCorrupt) throw;
    }
    // The process's end is worth waking up for.
    pollfd polled{pidfd, POLLIN, 0};
    if (poll(&polled, 1, static_cast<int>(pause.count())) > 0) {
      throw Error(ErrorKind::kUnavailable, "the virtual machine has ended");
    }
    if (std::chrono::steady_clock::now() >= deadline) {
      throw Error(ErrorKind::kTimeout, "the guest did not answer in time");
    }
    patience = std::min(patience * 2, kLongestTry);
    pause = std::min(pause * 2, kLongestPause);
  }
}

Launch::Launch(const VmResources& resources, VmSpec spec)
    : resources_(resources), spec_(std::move(spec)) {
  for (const char* stale :
       {kPidFile, kStatusFile, kConsoleFile, kVmmLogFile, kVsockSocket, kControlSocket, kSizeFile,
        kSharePidFile, kShareLogFile, kShareSocket, kPasstPidFile, kPasstLogFile}) {
    ::unlink(path(stale).c_str());
  }
  if (resources_.vmm_uid_base != 0) uid_ = freeVmmUid(resources_.vmm_uid_base);
}

Launch::~Launch() {
  if (process_) {
    process_->kill(SIGKILL);
    process_->reap();
  }
  for (auto* helper : {&share_, &passt_}) {
    if (!*helper) continue;
    (*helper)->kill(SIGKILL);
    endHelper(**helper, "helps it");
  }
  for (const auto& file : created_) ::unlink(file.c_str());
}

Fd Launch::create(const char* name, int flags) {
  Fd file = openFile(path(name), flags | O_CREAT | O_EXCL, 0600);
  created_.push_back(path(name));
  return file;
}

int Launch::pass(Fd fd) {
  passed_.push_back(std::move(fd));
  return kFirstPassedFd + static_cast<int>(passed_.size()) - 1;
}

void Launch::prepareWritableDisk() {
  const std::string disk = path(kWritableFile);
  if (fileExists(disk)) {
    writable_ = openFile(disk, O_RDWR);
  } else {
    writable_ = cloneDisk(templateDisk(resources_.template_disk, spec_.writable_bytes), disk);
    created_.push_back(disk);
  }
  if (uid_ != 0 && fchown(writable_.get(), uid_, uid_) < 0)
    throw sysError("change owner of " + disk);
}

std::string Launch::configuration() {
  vmm::VmConfig config;
  config.memory_mib = spec_.memory_mib;
  config.vcpus = spec_.vcpus;
  config.uid = config.gid = uid_;
  config.kernel_fd =
      pass(openResource(resources_.kernel, "guest kernel", "make it with scripts/kernel"));
  config.initrd_fd =
      pass(openResource(resources_.initramfs, "guest initramfs", "build the target initramfs"));

  vmm::DiskConfig root;
  root.id = kRootDiskId;
  root.size_bytes = spec_.root.disk_bytes;
  root.read = spec_.disk_limits.read;
  std::map<std::string, int> opened;  // several segments may be windows onto one file
  for (const auto& segment : spec_.root.segments) {
    auto found = opened.find(segment.path);
    if (found == opened.end()) {
      found = opened.emplace(segment.path, pass(openFile(segment.path, O_RDONLY))).first;
    }
    root.segments.push_back(
        {found->second, segment.file_offset, segment.disk_offset, segment.length});
  }
  config.disks.push_back(std::move(root));
  if (spec_.writable_bytes != 0) {
    prepareWritableDisk();
    const uint64_t bytes = fileSize(writable_.get());
    config.disks.push_back({kWritableDiskId,
                            bytes,
                            false,
                            {{pass(std::move(writable_)), 0, 0, bytes}},
                            spec_.disk_limits.read,
                            spec_.disk_limits.write});
  }
  for (size_t n = 0; n < spec_.extra_disks.size(); ++n) {
    Fd disk = openFile(spec_.extra_disks[n], O_RDWR);
    const uint64_t bytes = fileSize(disk.get());
    config.disks.push_back(
        {"extra-" + std::to_string(n), bytes, false, {{pass(std::move(disk)), 0, 0, bytes}}});
  }
  for (VmNetwork& network : spec_.networks) {
    vmm::NetConfig& net = config.nets.emplace_back();
    net.mac = network.mac;
    net.mtu = network.mtu;
    net.blocked = network.blocked;
    if (network.passt.empty()) {
      net.tap_fd = pass(std::move(network.tap));
    } else {
      net.stream_fd = pass(startNetwork(network));
    }
  }
  if (!spec_.shares.empty()) {
    config.fs = vmm::FsConfig{guest::kShareTag, pass(startShares())};
  }
  config.balloon = true;
  vmm::VsockConfig vsock;
  vsock.listener_fd = pass(listenUnix(path(kVsockSocket)));
  created_.push_back(path(kVsockSocket));
  config.vsock = vsock;
  config.control_fd = pass(listenUnix(path(kControlSocket)));
  created_.push_back(path(kControlSocket));
  config.console_fd = pass(create(kConsoleFile, O_WRONLY | O_APPEND));
  config.status_fd = pass(create(kStatusFile, O_WRONLY));
  writeFull(create(kSizeFile, O_WRONLY).get(),
            std::to_string(spec_.memory_mib) + " " + std::to_string(spec_.vcpus) + "\n");
  return vmm::toJson(config);
}

// Connected before it starts, so that nobody else can be. Waits until the shares are in their
// place; virtiofsd then starts beside the VMM.
Fd Launch::startShares() {
  if (resources_.virtiofsd_program.empty()) {
    throw Error(ErrorKind::kUnavailable,
                "volumes and bind mounts need virtiofsd, which this host does not have (apt-get "
                "install virtiofsd, or qemu-system-common where that is its package)");
  }
  makeDirectories(path(kShareFolder), 0700);
  const Fd listener = listenUnix(path(kShareSocket));
  Fd connection = connectUnix(path(kShareSocket));
  ::unlink(path(kShareSocket).c_str());
  FdPair status = makePipe();
  const Fd share_log = create(kShareLogFile, O_WRONLY | O_APPEND);
  SubprocessOptions options;
  options.arguments = {resources_.share_program, std::to_string(kShareListenerFd),
                       std::to_string(kShareStatusFd), resources_.virtiofsd_program,
                       path(kShareFolder)};
  for (const VmShare& share : spec_.shares) {
    std::string flags = share.read_only ? "r" : "-";
    if (!share.recursive) flags += 'f';
    if (!share.recursive_read_only) flags += 't';
    if (share.slave) flags += 's';
    options.arguments.insert(options.arguments.end(), {flags, share.root, share.source});
  }
  options.environment.emplace();
  options.working_directory = "/";
  options.new_session = true;
  options.descriptors = {{share_log.get(), STDERR_FILENO},
                         {listener.get(), kShareListenerFd},
                         {status.second.get(), kShareStatusFd}};
  share_.emplace(VmmProcess::spawn(options, spec_.directory, kSharePidFile));
  created_.push_back(path(kSharePidFile));
  status.second.reset();
  FdSource source(status.first.get());
  const std::string failure = readAll(source, kLastWordsBytes, "what hull-share says");
  if (!failure.empty()) throw Error(ErrorKind::kInvalidArgument, printable(failure));
  return connection;
}

// The wire to it, once it serves.
Fd Launch::startNetwork(const VmNetwork& network) {
  const Fd passt_log = create(kPasstLogFile, O_WRONLY | O_APPEND);
  PasstProcess passt = startPasst(network.passt, spec_.directory, passt_log.get());
  created_.push_back(path(kPasstPidFile));
  const bool serves = awaitPasst(passt, network.mac, kPasstPatience);
  passt_.emplace(std::move(passt.process));
  if (!serves) {
    const std::string words = tailOf(path(kPasstLogFile));
    throw Error(ErrorKind::kUnavailable,
                "the network process passt does not serve" +
                    (words.empty() ? std::string(" (it says nothing)") : ": " + words));
  }
  return std::move(passt.wire);
}

void Launch::spawn() {
  const std::string json = configuration();
  Fd memory = makeMemfd("hull-vm-config");
  writeFull(memory.get(), json);
  if (lseek(memory.get(), 0, SEEK_SET) < 0) throw sysError("rewind the configuration");
  const int config_fd = pass(std::move(memory));
  const Fd vmm_log = create(kVmmLogFile, O_WRONLY | O_APPEND);

  SubprocessOptions options;
  options.arguments = {resources_.vmm_program, "--config-fd", std::to_string(config_fd)};
  options.environment.emplace();
  options.working_directory = "/";
  options.new_session = true;
  options.new_pid_namespace = geteuid() == 0;
  options.descriptors.emplace_back(vmm_log.get(), STDERR_FILENO);
  for (size_t i = 0; i < passed_.size(); ++i) {
    options.descriptors.emplace_back(passed_[i].get(), kFirstPassedFd + static_cast<int>(i));
  }
  process_.emplace(VmmProcess::spawn(options, spec_.directory));
  created_.push_back(path(kPidFile));
  // Only the VMM may hold them: a socket whose VMM is gone must refuse connections.
  passed_.clear();
}

Fd Launch::greet() {
  try {
    return greetGuest(spec_.directory, deadlineIn(resources_.boot_timeout), process_->pidfd());
  } catch (const Error& error) {
    throw Error(error.kind(), error.what() + lastWords());
  }
}

std::string Launch::lastWords() const {
  std::string words;
  if (process_->ended()) {
    const auto exit = readExitStatus(spec_.directory);
    if (exit) words += ": " + exit->reason + (exit->detail.empty() ? "" : ": " + exit->detail);
    if (words.find("/dev/kvm") != std::string::npos) {
      words += " (`hull doctor` says what this host can do)";
    }
  }
  const std::string share = tailOf(path(kShareLogFile));
  if (!share.empty()) words += "; virtiofsd said:\n" + share;
  const std::string passt = tailOf(path(kPasstLogFile));
  if (!passt.empty()) words += "; passt said:\n" + passt;
  const std::string vmm = tailOf(path(kVmmLogFile)), console = tailOf(path(kConsoleFile));
  if (!vmm.empty()) words += "; the VMM said:\n" + vmm;
  words += console.empty() ? "; the console is empty" : "; the console's last lines:\n" + console;
  return words;
}

VmProcesses Launch::commit() {
  created_.clear();
  VmProcesses launched{std::move(*process_), std::nullopt, std::nullopt};
  process_.reset();
  if (share_) launched.share.emplace(std::move(*share_));
  if (passt_) launched.passt.emplace(std::move(*passt_));
  share_.reset();
  passt_.reset();
  return launched;
}

}  // namespace hull::engine
