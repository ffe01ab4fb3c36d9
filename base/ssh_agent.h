// Messages of an ssh agent (draft-ietf-sshm-ssh-agent) as far as one that carries them needs to
// know them: where one ends, and which may pass. A build step may ask what keys there are and for
// signatures; it may not add, remove or lock any, nor use extensions. Used by hull-init, the engine
// and the client, which each distrust the one before it. Any thread, no state shared.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace hull::ssh_agent {

inline constexpr size_t kMaxMessageBytes = 256 * 1024;  // what OpenSSH's agent takes
inline constexpr size_t kSizeBytes = 4;                 // before each message, big-endian

// Messages out of a stream. Holds no more than one message beyond what was fed at once.
class Framer {
 public:
  void feed(std::string_view bytes) {
    if (!broken_) buffer_.append(bytes);
  }
  // The next whole message, its size taken off; never an empty one.
  std::optional<std::string> next();
  // A size of 0 or beyond kMaxMessageBytes has come: the stream is of no more use.
  bool broken() const { return broken_; }

 private:
  std::string buffer_;
  bool broken_ = false;
};

std::string framed(std::string_view message);

// SSH_AGENTC_REQUEST_IDENTITIES without anything behind it, SSH_AGENTC_SIGN_REQUEST.
bool mayPass(std::string_view request);
// SSH_AGENT_FAILURE: the answer to everything else.
std::string refusal();

}  // namespace hull::ssh_agent
