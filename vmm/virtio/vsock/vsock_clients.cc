// The host side of VsockDevice: accepting clients, their greeting, watching their sockets.
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <exception>

#include "base/log.h"
#include "vmm/virtio/vsock/vsock.h"

namespace hull::vmm::virtio {

namespace {

constexpr int kClientsPerTurn = 64;
// What a client wrote and nobody will read is thrown away up to this, so that its own last read
// gives the end instead of ECONNRESET.
constexpr int kDiscardReads = 16;

}  // namespace

void VsockDevice::listen(bool on) noexcept {
  if (on == listening_) return;
  listening_ = on;
  if (!on) return loop_.remove(listener_);
  try {
    loop_.add(listener_, EPOLLIN, [this](uint32_t) { acceptClients(); });
  } catch (const std::exception& error) {
    listening_ = false;
    log::error(fmt::format("vsock: watch the listening socket: {}", error.what()));
  }
}

void VsockDevice::acceptClients() noexcept {
  for (int i = 0; i < kClientsPerTurn; ++i) {
    if (streams_.size() >= kMaxStreams && !evictClosing()) return listen(false);
    Fd client(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) return;
    const uint32_t port = newPort();
    auto& stream = streams_[port];
    stream = std::make_unique<VsockStream>(port, std::move(client));
    watch(*stream);
  }
}

uint32_t VsockDevice::newPort() noexcept {
  constexpr uint32_t kFirstPort = 1u << 30;  // away from the ports that people give to services
  do {
    next_port_ =
        next_port_ < kFirstPort || next_port_ >= UINT32_MAX - 1 ? kFirstPort : next_port_ + 1;
  } while (streams_.contains(next_port_));
  return next_port_;
}

// Sets what we want to hear about a client, given the stream's state. A client that has hung up is
// not watched: epoll would report it for ever.
void VsockDevice::watch(VsockStream& stream) noexcept {
  if (!stream.client || stream.client_gone) return;
  uint32_t events = 0;
  const bool may_read =
      stream.state == State::kGreeting ||
      (stream.state == State::kEstablished && stream.guest_receives && !stream.client_ended);
  if (may_read && !stream.readable) events |= EPOLLIN;
  if (stream.hasPending()) events |= EPOLLOUT;
  try {
    if (loop_.watches(stream.client.get())) return loop_.modify(stream.client.get(), events);
    loop_.add(stream.client.get(), events,
              [this, port = stream.host_port](uint32_t happened) { onClient(port, happened); });
  } catch (const std::exception& error) {
    log::error(fmt::format("vsock: watch a client: {}", error.what()));
    resetStream(stream);
  }
}

void VsockDevice::unwatch(VsockStream& stream) noexcept {
  if (stream.client) loop_.remove(stream.client.get());
}

void VsockDevice::onClient(uint32_t host_port, uint32_t events) noexcept {
  const auto found = streams_.find(host_port);
  if (found == streams_.end()) return;
  VsockStream& stream = *found->second;
  if (stream.state == State::kGreeting) return greet(stream);
  if ((events & EPOLLIN) != 0) stream.readable = true;
  if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
    unwatch(stream);
    stream.client_gone = true;
    stream.readable = true;
    if (stream.state == State::kRequested) return resetStream(stream);
    if (stream.client_ended) stream.shutdown_due |= kShutdownBoth & ~stream.shutdown_told;
  }
  if (stream.hasPending()) stream.flush();
  afterDelivery(stream);
  sendToGuest();
}

void VsockDevice::greet(VsockStream& stream) noexcept {
  switch (stream.readGreeting()) {
    case VsockStream::Greeting::kIncomplete:
      return;
    case VsockStream::Greeting::kBad:
      stream.answer("ERR expected: CONNECT <port>\n");
      return destroy(stream);
    case VsockStream::Greeting::kOk:
      break;
  }
  stream.state = State::kRequested;
  stream.request_due = true;
  enqueue(stream);
  watch(stream);
  sendToGuest();
}

// The guest is told at once; the client's socket closes when everything is delivered.
void VsockDevice::startDraining(VsockStream& stream) noexcept {
  stream.state = State::kDraining;
  stream.request_due = stream.credit_due = false;
  stream.shutdown_due = 0;
  if (!stream.hasPending() || stream.client_gone) return destroy(stream);
  watch(stream);
}

// The client is gone and the guest knows: only its reset is missing. A guest that never sends it
// loses the stream after a while.
void VsockDevice::startClosing(VsockStream& stream) noexcept {
  stream.state = State::kClosing;
  unwatch(stream);
  stream.client.reset();
  try {
    loop_.after(kClosingTimeout, [this, port = stream.host_port, alive = std::weak_ptr(alive_)] {
      if (alive.expired()) return;
      const auto found = streams_.find(port);
      if (found == streams_.end() || found->second->state != State::kClosing) return;
      resetStream(*found->second);
      sendToGuest();
    });
  } catch (const std::exception&) {
    resetStream(stream);
  }
}

bool VsockDevice::evictClosing() noexcept {
  for (const auto& [port, stream] : streams_) {
    if (stream->state != State::kClosing) continue;
    resetStream(*stream);
    return true;
  }
  return false;
}

void VsockDevice::destroy(VsockStream& stream) noexcept {
  unwatch(stream);
  if (stream.client) {
    std::array<std::byte, 16384> scratch;
    for (int i = 0; i < kDiscardReads; ++i) {
      if (recv(stream.client.get(), scratch.data(), scratch.size(), MSG_DONTWAIT) <= 0) break;
    }
  }
  streams_.erase(stream.host_port);
  if (streams_.size() < kMaxStreams) listen(true);
}

}  // namespace hull::vmm::virtio
