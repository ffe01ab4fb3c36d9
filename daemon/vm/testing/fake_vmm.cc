// A stand-in for hull-vmm and the hull-init inside, for tests without a hypervisor: takes the same
// configuration on the same descriptors and speaks the same sockets. What it shall do is the text
// of the "kernel" file (how it boots) and the arguments of StartProcess (what a process does):
//
//   serve            boots at once             print OUT ERR CODE   writes, exits
//   slow             refuses three times       hang                 is never answered
//   silent           never answers             garbage              a frame that is none
//   panic, no-kvm    ends, saying why          die                  the VMM ends without a word
//   old-protocol     another version           close                the control connection ends
//   stubborn         ignores power-off and     flood                events without end
//                    SIGTERM                   wrong                the wrong kind of reply
//                                              sleep                runs until it is signalled
//                                              mounts               prints what it may mount
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <iostream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/stream.h"
#include "daemon/vm/guest_wire.h"
#include "daemon/vm/vm.h"
#include "vmm/config/vm_config.h"

namespace hull::engine {
namespace {

constexpr std::chrono::hours kForever{24};

struct FakeProcess {
  std::string out, err;
  int32_t exit_code = 0;
  bool sleeps = false;
};

class FakeVm {
 public:
  explicit FakeVm(vmm::VmConfig config) : config_(std::move(config)) {
    std::string text(64, '\0');
    text.resize(preadFull(config_.kernel_fd, std::as_writable_bytes(std::span(text)), 0));
    mode_ = text;
  }

  int run() {
    say("booting " + mode_ + "\n");
    for (const auto& disk : config_.disks) {
      if (disk.read != vmm::IoLimits{} || disk.write != vmm::IoLimits{}) {
        sayLimits({disk.id, disk.read, disk.write});
      }
    }
    if (mode_ == "panic") {
      say("Kernel panic - not syncing: no root\n");
      return end("panic", "the guest said so", 10);
    }
    if (mode_ == "no-kvm") {
      writeFull(2, "hull-vmm: cannot go on\n");
      return end("error", "open /dev/kvm: No such file or directory", 13);
    }
    if (mode_ == "stubborn") signal(SIGTERM, SIG_IGN);
    std::thread([this] { serveControl(); }).detach();
    for (int refused = 0;;) {
      Fd client(accept4(config_.vsock->listener_fd, nullptr, nullptr, SOCK_CLOEXEC));
      if (!client || mode_ == "silent") {
        kept_.push_back(std::move(client));
        continue;
      }
      if (mode_ == "slow" && refused < 3) {
        ++refused;
        writeFull(client.get(), "ERR connection refused\n");
        continue;
      }
      std::thread([this, fd = std::move(client)]() mutable { serve(std::move(fd)); }).detach();
    }
  }

 private:
  void say(const std::string& text) const { writeFull(config_.console_fd, text); }

  void sayLimits(const vmm::LimitsChange& limits) const { say(vmm::toJson(limits) + "\n"); }

  int end(const std::string& reason, const std::string& detail, int status) const {
    writeFull(config_.status_fd, nlohmann::json{{"reason", reason}, {"detail", detail}}.dump());
    _exit(status);
  }

  static std::string readLine(int fd) {
    std::string line;
    char c = 0;
    while (recv(fd, &c, 1, 0) == 1 && c != '\n') line += c;
    return line;
  }

  // What the guest would see of each disk, and the commands that made it so.
  void change(const std::string& command, const std::string& line,
              std::map<std::string, uint64_t>& sizes) const {
    if (command == "limits") sayLimits(vmm::parseLimitsChange(line));
    if (command == "cut") say(vmm::toJson(vmm::parseDiskCut(line)) + "\n");
    if (command != "grow") return;
    const vmm::DiskGrowth growth = vmm::parseDiskGrowth(line);
    sizes[growth.disk] = growth.size_bytes;
    say(vmm::toJson(growth) + "\n");
  }

  void serveControl() {
    bool paused = false;
    std::map<std::string, uint64_t> sizes;
    for (const auto& disk : config_.disks) sizes[disk.id] = disk.size_bytes;
    for (;;) {
      const Fd client(accept4(config_.control_fd, nullptr, nullptr, SOCK_CLOEXEC));
      const std::string line = readLine(client.get());
      const auto json = nlohmann::json::parse(line, nullptr, false);
      const std::string command = json.is_object() ? json.value("command", "") : "";
      if (command == "stop") end("terminated", "", 12);
      if (command == "pause" || command == "resume") paused = command == "pause";
      change(command, line, sizes);
      nlohmann::json answer{{"ok", true}};
      if (command == "status")
        answer = {{"state", paused ? "paused" : "running"}, {"disks", sizes}};
      if (mode_ == "slow") answer = {{"error", "too slow for that"}};
      writeFull(client.get(), answer.dump() + "\n");
    }
  }

  void serve(Fd fd) {
    try {
      const std::string request = readLine(fd.get());
      writeFull(fd.get(), "OK 1073741824\n");
      if (request == "CONNECT 1024") serveRequests(fd.get());
      if (request == "CONNECT 1025") serveStream(std::move(fd));
    } catch (const Error&) {
      // The engine closed it.
    }
  }

  static void reply(int fd, uint32_t request, const std::string& container,
                    guest::Message message) {
    sendAll(fd, guest::encode({request, container, std::move(message)}), deadlineIn(kForever), -1);
  }

  void serveRequests(int fd) {
    for (;;) {
      const auto frame = receiveFrame(fd, deadlineIn(kForever), -1);
      answer(fd, frame);
    }
  }

  void answer(int fd, const guest::Frame& frame) {
    const auto with = [&](guest::Message message) {
      reply(fd, frame.request, frame.container, std::move(message));
    };
    if (std::holds_alternative<guest::Hello>(frame.message)) {
      with(guest::HelloReply{mode_ == "old-protocol" ? 99 : guest::kProtocolVersion, "6.1.0-fake"});
    } else if (const auto* start = std::get_if<guest::StartProcess>(&frame.message)) {
      startProcess(fd, frame, *start);
    } else if (const auto* seat = std::get_if<guest::PrepareSeat>(&frame.message)) {
      if (seat->host == "full") {
        with(guest::Failure{guest::FailureCode::kOther, "no room"});
      } else {
        with(guest::SeatPrepared{std::vector<std::string>(seat->parts.size(), "/dev/loop0")});
      }
    } else if (std::holds_alternative<guest::ListState>(frame.message)) {
      with(state());
    } else if (std::holds_alternative<guest::SealLayer>(frame.message)) {
      with(guest::LayerSealed{++layers_});
    } else if (std::holds_alternative<guest::PowerOff>(frame.message)) {
      with(guest::Ok{});
      if (mode_ != "stubborn") end("poweroff", "", 0);
    } else if (std::holds_alternative<guest::SignalProcess>(frame.message)) {
      with(guest::Ok{});
      endSleepers(fd, frame.container);
    } else {
      with(guest::Ok{});
    }
  }

  void endSleepers(int fd, const std::string& container) {
    const std::lock_guard lock(mutex_);
    for (auto& [name, process] : processes_) {
      if (!process.sleeps) continue;
      process.sleeps = false;
      reply(fd, 0, container, guest::ProcessExited{name, 137, false});
    }
    changed_.notify_all();
  }

  guest::StateReply state() {
    const std::lock_guard lock(mutex_);
    guest::StateReply reply;
    guest::ContainerState container{"c", {}};
    for (const auto& [name, process] : processes_) {
      container.processes.push_back({name, 7, false, process.exit_code, false});
    }
    reply.containers.push_back(container);
    return reply;
  }

  void startProcess(int fd, const guest::Frame& frame, const guest::StartProcess& start) {
    const std::string verb = start.arguments.at(0);
    if (verb == "hang") return;
    if (verb == "garbage") return writeFull(fd, std::string(64, '\xff'));
    if (verb == "die") _exit(5);
    if (verb == "close") {
      shutdown(fd, SHUT_RDWR);
      return;
    }
    if (verb == "wrong") return reply(fd, frame.request, frame.container, guest::LayerSealed{});
    if (verb == "flood") {
      for (;;) reply(fd, 0, "c", guest::ProcessExited{"x", 0, false});
    }
    if (verb == "missing") {
      return reply(fd, frame.request, frame.container,
                   guest::Failure{guest::FailureCode::kNotFound,
                                  "exec: \"missing\": executable file not found in $PATH\x1b"});
    }
    FakeProcess process;
    if (start.arguments.size() >= 4) {
      process = {start.arguments[1], start.arguments[2], std::atoi(start.arguments[3].c_str())};
    }
    process.sleeps = verb == "sleep";
    if (verb == "mounts") process.out = describe(start.mounts);
    {
      const std::lock_guard lock(mutex_);
      processes_[start.process] = process;
    }
    reply(fd, frame.request, frame.container, guest::ProcessStarted{7});
    if (verb == "sleep") return;
    reply(fd, 0, frame.container, guest::ProcessExited{start.process, process.exit_code, false});
  }

  // A line each: kind source destination, and "ro".
  static std::string describe(const std::vector<guest::StepMount>& mounts) {
    std::string text;
    for (const auto& mount : mounts) {
      text += std::to_string(static_cast<int>(mount.kind)) + " " + mount.source + " " +
              mount.destination + (mount.read_only ? " ro" : "") + "\n";
    }
    return text;
  }

  void serveStream(Fd fd) {
    const auto frame = receiveFrame(fd.get(), deadlineIn(kForever), -1);
    const auto& open = std::get<guest::OpenStream>(frame.message);
    if (open.path == "missing") {
      return reply(fd.get(), frame.request, "",
                   guest::Failure{guest::FailureCode::kNotFound, "no such file"});
    }
    reply(fd.get(), frame.request, frame.container, guest::Ok{});
    using Kind = guest::OpenStream::Kind;
    if (open.kind == Kind::kStdout || open.kind == Kind::kStderr) {
      serveOutput(fd.get(), open);
    } else if (open.kind == Kind::kWriteLayer || open.kind == Kind::kWriteArchive ||
               open.kind == Kind::kWriteTree || open.kind == Kind::kSeedDisk) {
      takeChunks(std::move(fd), open);
    } else if (open.kind == Kind::kStdin) {
      std::array<std::byte, 256> buffer;
      while (readSome(fd.get(), buffer) > 0) {
      }
    } else {
      giveChunks(fd.get(), open);
    }
  }

  void serveOutput(int fd, const guest::OpenStream& open) {
    std::string text;
    {
      std::unique_lock lock(mutex_);
      const auto& process = processes_[open.process];
      changed_.wait(lock, [&] { return !process.sleeps; });
      text = open.kind == guest::OpenStream::Kind::kStdout ? process.out : process.err;
    }
    writeFull(fd, std::string_view(text).substr(std::min<size_t>(open.offset, text.size())));
    shutdown(fd, SHUT_WR);
    std::array<std::byte, 256> acknowledgements;
    while (readSome(fd, acknowledgements) > 0) {
    }
  }

  static void chunk(int fd, std::string_view bytes) {
    const auto size = static_cast<uint32_t>(bytes.size());
    writeFull(fd, std::as_bytes(std::span(&size, 1)));
    writeFull(fd, bytes);
  }

  static void giveChunks(int fd, const guest::OpenStream& open) {
    if (open.path == "huge") {
      const uint32_t size = guest::kMaxChunkBytes + 1;
      return writeFull(fd, std::as_bytes(std::span(&size, 1)));
    }
    chunk(fd, "layer ");
    if (open.path == "cut") return;
    chunk(fd, std::to_string(open.offset));
    chunk(fd, "");
    chunk(fd, open.path == "fail" ? "read failed half way" : "");
  }

  static void takeChunks(Fd fd, const guest::OpenStream& open) {
    ChunkSource source(Fd(dup(fd.get())));
    NullSink sink;
    const uint64_t bytes = copy(source, sink);
    chunk(fd.get(), "");
    chunk(fd.get(), open.path == "fail" ? "took " + std::to_string(bytes) + " and failed" : "");
  }

  vmm::VmConfig config_;
  std::string mode_;
  std::atomic<uint64_t> layers_ = 0;
  std::vector<Fd> kept_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, FakeProcess> processes_;
};

}  // namespace
}  // namespace hull::engine

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  // As PID 1 of a namespace it has no default action.
  signal(SIGTERM, [](int number) { _exit(128 + number); });
  if (argc != 3) return 2;
  try {
    hull::FdSource config(std::atoi(argv[2]));
    hull::engine::FakeVm vm(
        hull::vmm::parseVmConfig(hull::readAll(config, 1 << 20, "configuration")));
    return vm.run();
  } catch (const std::exception& error) {
    std::cerr << "fake vmm: " << error.what() << '\n';
    return 13;
  }
}
