#include "daemon/vm/step_agents.h"

#include <sys/socket.h>

#include <array>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/ssh_agent.h"
#include "daemon/vm/guest_wire.h"

namespace hull::engine {

namespace {
constexpr size_t kReadBytes = 16 * 1024;
}

StepAgents::~StepAgents() {
  over_ = true;
  sockets_.clear();  // nobody connects any more
  for (const Connection& one : connections_) shutdown(one.guest.get(), SHUT_RDWR);
  for (Connection& one : connections_) one.thread.join();
}

void StepAgents::serve(GuestSocket::Open open, std::shared_ptr<build::SshAgent> agent) {
  Fd first = open();
  sockets_.push_back(std::make_unique<GuestSocket>(
      std::move(first), std::move(open), GuestSocket::Limit{kMaxAgentConnections, {}},
      [this, agent = std::move(agent)](Fd guest, std::shared_ptr<void> place) {
        begin(std::move(guest), std::move(place), agent);
      }));
}

void StepAgents::begin(Fd guest, std::shared_ptr<void> place,
                       std::shared_ptr<build::SshAgent> agent) {
  const std::lock_guard lock(mutex_);
  connections_.remove_if([](Connection& old) {
    if (!old.ended) return false;
    old.thread.join();
    return true;
  });
  Connection& one = connections_.emplace_back();
  one.guest = std::move(guest);
  one.agent = std::move(agent);
  try {
    one.thread = std::thread([this, &one, held = std::move(place)]() mutable {
      try {
        answerAll(one.guest.get(), *one.agent);
      } catch (const std::exception&) {
        // The guest is gone, or the step is over.
      }
      shutdown(one.guest.get(), SHUT_RDWR);
      held.reset();
      one.ended = true;
    });
  } catch (...) {
    connections_.pop_back();
    throw;
  }
}

void StepAgents::answerAll(int guest, build::SshAgent& agent) const {
  ssh_agent::Framer requests;
  std::array<char, kReadBytes> buffer;
  bool warned = false;  // once: a step may ask without end
  while (!requests.broken()) {
    const size_t got = readSome(guest, std::as_writable_bytes(std::span(buffer)));
    if (got == 0) return;
    requests.feed({buffer.data(), got});
    while (const auto request = requests.next()) {
      std::string answer = ssh_agent::refusal();
      if (ssh_agent::mayPass(*request)) {
        try {
          answer = agent.answer(*request, [this] { return over_.load(); });
        } catch (const Error& error) {
          if (over_) return;
          if (!std::exchange(warned, true))
            log::warning(std::string("ssh agent of a build: ") + error.what());
        }
      }
      sendBlocking(guest, asBytes(ssh_agent::framed(answer)));
    }
  }
}

}  // namespace hull::engine
