#include "daemon/vm/vmm_control.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/fd.h"
#include "daemon/vm/guest_wire.h"

namespace hull::engine {

namespace {

constexpr size_t kMaxAnswerBytes = 16 * 1024;
constexpr std::chrono::seconds kAnswerTimeout{15};

// A line that brings descriptors is short enough for an empty socket: it never blocks.
nlohmann::json askLine(const std::string& socket_path, const std::string& question,
                       const std::vector<int>& files = {}) {
  const Deadline deadline = deadlineIn(kAnswerTimeout);
  const Fd socket = connectUnix(socket_path);
  if (files.empty()) {
    sendAll(socket.get(), question + "\n", deadline, -1);
  } else {
    sendWithFds(socket.get(), asBytes(question + "\n"), files);
  }
  std::string line;
  while (line.find('\n') == std::string::npos) {
    if (line.size() > kMaxAnswerBytes) throw Error(ErrorKind::kCorrupt, "the answer has no end");
    waitFor(socket.get(), POLLIN, deadline, -1);
    std::array<char, 1024> buffer;
    const ssize_t got = recv(socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got == 0) throw Error(ErrorKind::kUnavailable, "the VMM closed the connection");
    if (got < 0 && errno != EAGAIN && errno != EINTR) throw sysError("read");
    if (got > 0) line.append(buffer.data(), static_cast<size_t>(got));
  }
  auto answer = nlohmann::json::parse(line.substr(0, line.find('\n')), nullptr, false);
  if (!answer.is_object()) throw Error(ErrorKind::kCorrupt, "the answer is not a JSON object");
  if (const auto error = answer.find("error"); error != answer.end()) {
    throw Error(ErrorKind::kInternal,
                error->is_string() ? printable(error->get<std::string>()) : "refused");
  }
  return answer;
}

nlohmann::json ask(const std::string& socket_path, const std::string& command) {
  return askLine(socket_path, nlohmann::json{{"command", command}}.dump());
}

}  // namespace

VmmState vmmState(const std::string& socket_path) {
  return inContext("ask the VMM for its state", [&] {
    const auto answer = ask(socket_path, "status");
    const auto state = answer.find("state");
    const bool paused = state != answer.end() && *state == "paused";
    return paused ? VmmState::kPaused : VmmState::kRunning;
  });
}

void commandVmm(const std::string& socket_path, const std::string& command) {
  inContext(command + " virtual machine", [&] { ask(socket_path, command); });
}

uint64_t vmmDiskBytes(const std::string& socket_path, const std::string& disk) {
  return inContext("ask for the size of disk " + disk, [&] {
    const auto answer = ask(socket_path, "status");
    const auto disks = answer.find("disks");
    if (disks == answer.end() || !disks->is_object() || !disks->contains(disk) ||
        !(*disks)[disk].is_number_unsigned()) {
      throw Error(ErrorKind::kConflict,
                  "its virtual machine was started by an earlier version of the engine (stop the "
                  "container and start it again)");
    }
    return (*disks)[disk].get<uint64_t>();
  });
}

void growVmmDisk(const std::string& socket_path, const vmm::DiskGrowth& growth,
                 const std::vector<int>& files) {
  inContext("grow disk " + growth.disk, [&] { askLine(socket_path, vmm::toJson(growth), files); });
}

void cutVmmDisk(const std::string& socket_path, const vmm::DiskCut& cut) {
  inContext("cut disk " + cut.disk, [&] { askLine(socket_path, vmm::toJson(cut)); });
}

void changeVmmLimits(const std::string& socket_path, const vmm::LimitsChange& change) {
  inContext("change the limits of disk " + change.disk,
            [&] { askLine(socket_path, vmm::toJson(change)); });
}

}  // namespace hull::engine
