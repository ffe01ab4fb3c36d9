#include "daemon/network/udp_relay.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "base/error.h"

namespace hull::engine {

namespace {
constexpr size_t kMaxDatagramBytes = 65535;
constexpr int kDatagramsPerTurn = 64;
}  // namespace

Fd bindUdp(const SocketAddress& address) {
  Fd bound(socket(address.family(), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!bound) throw sysError("create socket");
  if (address.family() == AF_INET6) {
    const int on = 1;
    setsockopt(bound.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  }
  if (bind(bound.get(), address.get(), address.length) < 0) {
    if (errno == EADDRINUSE) throw Error(ErrorKind::kConflict, "address already in use");
    throw sysError("bind");
  }
  return bound;
}

UdpRelay::UdpRelay(EventLoop& loop, Fd socket, const SocketAddress& target, UdpRelayLimits limits)
    : loop_(loop), socket_(std::move(socket)), target_(target), limits_(limits) {
  loop_.add(socket_.get(), EPOLLIN, [this](uint32_t) { takeDatagrams(); });
}

UdpRelay::~UdpRelay() {
  loop_.remove(socket_.get());
  if (sweeper_) loop_.cancel(*sweeper_);
  while (!flows_.empty()) drop(flows_.begin());
}

void UdpRelay::takeDatagrams() {
  std::array<char, kMaxDatagramBytes> buffer;
  for (int i = 0; i < kDatagramsPerTurn; ++i) {
    SocketAddress sender;
    sender.length = sizeof sender.storage;
    const ssize_t got =
        recvfrom(socket_.get(), buffer.data(), buffer.size(), 0, sender.get(), &sender.length);
    if (got < 0) return;
    // Lost like any datagram when the target takes none now.
    if (Flow* flow = flowOf(sender)) {
      send(flow->socket.get(), buffer.data(), static_cast<size_t>(got), MSG_NOSIGNAL);
    }
  }
}

UdpRelay::Flow* UdpRelay::flowOf(const SocketAddress& sender) {
  const std::string key(reinterpret_cast<const char*>(&sender.storage), sender.length);
  if (const auto known = by_sender_.find(key); known != by_sender_.end()) {
    touch(known->second);
    return &*known->second;
  }
  if (flows_.size() >= limits_.flows) drop(flows_.begin());
  Fd out(socket(target_.family(), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!out || connect(out.get(), target_.get(), target_.length) < 0) return nullptr;
  flows_.push_back({key, sender, std::move(out), std::chrono::steady_clock::now()});
  const auto made = std::prev(flows_.end());
  by_sender_[key] = made;
  loop_.add(made->socket.get(), EPOLLIN, [this, flow = &*made](uint32_t) { takeAnswers(*flow); });
  if (!sweeper_) sweep();
  return &*made;
}

void UdpRelay::takeAnswers(Flow& flow) {
  std::array<char, kMaxDatagramBytes> buffer;
  for (int i = 0; i < kDatagramsPerTurn; ++i) {
    const ssize_t got = recv(flow.socket.get(), buffer.data(), buffer.size(), 0);
    if (got < 0) break;  // nothing more, or "refused": the sender may try again
    sendto(socket_.get(), buffer.data(), static_cast<size_t>(got), MSG_NOSIGNAL, flow.sender.get(),
           flow.sender.length);
  }
  touch(by_sender_.at(flow.key));
}

void UdpRelay::touch(Flows::iterator flow) {
  flow->used = std::chrono::steady_clock::now();
  flows_.splice(flows_.end(), flows_, flow);
}

void UdpRelay::drop(Flows::iterator flow) {
  loop_.remove(flow->socket.get());
  by_sender_.erase(flow->key);
  flows_.erase(flow);
}

// Runs as long as there are flows.
void UdpRelay::sweep() {
  const auto now = std::chrono::steady_clock::now();
  while (!flows_.empty() && now - flows_.front().used >= limits_.idle) drop(flows_.begin());
  sweeper_.reset();
  if (!flows_.empty()) sweeper_ = loop_.after(limits_.idle / 2, [this] { sweep(); });
}

}  // namespace hull::engine
