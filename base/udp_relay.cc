#include "base/udp_relay.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>

#include "base/error.h"

namespace hull {

namespace {

constexpr int kDatagramsPerTurn = 64;

class ConnectedConversation final : public UdpRelay::Conversation {
 public:
  ConnectedConversation(EventLoop& loop, Fd socket, UdpRelay::Answer answer)
      : loop_(loop), socket_(std::move(socket)), answer_(std::move(answer)) {
    loop_.add(socket_.get(), EPOLLIN, [this](uint32_t) { takeAnswers(); });
  }
  ~ConnectedConversation() override { loop_.remove(socket_.get()); }

  bool send(std::string_view datagram) override {
    ::send(socket_.get(), datagram.data(), datagram.size(), MSG_NOSIGNAL);
    return true;
  }

 private:
  void takeAnswers() {
    std::array<char, kMaxDatagramBytes> buffer;
    for (int i = 0; i < kDatagramsPerTurn; ++i) {
      const ssize_t got = recv(socket_.get(), buffer.data(), buffer.size(), 0);
      if (got < 0) return;  // nothing more, or "refused": the sender may try again
      answer_({buffer.data(), static_cast<size_t>(got)});
    }
  }

  EventLoop& loop_;
  const Fd socket_;
  const UdpRelay::Answer answer_;
};

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

std::unique_ptr<UdpRelay::Conversation> converseWith(EventLoop& loop, const SocketAddress& target,
                                                     UdpRelay::Answer answer) {
  Fd out(socket(target.family(), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!out || connect(out.get(), target.get(), target.length) < 0) return nullptr;
  return std::make_unique<ConnectedConversation>(loop, std::move(out), std::move(answer));
}

UdpRelay::UdpRelay(EventLoop& loop, Fd socket, Open open, UdpRelayLimits limits)
    : loop_(loop), socket_(std::move(socket)), open_(std::move(open)), limits_(limits) {
  loop_.add(socket_.get(), EPOLLIN, [this](uint32_t) { takeDatagrams(); });
}

UdpRelay::~UdpRelay() {
  loop_.remove(socket_.get());
  if (sweeper_) loop_.cancel(*sweeper_);
}

void UdpRelay::takeDatagrams() {
  std::array<char, kMaxDatagramBytes> buffer;
  for (int i = 0; i < kDatagramsPerTurn; ++i) {
    SocketAddress sender;
    sender.length = sizeof sender.storage;
    const ssize_t got =
        recvfrom(socket_.get(), buffer.data(), buffer.size(), 0, sender.get(), &sender.length);
    if (got < 0) return;
    const std::string_view datagram(buffer.data(), static_cast<size_t>(got));
    const auto flow = flowOf(sender);
    // One that is over makes place for a new one, which the sender's next try finds.
    if (flow != flows_.end() && !flow->conversation->send(datagram)) drop(flow);
  }
}

UdpRelay::Flows::iterator UdpRelay::flowOf(const SocketAddress& sender) {
  const std::string key(reinterpret_cast<const char*>(&sender.storage), sender.length);
  if (const auto known = by_sender_.find(key); known != by_sender_.end()) {
    touch(known->second);
    return known->second;
  }
  if (flows_.size() >= limits_.flows) drop(flows_.begin());
  const auto made = flows_.insert(flows_.end(), Flow{key, sender, nullptr, {}});
  made->conversation = open_([this, made](std::string_view datagram) { answer(made, datagram); });
  if (!made->conversation) {
    flows_.erase(made);
    return flows_.end();
  }
  by_sender_[key] = made;
  touch(made);
  if (!sweeper_) sweep();
  return made;
}

void UdpRelay::answer(Flows::iterator flow, std::string_view datagram) {
  sendto(socket_.get(), datagram.data(), datagram.size(), MSG_NOSIGNAL, flow->sender.get(),
         flow->sender.length);
  touch(flow);
}

void UdpRelay::touch(Flows::iterator flow) {
  flow->used = std::chrono::steady_clock::now();
  flows_.splice(flows_.end(), flows_, flow);
}

void UdpRelay::drop(Flows::iterator flow) {
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

}  // namespace hull
