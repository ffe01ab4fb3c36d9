#include "daemon/testing/local_machine.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "daemon/network/network_plan.h"
#include "daemon/testing/local_process.h"
#include "daemon/testing/local_socket.h"
#include "image/layer/testing/tar_builder.h"

namespace hull::engine::testing {

namespace {

using Kind = guest::OpenStream::Kind;

void sendChunk(int fd, std::string_view bytes) {
  const auto size = static_cast<uint32_t>(bytes.size());
  writeFull(fd, std::as_bytes(std::span(&size, 1)));
  writeFull(fd, bytes);
}

void sendEnd(int fd, std::string_view error) {
  sendChunk(fd, "");
  sendChunk(fd, error);
}

// What a booted machine is, apart from the engine's hold on it.
struct Machine {
  explicit Machine(std::string folder) : directory(std::move(folder)) {}
  std::string root() const { return directory + "/rootfs"; }

  const std::string directory;
  std::mutex mutex;
  std::condition_variable changed;
  std::string container;
  std::map<std::string, std::shared_ptr<LocalProcess>> processes;
  std::map<std::string, LocalSocket> sockets;  // at the first of their places
  DiskLimits disk_limits;
  std::set<std::string> exited;  // told already, kept for onProcessExit set later
  Vm::EventFunction on_process_exit;
  Vm::ExitFunction on_exit;
  std::optional<VmExit> exit;
};

class LocalVm final : public Vm {
 public:
  explicit LocalVm(std::shared_ptr<Machine> machine) : machine_(std::move(machine)) {}
  ~LocalVm() override {
    if (!abandoned_) end({"terminated", ""});
  }

  void onProcessExit(EventFunction function) override {
    const std::lock_guard lock(machine_->mutex);
    machine_->on_process_exit = std::move(function);
    for (const std::string& id : machine_->exited) {
      machine_->on_process_exit(machine_->container,
                                {id, *machine_->processes.at(id)->exitCode(), false});
    }
  }
  void onExit(ExitFunction function) override {
    const std::lock_guard lock(machine_->mutex);
    machine_->on_exit = std::move(function);
    if (machine_->exit) machine_->on_exit(*machine_->exit);
  }

  guest::Message request(const std::string& container, guest::Message message,
                         std::chrono::milliseconds) override {
    requireRunning();
    if (const auto* start = std::get_if<guest::StartProcess>(&message)) {
      return startProcess(container, *start);
    }
    if (const auto* signal = std::get_if<guest::SignalProcess>(&message)) {
      find(signal->process)->signal(static_cast<int>(signal->signal), signal->whole_container);
    } else if (const auto* resize = std::get_if<guest::ResizeTerminal>(&message)) {
      find(resize->process)->resize(resize->rows, resize->columns);
    } else if (const auto* forget = std::get_if<guest::ForgetProcess>(&message)) {
      const std::lock_guard lock(machine_->mutex);
      machine_->processes.erase(forget->process);
      machine_->exited.erase(forget->process);
    } else if (std::holds_alternative<guest::ListState>(message)) {
      return state();
    } else if (std::holds_alternative<guest::ListProcesses>(message)) {
      return processTable();
    } else if (std::holds_alternative<guest::ReadUsage>(message)) {
      return usage();
    } else if (const auto* made = std::get_if<guest::CreateContainer>(&message)) {
      createContainer(container, *made);
    }
    return guest::Ok{};
  }

  Fd openStream(const std::string&, const guest::OpenStream& open) override {
    requireRunning();
    if (open.kind == Kind::kConnection) {
      const std::lock_guard lock(machine_->mutex);
      return machine_->sockets.at(open.path).open();
    }
    if (open.kind == Kind::kStdin) return find(open.process)->openInput();
    if (open.kind == Kind::kStdout || open.kind == Kind::kStderr) {
      return find(open.process)->openOutput(open.kind == Kind::kStderr, open.offset);
    }
    if (open.kind == Kind::kWriteArchive) return writeArchive(open.path);
    if (open.kind == Kind::kReadArchive) return readArchive(open.path);
    return tarOf(machine_->root(), ".");
  }

  void setDiskLimits(const DiskLimits& limits) override {
    requireRunning();
    const std::lock_guard lock(machine_->mutex);
    machine_->disk_limits = limits;
  }
  void pause() override { signalAll(SIGSTOP); }
  void resume() override { signalAll(SIGCONT); }
  VmExit stop(std::chrono::milliseconds grace) override {
    end({grace.count() > 0 ? "poweroff" : "terminated", ""});
    const std::lock_guard lock(machine_->mutex);
    return *machine_->exit;
  }
  bool running() const override {
    const std::lock_guard lock(machine_->mutex);
    return !machine_->exit;
  }
  pid_t vmmPid() const override { return getpid(); }
  void abandon() override {
    const std::lock_guard lock(machine_->mutex);
    abandoned_ = true;
    machine_->on_process_exit = nullptr;
    machine_->on_exit = nullptr;
  }

  static void endMachine(const std::shared_ptr<Machine>& machine, const VmExit& exit) {
    // The machine is remembered by its end alone (last_vm_exit): what it ran goes with it.
    std::map<std::string, std::shared_ptr<LocalProcess>> processes;
    {
      const std::lock_guard lock(machine->mutex);
      if (machine->exit) return;
      machine->exit = exit;
      processes.swap(machine->processes);
      machine->exited.clear();
      if (machine->on_exit) machine->on_exit(exit);
    }
    for (const auto& [id, process] : processes) {
      try {
        process->signal(SIGKILL, true);
      } catch (const Error&) {
        // It has ended.
      }
    }
  }

 private:
  void end(const VmExit& exit) { endMachine(machine_, exit); }

  void requireRunning() const {
    if (!running()) throw Error(ErrorKind::kUnavailable, "the virtual machine has ended");
  }

  std::shared_ptr<LocalProcess> find(const std::string& id) const {
    const std::lock_guard lock(machine_->mutex);
    const auto found = machine_->processes.find(id);
    if (found == machine_->processes.end()) {
      throw Error(ErrorKind::kNotFound, "no such process: " + id);
    }
    return found->second;
  }

  void createContainer(const std::string& container, const guest::CreateContainer& options) {
    makeDirectories(machine_->root() + "/etc");
    const std::lock_guard lock(machine_->mutex);
    machine_->container = container;
    for (const guest::Mount& mount : options.mounts) {
      if (mount.kind != guest::Mount::Kind::kSocket) continue;
      machine_->sockets.try_emplace(mount.source, machine_->root() + mount.destination);
    }
  }

  guest::Message startProcess(const std::string& container, const guest::StartProcess& start) {
    const auto process = std::make_shared<LocalProcess>(start, machine_->root());
    {
      const std::lock_guard lock(machine_->mutex);
      machine_->processes[start.process] = process;
    }
    process->begin([machine = machine_, container, id = start.process](int code) {
      const std::lock_guard lock(machine->mutex);
      if (machine->exit) return;
      machine->exited.insert(id);
      if (machine->on_process_exit) machine->on_process_exit(container, {id, code, false});
    });
    return guest::ProcessStarted{static_cast<uint32_t>(process->pid())};
  }

  guest::StateReply state() const {
    const std::lock_guard lock(machine_->mutex);
    guest::ContainerState container{machine_->container, {}};
    for (const auto& [id, process] : machine_->processes) {
      const auto code = process->exitCode();
      container.processes.push_back(
          {id, static_cast<uint32_t>(process->pid()), !code, code.value_or(0), false});
    }
    return {{container}};
  }

  guest::ProcessTable processTable() const {
    guest::ProcessTable table{{"PID", "CMD"}, {}};
    const std::lock_guard lock(machine_->mutex);
    for (const auto& [id, process] : machine_->processes) {
      if (!process->exitCode()) table.rows.push_back({std::to_string(process->pid()), id});
    }
    return table;
  }

  // Numbers of nothing that a client can compute with.
  guest::Usage usage() const {
    guest::Usage usage;
    usage.cpu_ns = 50'000'000;
    usage.system_cpu_ns = 1'000'000'000;
    usage.cpus = 1;
    usage.memory_bytes = uint64_t{12} << 20;
    usage.memory_limit_bytes = uint64_t{512} << 20;
    const std::lock_guard lock(machine_->mutex);
    usage.pids = machine_->processes.size();
    usage.networks.push_back({"eth0", 1024, 8, 0, 0, 2048, 16, 0, 0});
    usage.disks.push_back({"254:0", 4096, 8192, 1, 2});
    return usage;
  }

  void signalAll(int number) {
    const std::lock_guard lock(machine_->mutex);
    for (const auto& [id, process] : machine_->processes) {
      if (!process->exitCode()) process->signal(number, true);
    }
  }

  static Fd tarOf(const std::string& folder, const std::string& name) {
    FdPair pair = makeSocketPair(SOCK_STREAM);
    std::thread([folder, name, to = std::move(pair.second)] {
      try {
        const auto result = runCommand({"tar", "-C", folder, "-cf", "-", name});
        for (std::string_view rest = result.output; !rest.empty();) {
          const size_t size = std::min<size_t>(rest.size(), guest::kMaxChunkBytes);
          sendChunk(to.get(), rest.substr(0, size));
          rest.remove_prefix(size);
        }
        sendEnd(to.get(), result.status == 0 ? "" : result.errors);
      } catch (const Error&) {
        // The engine closed it.
      }
    }).detach();
    return std::move(pair.first);
  }

  Fd readArchive(const std::string& path) const {
    const std::filesystem::path full(machine_->root() + path);
    if (!std::filesystem::exists(std::filesystem::symlink_status(full))) {
      throw Error(ErrorKind::kNotFound, path + ": no such file or directory");
    }
    std::string clean = full.lexically_normal().string();
    while (clean.ends_with('/')) clean.pop_back();
    const std::filesystem::path named(clean);
    return tarOf(named.parent_path().string(), named.filename().string());
  }

  Fd writeArchive(const std::string& path) const {
    const std::string folder = machine_->root() + path;
    if (!std::filesystem::is_directory(folder)) {
      throw Error(ErrorKind::kNotFound, path + ": no such directory");
    }
    FdPair pair = makeSocketPair(SOCK_STREAM);
    std::thread([folder, from = std::move(pair.second)] {
      try {
        ChunkSource source(from.duplicate());
        const std::string tar = readAll(source, 64 << 20, "archive");
        const auto result = runCommand({"tar", "-C", folder, "-xf", "-"}, tar);
        sendEnd(from.get(), result.status == 0 ? "" : result.errors);
      } catch (const Error&) {
        // The engine closed it.
      }
    }).detach();
    return std::move(pair.first);
  }

  std::shared_ptr<Machine> machine_;
  bool abandoned_ = false;
};

// Plans as the real one does, and makes nothing of it.
class LocalNetwork final : public Network {
 public:
  LocalNetwork() {
    NetworkSpec usual;
    usual.id = usual.name = kDefaultNetwork;
    usual.bridge = "hull-test";
    usual.subnet = parseSubnet("172.17.0.0/16");
    networks_[usual.id] = completeNetwork(usual, {}, {}, "test");
  }
  void restore(const std::vector<NetworkSpec>& networks) override {
    const std::lock_guard lock(mutex_);
    for (const NetworkSpec& network : networks) networks_[network.id] = network;
  }
  NetworkSpec add(NetworkSpec wanted) override {
    const std::lock_guard lock(mutex_);
    std::vector<NetworkSpec> present;
    for (const auto& [id, network] : networks_) present.push_back(network);
    const NetworkSpec made = completeNetwork(std::move(wanted), present, {}, "test");
    return networks_[made.id] = made;
  }
  void drop(const std::string& id) override {
    const std::lock_guard lock(mutex_);
    for (const Lease& lease : leases_.all()) {
      if (lease.network == id) throw Error(ErrorKind::kForbidden, "has active endpoints");
    }
    networks_.erase(id);
  }
  std::optional<NetworkSpec> find(const std::string& id) const override {
    const std::lock_guard lock(mutex_);
    const auto found = networks_.find(id);
    return found == networks_.end() ? std::nullopt : std::optional(found->second);
  }
  Attachment attach(const std::string& container, const EndpointSpec& endpoint,
                    bool running) override {
    const std::lock_guard lock(mutex_);
    const auto network = networks_.find(endpoint.network);
    if (network == networks_.end()) {
      throw Error(ErrorKind::kNotFound, "network " + endpoint.network + " not found");
    }
    Lease lease = planEndpoint(network->second, leases_.all(), container, endpoint);
    const auto cards = leases_.of(container);
    lease.slot = cards.empty() ? 0 : cards.back().slot + 1;
    if (running) {
      const auto spare =
          std::find_if(cards.begin(), cards.end(), [](const Lease& card) { return card.spare(); });
      if (spare == cards.end()) throw Error(ErrorKind::kConflict, "no spare network card left");
      lease.slot = spare->slot;
    }
    return place(lease, running);
  }
  std::optional<Attachment> addSpare(const std::string& container) override {
    const std::lock_guard lock(mutex_);
    Lease lease;
    lease.container = container;
    const auto cards = leases_.of(container);
    lease.slot = cards.empty() ? 0 : cards.back().slot + 1;
    lease.mac = freeMac({2, 0x43}, leases_.all());
    return place(lease, false);
  }
  std::optional<Attachment> disconnect(const std::string& container,
                                       const std::string& network) override {
    const std::lock_guard lock(mutex_);
    const Lease* found = leases_.find(container, network);
    if (!found) return std::nullopt;
    Lease spare;
    spare.container = container;
    spare.slot = found->slot;
    spare.mac = found->mac;
    return place(spare, true);
  }
  std::vector<Attachment> reattach(const std::string& container) override {
    const std::lock_guard lock(mutex_);
    std::vector<Attachment> found;
    for (const Lease& lease : leases_.of(container)) found.push_back(attachment(lease));
    return found;
  }
  void detach(const std::string& container) override {
    const std::lock_guard lock(mutex_);
    leases_.removeIf([&](const Lease& lease) { return lease.container == container; });
    ports_.erase(container);
  }
  void rename(const std::string&, const std::string&, const std::string&) override {}
  std::vector<PortMapping> publish(const std::string& container,
                                   const std::vector<PortMapping>& ports) override {
    const std::lock_guard lock(mutex_);
    std::vector<PortMapping> result = ports;
    for (PortMapping& port : result) {
      if (port.host_port == 0) port.host_port = next_port_++;
      for (const auto& [owner, used] : ports_) {
        if (owner != container && used.contains(port.host_port)) {
          throw Error(ErrorKind::kConflict,
                      "driver failed programming external connectivity on endpoint: Bind for " +
                          port.host_address + ":" + std::to_string(port.host_port) +
                          " failed: port is already allocated");
        }
      }
    }
    for (const PortMapping& port : result) ports_[container].insert(port.host_port);
    return result;
  }
  void unpublish(const std::string& container) override {
    const std::lock_guard lock(mutex_);
    ports_.erase(container);
  }
  void shutdown() override {}

 private:
  Attachment attachment(const Lease& lease) const {
    const auto network = networks_.find(lease.network);
    return attachmentOf(lease, network == networks_.end() ? nullptr : &network->second);
  }
  Attachment place(const Lease& lease, bool running) {
    leases_.put(lease);
    Attachment made = attachment(lease);
    if (!running) made.tap = makeMemfd("tap");
    return made;
  }

  mutable std::mutex mutex_;
  std::map<std::string, NetworkSpec> networks_;
  Leases leases_{""};
  std::map<std::string, std::set<uint16_t>> ports_;
  uint16_t next_port_ = 49153;
};

}  // namespace

struct LocalHost::State {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<Machine>> machines;  // by folder
};

LocalHost::LocalHost() : state_(std::make_shared<State>()) {
  signal(SIGPIPE, SIG_IGN);  // as hulld does
}

LocalHost::~LocalHost() {
  for (const auto& [directory, machine] : state_->machines) {
    LocalVm::endMachine(machine, {"terminated", ""});
  }
}

void LocalHost::crash(const std::string& directory) {
  const std::lock_guard lock(state_->mutex);
  LocalVm::endMachine(state_->machines.at(directory), {"killed", ""});
}

DiskLimits LocalHost::diskLimits(const std::string& directory) {
  const std::lock_guard lock(state_->mutex);
  const auto machine = state_->machines.at(directory);
  const std::lock_guard inner(machine->mutex);
  return machine->disk_limits;
}

void LocalHost::usedBy(EngineParts& parts) {
  parts.start_vm = [state = state_](const VmSpec& spec) -> std::unique_ptr<Vm> {
    const auto machine = std::make_shared<Machine>(spec.directory);
    machine->disk_limits = spec.disk_limits;
    const std::lock_guard lock(state->mutex);
    state->machines[spec.directory] = machine;
    return std::make_unique<LocalVm>(machine);
  };
  parts.adopt_vm = [state = state_](const std::string& directory) -> std::unique_ptr<Vm> {
    const std::lock_guard lock(state->mutex);
    const auto found = state->machines.find(directory);
    if (found == state->machines.end() || found->second->exit) return nullptr;
    return std::make_unique<LocalVm>(found->second);
  };
  parts.last_vm_exit = [state = state_](const std::string& directory) -> std::optional<VmExit> {
    const std::lock_guard lock(state->mutex);
    const auto found = state->machines.find(directory);
    return found == state->machines.end() ? std::nullopt : found->second->exit;
  };
}

std::shared_ptr<Network> makeLocalNetwork() {
  return std::make_shared<LocalNetwork>();
}

void addTestImages(image::ImageStore& images) {
  image::testing::TarBuilder tar;
  tar.directory("etc/").file("etc/os-release", "NAME=test\n");
  const std::string bytes = tar.end();
  StringSource source(bytes);
  const auto layer = images.layers().ingest(source, image::KeepBlob::kCompress);
  image::ImageConfig config;
  config.created = "2026-01-02T03:04:05Z";
  config.config.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"};
  config.config.cmd = {"sh"};
  config.diff_ids = {layer.diff_id};
  config.history.push_back({config.created, "ADD rootfs", "", "", false});
  images.create(config, {layer},
                {image::Reference::parse("debian"), image::Reference::parse("busybox")});
}

}  // namespace hull::engine::testing
