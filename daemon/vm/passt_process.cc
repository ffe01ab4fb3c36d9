#include "daemon/vm/passt_process.h"

#include <endian.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/subprocess.h"

namespace hull::engine {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWireFd = 3;                  // in passt
constexpr uint32_t kMaxFrameBytes = 65549;  // 64 KiB of IP and an Ethernet header
constexpr uint16_t kRequest = 1, kReply = 2;

// RFC 826 behind an Ethernet header and the wire's length.
struct __attribute__((packed)) ArpFrame {
  uint32_t length;
  std::array<uint8_t, 6> target, source;
  uint16_t type;
  uint16_t hardware, protocol;
  uint8_t hardware_bytes, protocol_bytes;
  uint16_t operation;
  std::array<uint8_t, 6> sender_mac;
  uint32_t sender;
  std::array<uint8_t, 6> wanted_mac;
  uint32_t wanted;
};

// A probe (RFC 5227) for an address that nobody has; passt answers for every one.
ArpFrame probe(const std::array<uint8_t, 6>& mac) {
  constexpr uint32_t kDummyAddress = uint32_t{192} << 24 | 8;  // RFC 7600
  ArpFrame frame{};
  frame.length = htobe32(sizeof frame - sizeof frame.length);
  frame.target.fill(0xff);
  frame.source = frame.sender_mac = mac;
  frame.type = htobe16(0x0806);
  frame.hardware = htobe16(1);
  frame.protocol = htobe16(0x0800);
  frame.hardware_bytes = 6;
  frame.protocol_bytes = 4;
  frame.operation = htobe16(kRequest);
  frame.wanted = htobe32(kDummyAddress);
  return frame;
}

// All of `into`, or false: the end, or not in time.
bool receive(int wire, std::span<std::byte> into, Clock::time_point deadline) {
  while (!into.empty()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    pollfd polled{wire, POLLIN, 0};
    if (left.count() <= 0 || poll(&polled, 1, static_cast<int>(left.count())) < 0) return false;
    if (polled.revents == 0) continue;
    const ssize_t got = ::recv(wire, into.data(), into.size(), MSG_DONTWAIT);
    if (got <= 0) return false;
    into = into.subspan(static_cast<size_t>(got));
  }
  return true;
}

}  // namespace

PasstProcess startPasst(const std::vector<std::string>& command, const std::string& directory,
                        int log_fd) {
  FdPair wire = makeSocketPair(SOCK_STREAM);
  SubprocessOptions options;
  options.arguments = command;
  options.arguments.insert(options.arguments.end(), {"--fd", std::to_string(kWireFd)});
  options.environment.emplace();
  options.working_directory = "/";
  options.new_session = true;
  options.descriptors = {{log_fd, STDERR_FILENO}, {wire.second.get(), kWireFd}};
  return {VmmProcess::spawn(options, directory, kPasstPidFile), std::move(wire.first)};
}

bool awaitPasst(const PasstProcess& passt, const std::array<uint8_t, 6>& mac,
                std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  const int wire = passt.wire.get();
  const ArpFrame question = probe(mac);
  if (::send(wire, &question, sizeof question, MSG_NOSIGNAL) != sizeof question) return false;
  std::vector<std::byte> frame;
  for (;;) {
    uint32_t length = 0;
    if (!receive(wire, std::as_writable_bytes(std::span(&length, 1)), deadline)) return false;
    length = be32toh(length);
    if (length > kMaxFrameBytes) return false;
    frame.resize(length);
    if (!receive(wire, frame, deadline)) return false;
    ArpFrame answer{};
    if (frame.size() < sizeof answer - sizeof answer.length) continue;
    std::memcpy(&answer.target, frame.data(), sizeof answer - sizeof answer.length);
    if (answer.type == question.type && answer.operation == htobe16(kReply)) return true;
  }
}

}  // namespace hull::engine
