#include "machine/ports.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/socket_address.h"
#include "base/udp_relay.h"
#include "machine/datagrams.h"
#include "machine/relay.h"

namespace hull::machine {

namespace {

constexpr int kListenBacklog = 1024;
constexpr int kRetryMilliseconds = 100;

class Publication final : public StreamEvents, public std::enable_shared_from_this<Publication> {
 public:
  Publication(EventLoop& loop, Mux& mux, uint32_t stream)
      : loop_(loop), mux_(mux), stream_(stream) {}

  void onData(std::string_view bytes) override {
    mux_.consumed(stream_, bytes.size());
    if (answered_) return;  // one request only; the rest is nobody's
    line_.append(bytes.substr(0, kMaxPublishRequestBytes + 1 - line_.size()));
    const size_t end = line_.find('\n');
    if (end != std::string::npos) return publish(std::string_view(line_).substr(0, end));
    if (line_.size() > kMaxPublishRequestBytes) answer({{"error", "publish: request too long"}});
  }
  void onFin() override {
    mux_.close(stream_);
    end();
  }
  void onClosed(bool) override { end(); }
  void onWritable() override {}

 private:
  void publish(std::string_view line) {
    try {
      const PublishRequest request = parsePublishRequest(line);
      BoundPort bound = bindPort(request);
      target_ = (request.udp ? "udp:" : "tcp:") + request.target;
      if (request.udp) {
        relay_.emplace(loop_, std::move(bound.socket), [this](UdpRelay::Answer answer) {
          return converseOver(mux_, target_, std::move(answer));
        });
      } else {
        listener_ = std::move(bound.socket);
        watch();
      }
      answer({{"ok", true}, {"port", bound.port}});
    } catch (const Error& error) {
      answer({{"error", error.what()}});
    }
  }
  void answer(const nlohmann::json& message) {
    answered_ = true;
    mux_.send(stream_,
              message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    if (!published()) mux_.fin(stream_);
  }

  void watch() {
    loop_.add(listener_.get(), EPOLLIN,
              [self = shared_from_this()](uint32_t) { self->acceptOne(); });
  }
  void acceptOne() {
    Fd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (client) {
      const int on = 1;
      setsockopt(client.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      Relay::open(loop_, mux_, target_, std::move(client));
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      // Level-triggered: without a pause this would spin until a descriptor is free.
      loop_.remove(listener_.get());
      loop_.after(std::chrono::milliseconds(kRetryMilliseconds), [self = shared_from_this()] {
        if (self->listener_ && !self->loop_.watches(self->listener_.get())) {
          self->watch();
        }
      });
    }
  }
  bool published() const { return listener_ || relay_; }
  void end() {
    const auto self = shared_from_this();
    relay_.reset();
    if (!listener_) return;
    loop_.remove(listener_.get());
    listener_.reset();
  }

  EventLoop& loop_;
  Mux& mux_;
  uint32_t stream_;
  std::string line_;
  std::string target_;
  bool answered_ = false;
  Fd listener_;                    // of TCP
  std::optional<UdpRelay> relay_;  // of UDP
};

}  // namespace

PublishRequest parsePublishRequest(std::string_view line) {
  try {
    const auto json = nlohmann::json::parse(line);
    const auto& body = json.at("publish");
    const std::string protocol = body.value("protocol", "tcp");
    if (protocol != "tcp" && protocol != "udp") {
      throw Error(ErrorKind::kNotSupported,
                  "publish: tcp and udp go through hull machine, not " + protocol);
    }
    PublishRequest request;
    request.udp = protocol == "udp";
    request.address = body.value("address", "0.0.0.0");
    const auto port = body.at("port").get<int64_t>();
    if (port < 0 || port > 65535) {
      throw Error(ErrorKind::kInvalidArgument, "publish: port " + std::to_string(port));
    }
    request.port = static_cast<uint16_t>(port);
    request.target = body.at("target").get<std::string>();
    return request;
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorKind::kInvalidArgument, std::string("publish: ") + error.what());
  }
}

BoundPort bindPort(const PublishRequest& request) {
  const auto address = SocketAddress::parse(request.address, request.port);
  if (!address) {
    throw Error(ErrorKind::kInvalidArgument, "bind " + request.address + ": not an address");
  }
  const std::string what = "bind " + request.address + ":" + std::to_string(request.port);
  const int type = request.udp ? SOCK_DGRAM : SOCK_STREAM;
  BoundPort bound;
  bound.socket.reset(socket(address->family(), type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!bound.socket) throw sysError(what);
  const int on = 1;
  // Of UDP two could then have one port.
  if (!request.udp) setsockopt(bound.socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address->family() == AF_INET6) {
    setsockopt(bound.socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  }
  if (bind(bound.socket.get(), address->get(), address->length) < 0 ||
      (!request.udp && listen(bound.socket.get(), kListenBacklog) < 0)) {
    throw sysError(what);
  }
  bound.port = SocketAddress::local(bound.socket.get()).port();
  return bound;
}

std::shared_ptr<StreamEvents> servePublish(EventLoop& loop, Mux& mux, uint32_t stream) {
  return std::make_shared<Publication>(loop, mux, stream);
}

}  // namespace hull::machine
