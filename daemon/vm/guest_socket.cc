#include "daemon/vm/guest_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "guest-init/protocol/protocol.h"

namespace hull::engine {

namespace {
constexpr int kRetryMs = 1000;
// Connections that were refused and may still send what they wanted: so they come to read why.
constexpr size_t kKeptRefusals = 16;
}  // namespace

// Outlives the socket where connections do.
struct GuestSocket::Places {
  std::atomic<size_t> taken = 0;
};

GuestSocket::GuestSocket(Fd first, Open open, Limit limit, Connected connected)
    : open_(std::move(open)),
      limit_(std::move(limit)),
      connected_(std::move(connected)),
      places_(std::make_shared<Places>()),
      over_(eventfd(0, EFD_CLOEXEC)) {
  if (!over_) throw sysError("create eventfd");
  thread_ =
      std::thread([this, stream = std::move(first)]() mutable { takeAll(std::move(stream)); });
}

GuestSocket::~GuestSocket() {
  const uint64_t one = 1;
  writeFull(over_.get(), std::as_bytes(std::span(&one, 1)));
  thread_.join();
}

void GuestSocket::takeAll(Fd stream) {
  for (;;) {
    try {
      if (!stream) stream = open_();
      if (awaitConnection(stream)) {
        pass(std::move(stream));
        stream = {};
        continue;
      }
    } catch (const std::exception& error) {
      log::debug(std::string("socket in a guest: ") + error.what());
    }
    stream.reset();
    if (!pauseUnlessOver()) return;
  }
}

// False when the stream or this is over.
bool GuestSocket::awaitConnection(const Fd& stream) const {
  std::array<pollfd, 2> waiting{{{stream.get(), POLLIN, 0}, {over_.get(), POLLIN, 0}}};
  while (poll(waiting.data(), waiting.size(), -1) < 0) {
    if (errno != EINTR) throw sysError("wait for a connection");
  }
  if (waiting[1].revents != 0) return false;
  char first = 0;
  return recv(stream.get(), &first, 1, MSG_DONTWAIT) == 1 && first == guest::kConnected;
}

bool GuestSocket::pauseUnlessOver() const {
  pollfd over{over_.get(), POLLIN, 0};
  return poll(&over, 1, kRetryMs) <= 0;
}

void GuestSocket::pass(Fd connection) {
  if (places_->taken >= limit_.connections) return refuse(std::move(connection));
  ++places_->taken;
  std::shared_ptr<void> place(places_.get(), [places = places_](void*) { --places->taken; });
  connected_(std::move(connection), std::move(place));
}

void GuestSocket::refuse(Fd connection) {
  send(connection.get(), limit_.refusal.data(), limit_.refusal.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  shutdown(connection.get(), SHUT_WR);
  if (refused_.size() == kKeptRefusals) refused_.pop_front();
  refused_.push_back(std::move(connection));
}

}  // namespace hull::engine
