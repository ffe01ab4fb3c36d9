// A hull-vmm process under test, seen from outside: started with a configuration and descriptors as
// the engine does it, its console, exit object, control socket and vsock at hand.
// Test code; one thread.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "vmm/config/vm_config.h"

namespace hull::vmm {

struct Result {
  int status = -1;
  std::string reason;
  std::string detail;
  std::string console;
  std::string log;  // with keep_log
};

class VmmUnderTest {
 public:
  // Looks for programs and KVM. Not empty: why there are none here.
  std::string missing() {
    const char* bin = getenv("HULL_BIN");
    if (bin == nullptr) return "HULL_BIN is not set";
    if (access("/dev/kvm", R_OK | W_OK) != 0) return "/dev/kvm cannot be used here";
    bin_ = bin;
    return {};
  }
  // Console and exit object, in files; what the VMM says goes to the test's standard error, or to a
  // file with `keep_log`.
  void giveOutputs(bool keep_log = false) {
    console_ = fileWith("");
    status_ = fileWith("");
    if (keep_log) log_ = fileWith("");
    config_.console_fd = give(console_.get());
    config_.status_fd = give(status_.get());
  }

  static Fd fileWith(const std::string& contents) {
    Fd file = makeMemfd("vmm-e2e");
    writeFull(file.get(), contents);
    lseek(file.get(), 0, SEEK_SET);
    return file;
  }
  // For read-only disks: hull-vmm takes no descriptor that can write for one.
  static Fd readOnly(const Fd& file) {
    return openFile("/proc/self/fd/" + std::to_string(file.get()), O_RDONLY);
  }
  // The number under which hull-vmm will find `fd`.
  int give(int fd) {
    const int number = next_fd_++;
    descriptors_.emplace_back(fd, number);
    return number;
  }

  void start(const std::string& task) {
    config_.command_line += (config_.command_line.empty() ? "task=" : " task=") + task;
    const Fd config = fileWith(toJson(config_));
    SubprocessOptions options;
    const int config_fd = give(config.get());
    options.arguments = {bin_ + "/hull-vmm", "--config-fd", std::to_string(config_fd)};
    options.descriptors = descriptors_;
    options.descriptors.emplace_back(log_ ? log_.get() : STDERR_FILENO, STDERR_FILENO);
    started_ = std::chrono::steady_clock::now();
    vmm_.emplace(options);
  }

  Result finish() {
    Result result;
    result.status = vmm_->wait();
    const auto took = std::chrono::steady_clock::now() - started_;
    std::printf("  %lld ms\n",
                static_cast<long long>(
                    std::chrono::duration_cast<std::chrono::milliseconds>(took).count()));
    result.console = contents(console_.get());
    if (log_) result.log = contents(log_.get());
    const auto status = nlohmann::json::parse(contents(status_.get()), nullptr, false);
    if (status.is_object()) {
      result.reason = status.value("reason", "");
      result.detail = status.value("detail", "");
    }
    return result;
  }
  Result boot(const std::string& task) {
    start(task);
    return finish();
  }

  static std::string contents(int fd) {
    std::string text(fileSize(fd), '\0');
    text.resize(preadFull(fd, std::as_writable_bytes(std::span(text)), 0));
    return text;
  }

  void addControl() {
    control_path_ = folder_.path() + "/control";
    control_ = listenUnix(control_path_);
    config_.control_fd = give(control_.get());
  }
  std::string command(const std::string& line) {
    const Fd client = connectUnix(control_path_);
    writeFull(client.get(), line + "\n");
    return readLine(client.get());
  }
  static std::string readLine(int fd) {
    std::string line;
    std::byte one;
    while (readSome(fd, {&one, 1}) == 1 && one != std::byte{'\n'}) line += static_cast<char>(one);
    return line;
  }
  // Saves the VM; the answer. Files as the engine gives them: opened for reading and writing.
  nlohmann::json save(const Fd& state, const Fd& memory) {
    const Fd client = connectUnix(control_path_);
    const std::array<int, 2> files{state.get(), memory.get()};
    sendWithFds(client.get(), asBytes("{\"command\":\"save\"}\n"), files);
    return nlohmann::json::parse(readLine(client.get()));
  }
  // Instead of booting, the VM will go on from there.
  void restoreFrom(const Fd& state, const Fd& memory) {
    config_.restore = RestoreConfig{give(state.get()), give(memory.get())};
  }
  // Asks until the guest says it is there.
  void waitReady() {
    for (;;) {
      const auto status = nlohmann::json::parse(command(R"({"command":"status"})"));
      if (!status["ready_us"].is_null()) {
        std::printf("  ready after %.1f ms\n", static_cast<double>(status["ready_us"]) / 1000);
        return;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  void addVsock() {
    vsock_path_ = folder_.path() + "/vsock";
    vsock_ = listenUnix(vsock_path_);
    config_.vsock = VsockConfig{3, give(vsock_.get())};
  }
  Fd connectGuest(unsigned port, std::string* answer) {
    Fd client = connectUnix(vsock_path_);
    writeFull(client.get(), "CONNECT " + std::to_string(port) + "\n");
    *answer = readLine(client.get());
    return client;
  }

  TemporaryDirectory folder_;
  std::string bin_;
  Fd console_, status_, log_, control_, vsock_;
  std::string control_path_, vsock_path_;
  VmConfig config_;
  std::vector<std::pair<int, int>> descriptors_;
  int next_fd_ = 10;
  std::optional<Subprocess> vmm_;
  std::chrono::steady_clock::time_point started_;
};

}  // namespace hull::vmm
