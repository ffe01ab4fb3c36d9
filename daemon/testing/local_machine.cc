#include "daemon/testing/local_machine.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "daemon/testing/local_process.h"
#include "daemon/testing/local_socket.h"
#include "daemon/vm/disk_growth.h"
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

// A container in a machine.
struct Guest {
  std::string root;
  std::map<std::string, std::shared_ptr<LocalProcess>> processes;
  std::set<std::string> exited;  // told already, kept for a listener that comes later
};

struct Listener {
  Vm::EventFunction exited;
  Vm::ExitFunction ended;
};

// What a booted machine is, apart from the engine's hold on it.
struct Machine {
  explicit Machine(std::string folder) : directory(std::move(folder)) {}

  // The mutex is held.
  void tell(const std::string& container, const std::string& process, int exit_code) {
    const auto found = listeners.find(container);
    const auto& function = found == listeners.end() ? usual.exited : found->second.exited;
    if (function) function(container, {process, exit_code, false});
  }

  const std::string directory;
  std::mutex mutex;
  std::map<std::string, Guest> guests;
  std::map<std::string, LocalSocket> sockets;  // at the first of their places
  DiskLimits disk_limits;
  std::set<uint64_t> added_disks;  // their offsets
  uint64_t disk_bytes = uint64_t{1} << 30;
  Listener usual;
  std::map<std::string, Listener> listeners;  // by container
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
    machine_->usual.exited = std::move(function);
    for (const auto& [container, guest] : machine_->guests) tellAgain(container, guest);
  }
  void onExit(ExitFunction function) override {
    const std::lock_guard lock(machine_->mutex);
    machine_->usual.ended = std::move(function);
    if (machine_->exit) machine_->usual.ended(*machine_->exit);
  }
  void listen(const std::string& container, EventFunction exited, ExitFunction ended) override {
    const std::lock_guard lock(machine_->mutex);
    machine_->listeners[container] = {std::move(exited), ended};
    const auto guest = machine_->guests.find(container);
    if (guest != machine_->guests.end()) tellAgain(container, guest->second);
    if (machine_->exit && ended) ended(*machine_->exit);
  }
  void stopListening(const std::string& container) override {
    const std::lock_guard lock(machine_->mutex);
    machine_->listeners.erase(container);
  }
  AddedDisks addDisks(const std::vector<AddedDisk>& disks) override {
    requireRunning();
    const std::lock_guard lock(machine_->mutex);
    AddedDisks added = placesOf(disks, machine_->disk_bytes);
    machine_->disk_bytes = added.offset + added.length;
    machine_->added_disks.insert(added.offset);
    return added;
  }
  void removeDisks(uint64_t offset, uint64_t) override {
    requireRunning();
    const std::lock_guard lock(machine_->mutex);
    machine_->added_disks.erase(offset);
  }

  guest::Message request(const std::string& container, guest::Message message,
                         std::chrono::milliseconds) override {
    requireRunning();
    if (const auto* start = std::get_if<guest::StartProcess>(&message)) {
      return startProcess(container, *start);
    }
    if (const auto* signal = std::get_if<guest::SignalProcess>(&message)) {
      find(container, signal->process)
          ->signal(static_cast<int>(signal->signal), signal->whole_container);
    } else if (const auto* resize = std::get_if<guest::ResizeTerminal>(&message)) {
      find(container, resize->process)->resize(resize->rows, resize->columns);
    } else if (const auto* forget = std::get_if<guest::ForgetProcess>(&message)) {
      const std::lock_guard lock(machine_->mutex);
      machine_->guests[container].processes.erase(forget->process);
      machine_->guests[container].exited.erase(forget->process);
    } else if (const auto* seat = std::get_if<guest::PrepareSeat>(&message)) {
      guest::SeatPrepared prepared;
      for (size_t n = 0; n < seat->parts.size(); ++n) {
        prepared.devices.push_back("/dev/loop" + std::to_string(n));
      }
      return prepared;
    } else if (std::holds_alternative<guest::ListState>(message)) {
      return state();
    } else if (std::holds_alternative<guest::ListProcesses>(message)) {
      return processTable(container);
    } else if (std::holds_alternative<guest::ReadUsage>(message)) {
      return usage(container);
    } else if (std::holds_alternative<guest::Pause>(message)) {
      signalAll(container, SIGSTOP);
    } else if (std::holds_alternative<guest::Resume>(message)) {
      signalAll(container, SIGCONT);
    } else if (std::holds_alternative<guest::RemoveContainer>(message)) {
      removeGuest(container);
    } else if (const auto* create = std::get_if<guest::CreateContainer>(&message)) {
      createGuest(container, *create);
    }
    return guest::Ok{};
  }

  Fd openStream(const std::string& container, const guest::OpenStream& open) override {
    requireRunning();
    if (open.kind == Kind::kConnection) {
      const std::lock_guard lock(machine_->mutex);
      return machine_->sockets.at(open.path).open();
    }
    if (open.kind == Kind::kStdin) return find(container, open.process)->openInput();
    if (open.kind == Kind::kStdout || open.kind == Kind::kStderr) {
      return find(container, open.process)->openOutput(open.kind == Kind::kStderr, open.offset);
    }
    const std::string root = rootOf(container);
    if (open.kind == Kind::kWriteArchive) return writeArchive(root, open.path);
    if (open.kind == Kind::kReadArchive) return readArchive(root, open.path);
    return tarOf(root, ".");
  }

  void setDiskLimits(const DiskLimits& limits) override {
    requireRunning();
    const std::lock_guard lock(machine_->mutex);
    machine_->disk_limits = limits;
  }
  void pause() override { signalEach(SIGSTOP); }
  void resume() override { signalEach(SIGCONT); }
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
    machine_->usual = {};
  }

  static void endMachine(const std::shared_ptr<Machine>& machine, const VmExit& exit) {
    // The machine is remembered by its end alone (last_vm_exit): what it ran goes with it.
    std::map<std::string, Guest> guests;
    {
      const std::lock_guard lock(machine->mutex);
      if (machine->exit) return;
      machine->exit = exit;
      guests.swap(machine->guests);
      if (machine->usual.ended) machine->usual.ended(exit);
      for (const auto& [container, listener] : machine->listeners) {
        if (listener.ended) listener.ended(exit);
      }
    }
    for (const auto& [container, guest] : guests) killAll(guest);
  }

 private:
  void end(const VmExit& exit) { endMachine(machine_, exit); }

  static void killAll(const Guest& guest) {
    for (const auto& [id, process] : guest.processes) {
      try {
        process->signal(SIGKILL, true);
      } catch (const Error&) {
        // It has ended.
      }
    }
  }

  void tellAgain(const std::string& container, const Guest& guest) const {
    for (const std::string& id : guest.exited) {
      machine_->tell(container, id, *guest.processes.at(id)->exitCode());
    }
  }

  // The machine's own container has its root beside the machine's files, others further down.
  void createGuest(const std::string& container, const guest::CreateContainer& options) {
    const bool own = options.root_disk == kRootDisk;
    const std::string root =
        machine_->directory + (own ? "/rootfs" : "/seats/" + container + "/rootfs");
    makeDirectories(root + "/etc");
    const std::lock_guard lock(machine_->mutex);
    machine_->guests[container].root = root;
    for (const guest::Mount& mount : options.mounts) {
      if (mount.kind != guest::Mount::Kind::kSocket) continue;
      machine_->sockets.try_emplace(mount.source, root + mount.destination);
    }
  }

  void removeGuest(const std::string& container) {
    Guest removed;
    {
      const std::lock_guard lock(machine_->mutex);
      const auto found = machine_->guests.find(container);
      if (found == machine_->guests.end()) {
        throw Error(ErrorKind::kNotFound, "container " + container + ": no such container");
      }
      removed = std::move(found->second);
      machine_->guests.erase(found);
    }
    killAll(removed);
  }

  std::string rootOf(const std::string& container) const {
    const std::lock_guard lock(machine_->mutex);
    return machine_->guests[container].root;
  }

  void requireRunning() const {
    if (!running()) throw Error(ErrorKind::kUnavailable, "the virtual machine has ended");
  }

  std::shared_ptr<LocalProcess> find(const std::string& container, const std::string& id) const {
    const std::lock_guard lock(machine_->mutex);
    const auto& processes = machine_->guests[container].processes;
    const auto found = processes.find(id);
    if (found == processes.end()) {
      throw Error(ErrorKind::kNotFound, "no such process: " + id);
    }
    return found->second;
  }

  guest::Message startProcess(const std::string& container, const guest::StartProcess& start) {
    const auto process = std::make_shared<LocalProcess>(start, rootOf(container));
    {
      const std::lock_guard lock(machine_->mutex);
      machine_->guests[container].processes[start.process] = process;
    }
    process->begin([machine = machine_, container, id = start.process](int code) {
      const std::lock_guard lock(machine->mutex);
      const auto guest = machine->guests.find(container);
      if (machine->exit || guest == machine->guests.end()) return;
      guest->second.exited.insert(id);
      machine->tell(container, id, code);
    });
    return guest::ProcessStarted{static_cast<uint32_t>(process->pid())};
  }

  guest::StateReply state() const {
    const std::lock_guard lock(machine_->mutex);
    guest::StateReply reply;
    for (const auto& [container, guest] : machine_->guests) {
      guest::ContainerState& listed = reply.containers.emplace_back();
      listed.id = container;
      for (const auto& [id, process] : guest.processes) {
        const auto code = process->exitCode();
        listed.processes.push_back(
            {id, static_cast<uint32_t>(process->pid()), !code, code.value_or(0), false});
      }
    }
    return reply;
  }

  guest::ProcessTable processTable(const std::string& container) const {
    guest::ProcessTable table{{"PID", "CMD"}, {}};
    const std::lock_guard lock(machine_->mutex);
    for (const auto& [id, process] : machine_->guests[container].processes) {
      if (!process->exitCode()) table.rows.push_back({std::to_string(process->pid()), id});
    }
    return table;
  }

  // Numbers of nothing that a client can compute with.
  guest::Usage usage(const std::string& container) const {
    guest::Usage usage;
    usage.cpu_ns = 50'000'000;
    usage.system_cpu_ns = 1'000'000'000;
    usage.cpus = 1;
    usage.memory_bytes = uint64_t{12} << 20;
    usage.memory_limit_bytes = uint64_t{512} << 20;
    const std::lock_guard lock(machine_->mutex);
    usage.pids = machine_->guests[container].processes.size();
    usage.networks.push_back({"eth0", 1024, 8, 0, 0, 2048, 16, 0, 0});
    usage.disks.push_back({"254:0", 4096, 8192, 1, 2});
    return usage;
  }

  void signalAll(const std::string& container, int number) {
    const std::lock_guard lock(machine_->mutex);
    for (const auto& [id, process] : machine_->guests[container].processes) {
      if (!process->exitCode()) process->signal(number, true);
    }
  }
  void signalEach(int number) {
    std::vector<std::string> containers;
    {
      const std::lock_guard lock(machine_->mutex);
      for (const auto& [container, guest] : machine_->guests) containers.push_back(container);
    }
    for (const std::string& container : containers) signalAll(container, number);
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

  static Fd readArchive(const std::string& root, const std::string& path) {
    const std::filesystem::path full(root + path);
    if (!std::filesystem::exists(std::filesystem::symlink_status(full))) {
      throw Error(ErrorKind::kNotFound, path + ": no such file or directory");
    }
    std::string clean = full.lexically_normal().string();
    while (clean.ends_with('/')) clean.pop_back();
    const std::filesystem::path named(clean);
    return tarOf(named.parent_path().string(), named.filename().string());
  }

  static Fd writeArchive(const std::string& root, const std::string& path) {
    const std::string folder = root + path;
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

size_t LocalHost::addedDisks(const std::string& directory) {
  const std::lock_guard lock(state_->mutex);
  const auto machine = state_->machines.at(directory);
  const std::lock_guard inner(machine->mutex);
  return machine->added_disks.size();
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
  parts.take_seat = [](std::shared_ptr<Vm> machine, const SeatSpec& spec) {
    const std::string disk = spec.directory + "/writable.ext4";
    if (!fileExists(disk)) writeFileAtomic(disk, "");
    return takeSeat("", std::move(machine), spec);
  };
  parts.last_vm_exit = [state = state_](const std::string& directory) -> std::optional<VmExit> {
    const std::lock_guard lock(state->mutex);
    const auto found = state->machines.find(directory);
    return found == state->machines.end() ? std::nullopt : found->second->exit;
  };
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
