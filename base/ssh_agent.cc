#include "base/ssh_agent.h"

#include <cstdint>

namespace hull::ssh_agent {

namespace {

// draft-ietf-sshm-ssh-agent, "Message numbers"
constexpr char kFailure = 5;
constexpr char kRequestIdentities = 11;
constexpr char kSignRequest = 13;

uint32_t sizeIn(std::string_view bytes) {
  uint32_t size = 0;
  for (size_t i = 0; i < kSizeBytes; ++i) size = size << 8 | static_cast<unsigned char>(bytes[i]);
  return size;
}

}  // namespace

std::optional<std::string> Framer::next() {
  if (broken_ || buffer_.size() < kSizeBytes) return std::nullopt;
  const size_t size = sizeIn(buffer_);
  if (size == 0 || size > kMaxMessageBytes) {
    broken_ = true;
    buffer_.clear();
    return std::nullopt;
  }
  if (buffer_.size() - kSizeBytes < size) return std::nullopt;
  std::string message = buffer_.substr(kSizeBytes, size);
  buffer_.erase(0, kSizeBytes + size);
  return message;
}

std::string framed(std::string_view message) {
  std::string bytes;
  for (size_t i = 0; i < kSizeBytes; ++i) {
    bytes += static_cast<char>(message.size() >> (8 * (kSizeBytes - 1 - i)) & 0xff);
  }
  bytes += message;
  return bytes;
}

bool mayPass(std::string_view request) {
  if (request.empty() || request.size() > kMaxMessageBytes) return false;
  return request.front() == kSignRequest ||
         (request.front() == kRequestIdentities && request.size() == 1);
}

std::string refusal() {
  return {kFailure};
}

}  // namespace hull::ssh_agent
