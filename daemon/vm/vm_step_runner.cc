#include "daemon/vm/vm_step_runner.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "daemon/vm/guest_files.h"
#include "daemon/vm/guest_wire.h"
#include "daemon/vm/network_card.h"
#include "daemon/vm/process_output.h"
#include "daemon/vm/step_agents.h"

namespace hull::engine {

namespace {

using std::chrono::milliseconds;

constexpr int kKilledExitCode = 128 + SIGKILL;
constexpr uint64_t kMib = 1 << 20;
constexpr milliseconds kCancelTimeout = std::chrono::seconds(5);
constexpr milliseconds kSealTimeout = std::chrono::minutes(10);  // it flushes what was written
constexpr size_t kHostnameRandomBytes = 6;
constexpr uint64_t kFullDiskBytes = 4 * kMib;  // less than a guest's disk writes at a time

// A guest meets a full disk of the host only as an error of its own disk (virtio-blk has no word
// for it), so what then fails there is explained by looking at the host's.
void explainFullDisk(const std::string& directory, const std::string& what) {
  struct statvfs disk;
  if (::statvfs(directory.c_str(), &disk) != 0) return;
  if (uint64_t{disk.f_bavail} * disk.f_frsize >= kFullDiskBytes) return;
  throw Error(ErrorKind::kNoSpace, what + ": no space left on device of " + directory +
                                       " (free some, then build again)");
}

template <typename Work>
auto explainingFullDisk(const std::string& directory, Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kNoSpace) explainFullDisk(directory, error.what());
    throw;
  }
}

// A place in the network, given back at the end.
class NetworkPlace {
 public:
  NetworkPlace(Network* network, const std::string& name) : network_(network), name_(name) {
    if (network_ != nullptr) attachment = network_->attach(name_, {});
  }
  ~NetworkPlace() {
    try {
      if (network_ != nullptr) network_->detach(name_);
    } catch (const Error& error) {
      log::warning(std::string("leave the network: ") + error.what());
    }
  }
  NetworkPlace(const NetworkPlace&) = delete;
  NetworkPlace& operator=(const NetworkPlace&) = delete;

  Attachment attachment;

 private:
  Network* const network_;
  const std::string name_;
};

class VmSession final : public build::StageSession {
 public:
  VmSession(const VmResources& resources, Network* network, const std::string& work_directory,
            VmSpec spec, const build::SessionOptions& options,
            std::unique_ptr<CacheDisks::Lease> caches);
  ~VmSession() override;

  build::StepResult run(const build::RunStep& step, const build::OutputFunction& output) override;
  void readLayer(Sink& tar) override;
  void applyLayer(Source& tar) override;
  void cancel() override;
  bool contended() const override { return caches_->contended(); }

 private:
  void prepareContainer(const std::vector<std::string>& extra_hosts);
  void start(const std::string& process, const build::RunStep& step, StepAgents& agents);
  guest::StepMount mountOf(const build::RunMount& wanted, StepAgents& agents);
  std::string agentOf(const build::RunMount& wanted, StepAgents& agents);
  std::string treeOf(const build::RunMount& wanted);
  void sendTree(guest::OpenStream::Kind kind, const std::string& path,
                const build::RunMount& wanted);
  guest::ProcessExited waitExit(const std::string& process);
  Fd openStream(const std::string& process, guest::OpenStream::Kind kind, uint64_t offset);

  const TemporaryDirectory folder_;
  const std::string name_;  // the folder's: what sweeps after a killed engine knows no other
  NetworkPlace place_;
  const std::unique_ptr<CacheDisks::Lease> caches_;  // outlives the VM
  const std::vector<build::MountCache> cache_ids_;   // in the order of the disks
  std::map<std::string, std::string> trees_;         // key of a read-only tree → its name
  size_t next_tree_ = 0;
  size_t next_agent_ = 0;
  std::unique_ptr<Vm> vm_;

  std::mutex mutex_;  // below
  std::condition_variable changed_;
  std::map<std::string, guest::ProcessExited> exits_;
  std::optional<VmExit> vm_exit_;
  bool cancelled_ = false;
};

VmSession::VmSession(const VmResources& resources, Network* network,
                     const std::string& work_directory, VmSpec spec,
                     const build::SessionOptions& options,
                     std::unique_ptr<CacheDisks::Lease> caches)
    : folder_(work_directory, kBuildSessionPrefix),
      name_(std::filesystem::path(folder_.path()).filename().string()),
      place_(options.network ? network : nullptr, name_),
      caches_(std::move(caches)),
      cache_ids_(options.caches) {
  spec.directory = folder_.path();
  for (size_t n = 0; n < caches_->size(); ++n) spec.extra_disks.push_back(caches_->path(n));
  if (!place_.attachment.address.empty()) {
    spec.networks.push_back(networkCard(place_.attachment));
  }
  vm_ = Vm::start(resources, std::move(spec));
  vm_->onProcessExit([this](const std::string&, const guest::ProcessExited& exited) {
    const std::lock_guard lock(mutex_);
    exits_[exited.process] = exited;
    changed_.notify_all();
  });
  vm_->onExit([this](const VmExit& exit) {
    const std::lock_guard lock(mutex_);
    vm_exit_ = exit;
    changed_.notify_all();
  });
  prepareContainer(options.extra_hosts);
}

VmSession::~VmSession() {
  vm_.reset();  // its callbacks use what is destroyed next
}

void VmSession::prepareContainer(const std::vector<std::string>& extra_hosts) {
  const Attachment& at = place_.attachment;
  const std::string hostname = randomHex(kHostnameRandomBytes);
  guest::CreateContainer container;
  container.root_disk = Vm::kRootDisk;
  container.writable_disk = Vm::kWritableDisk;
  container.hostname = hostname;
  container.pids_limit = kMaxStepProcesses;
  if (!at.gateway.empty()) container.resolv_conf = resolvConf({.servers = {at.gateway}});
  container.hosts = hostsFile(hostname, at.address, at.gateway, extra_hosts);
  if (!at.address.empty()) {
    vm_->request("", guest::ConfigureNetwork{at.address, at.prefix_length, at.gateway, at.mtu});
  }
  vm_->request(name_, std::move(container));
}

Fd VmSession::openStream(const std::string& process, guest::OpenStream::Kind kind,
                         uint64_t offset) {
  guest::OpenStream open;
  open.process = process;
  open.kind = kind;
  open.offset = offset;
  return vm_->openStream(name_, open);
}

void VmSession::start(const std::string& process, const build::RunStep& step, StepAgents& agents) {
  guest::StartProcess start;
  start.process = process;
  start.arguments = step.arguments;
  start.environment = step.environment;
  start.working_directory = step.working_directory.empty() ? "/" : step.working_directory;
  start.user = step.user;
  start.capabilities = kDefaultCapabilities;
  start.open_stdin = !step.stdin_text.empty();
  next_agent_ = 0;
  if (step.all_capabilities) start.capabilities = ~uint64_t{0};
  for (const auto& mount : step.mounts) start.mounts.push_back(mountOf(mount, agents));
  vm_->requestFor<guest::ProcessStarted>(name_, std::move(start));
}

guest::StepMount VmSession::mountOf(const build::RunMount& wanted, StepAgents& agents) {
  using Kind = build::RunMount::Kind;
  guest::StepMount mount;
  mount.destination = wanted.target;
  mount.read_only = wanted.read_only;
  mount.uid = wanted.uid;
  mount.gid = wanted.gid;
  mount.mode = wanted.mode;
  switch (wanted.kind) {
    case Kind::kTmpfs:
      mount.kind = guest::StepMount::Kind::kTmpfs;
      if (wanted.size_bytes != 0) mount.options = "size=" + std::to_string(wanted.size_bytes);
      break;
    case Kind::kTree:
      mount.kind = guest::StepMount::Kind::kTree;
      mount.file = !wanted.tree_file.empty();
      mount.source = treeOf(wanted) + (mount.file ? "/" + wanted.tree_file : "");
      break;
    case Kind::kCache: {
      mount.kind = guest::StepMount::Kind::kDisk;
      const auto found = std::find(cache_ids_.begin(), cache_ids_.end(), wanted.cache);
      if (found == cache_ids_.end())
        throw Error(ErrorKind::kInternal, "the session has no cache " + wanted.cache.id);
      const auto number = static_cast<size_t>(found - cache_ids_.begin());
      mount.source = Vm::extraDisk(number);
      if (wanted.tree && !caches_->seeded(number)) {
        sendTree(guest::OpenStream::Kind::kSeedDisk, mount.source, wanted);
        caches_->markSeeded(number);
      }
      break;
    }
    case Kind::kFile:
      mount.kind = guest::StepMount::Kind::kFile;
      mount.file = true;
      mount.source = wanted.content;
      break;
    case Kind::kAgent:
      mount.kind = guest::StepMount::Kind::kSocket;
      mount.file = true;
      mount.source = agentOf(wanted, agents);
      break;
  }
  return mount;
}

// The tree's name in the guest. What may be written to is brought anew for every step.
std::string VmSession::treeOf(const build::RunMount& wanted) {
  if (wanted.read_only) {
    const auto found = trees_.find(wanted.tree_key);
    if (found != trees_.end()) return found->second;
  }
  const std::string name = "tree-" + std::to_string(++next_tree_);
  sendTree(guest::OpenStream::Kind::kWriteTree, name, wanted);
  if (wanted.read_only) trees_[wanted.tree_key] = name;
  return name;
}

// The socket's name in the guest. A later step's agents use it again.
std::string VmSession::agentOf(const build::RunMount& wanted, StepAgents& agents) {
  guest::OpenStream open;
  open.kind = guest::OpenStream::Kind::kConnection;
  open.path = "agent-" + std::to_string(++next_agent_);
  agents.serve([this, open] { return vm_->openStream(name_, open); }, wanted.agent);
  return open.path;
}

void VmSession::sendTree(guest::OpenStream::Kind kind, const std::string& path,
                         const build::RunMount& wanted) {
  guest::OpenStream open;
  open.kind = kind;
  open.path = path;
  explainingFullDisk(folder_.path(), [&] {
    ChunkSink sink(vm_->openStream(name_, open));
    wanted.tree(sink);
    sink.finish();
  });
}

build::StepResult VmSession::run(const build::RunStep& step, const build::OutputFunction& output) {
  // Each step is the container's main process in its turn: with it everything it started ends.
  const std::string process = guest::kMainProcess;
  {
    const std::lock_guard lock(mutex_);
    if (cancelled_) return {kKilledExitCode, false};
  }
  ProcessOutput pump{ProcessOutput::Options{}};
  const auto written = pump.subscribe();
  StepAgents agents;
  start(process, step, agents);
  // Before anything that can fail: a thread that is not joined would end the engine.
  struct Feeder {
    Fd socket;
    std::thread thread;
    ~Feeder() {
      if (!thread.joinable()) return;
      shutdown(socket.get(), SHUT_RDWR);
      thread.join();
    }
  } feeder;
  if (!step.stdin_text.empty()) {
    feeder.socket = openStream(process, guest::OpenStream::Kind::kStdin, 0);
    feeder.thread = std::thread([&] {
      try {
        sendBlocking(feeder.socket.get(), asBytes(step.stdin_text));
        shutdown(feeder.socket.get(), SHUT_WR);
      } catch (const Error&) {
        // The process does not read its input to the end: its own affair.
      }
    });
  }
  pump.begin([&](OutputKind kind, uint64_t offset) {
    return openStream(process,
                      kind == OutputKind::kStdout ? guest::OpenStream::Kind::kStdout
                                                  : guest::OpenStream::Kind::kStderr,
                      offset);
  });
  while (const auto chunk = written->next()) {
    output(chunk->stream == OutputKind::kStdout ? build::OutputStream::kStdout
                                                : build::OutputStream::kStderr,
           chunk->bytes);
  }
  const guest::ProcessExited exited = waitExit(process);
  {
    const std::lock_guard lock(mutex_);
    if (cancelled_) return {kKilledExitCode, false};
  }
  vm_->request(name_, guest::ForgetProcess{process});
  if (exited.exit_code != 0) {
    explainFullDisk(folder_.path(), "exit status " + std::to_string(exited.exit_code));
  }
  return {exited.exit_code, exited.out_of_memory};
}

guest::ProcessExited VmSession::waitExit(const std::string& process) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return exits_.contains(process) || vm_exit_; });
  const auto found = exits_.find(process);
  if (found != exits_.end()) {
    guest::ProcessExited exited = std::move(found->second);
    exits_.erase(found);
    return exited;
  }
  if (cancelled_) return {process, kKilledExitCode, false};
  throw Error(ErrorKind::kUnavailable,
              "the build's virtual machine has ended: " + vm_exit_->reason +
                  (vm_exit_->detail.empty() ? "" : ": " + vm_exit_->detail));
}

void VmSession::readLayer(Sink& tar) {
  explainingFullDisk(folder_.path(), [&] {
    const auto sealed =
        vm_->requestFor<guest::LayerSealed>(name_, guest::SealLayer{}, kSealTimeout);
    ChunkSource source(openStream("", guest::OpenStream::Kind::kReadLayer, sealed.layer));
    copy(source, tar);
  });
}

void VmSession::applyLayer(Source& tar) {
  explainingFullDisk(folder_.path(), [&] {
    ChunkSink sink(openStream("", guest::OpenStream::Kind::kWriteLayer, 0));
    copy(tar, sink);
    sink.finish();
  });
}

void VmSession::cancel() {
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
  }
  try {
    vm_->request(name_, guest::SignalProcess{"", SIGKILL, true}, kCancelTimeout);
  } catch (const Error&) {
    vm_->stop(milliseconds(0));  // it does not listen
  }
}

}  // namespace

VmStepRunner::VmStepRunner(VmResources resources, Network* network, RootDiskFunction root_disk,
                           Options options)
    : resources_(std::move(resources)),
      network_(network),
      root_disk_(std::move(root_disk)),
      options_(std::move(options)),
      caches_(std::make_shared<CacheDisks>(options_.cache_directory.empty()
                                               ? options_.work_directory + "/caches"
                                               : options_.cache_directory,
                                           resources_.template_disk, options_.cache_bytes)) {}

std::unique_ptr<build::StageSession> VmStepRunner::open(const std::vector<image::Digest>& diff_ids,
                                                        const build::SessionOptions& options) {
  return inContext("build", [&] {
    makeDirectories(options_.work_directory);
    VmSpec spec;
    spec.root = root_disk_(diff_ids);
    spec.memory_mib =
        options.memory_bytes == 0 ? options_.memory_mib : (options.memory_bytes + kMib - 1) / kMib;
    spec.vcpus = options.cpus == 0 ? options_.vcpus : options.cpus;
    spec.writable_bytes = options_.writable_bytes;
    if (options.caches.size() > Vm::kMaxExtraDisks) {
      throw Error(ErrorKind::kTooLarge,
                  "a stage mounts more than " + std::to_string(Vm::kMaxExtraDisks) + " caches");
    }
    return std::make_unique<VmSession>(resources_, network_, options_.work_directory,
                                       std::move(spec), options,
                                       caches_->take(options.caches, options.check));
  });
}

}  // namespace hull::engine
