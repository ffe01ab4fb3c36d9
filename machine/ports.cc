#include "machine/ports.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
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
    if (bound_.listener || answered_) return;  // one request only; the rest is nobody's
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
      bound_ = bindPort(request.address, request.port);
      target_ = "tcp:" + request.target;
      watch();
      answer({{"ok", true}, {"port", bound_.port}});
    } catch (const Error& error) {
      answer({{"error", error.what()}});
    }
  }
  void answer(const nlohmann::json& message) {
    answered_ = true;
    mux_.send(stream_,
              message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    if (!bound_.listener) mux_.fin(stream_);
  }

  void watch() {
    loop_.add(bound_.listener.get(), EPOLLIN,
              [self = shared_from_this()](uint32_t) { self->acceptOne(); });
  }
  void acceptOne() {
    Fd client(accept4(bound_.listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (client) {
      const int on = 1;
      setsockopt(client.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      Relay::open(loop_, mux_, target_, std::move(client));
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      // Level-triggered: without a pause this would spin until a descriptor is free.
      loop_.remove(bound_.listener.get());
      loop_.after(std::chrono::milliseconds(kRetryMilliseconds), [self = shared_from_this()] {
        if (self->bound_.listener && !self->loop_.watches(self->bound_.listener.get())) {
          self->watch();
        }
      });
    }
  }
  void end() {
    if (!bound_.listener) return;
    const auto self = shared_from_this();
    loop_.remove(bound_.listener.get());
    bound_.listener.reset();
  }

  EventLoop& loop_;
  Mux& mux_;
  uint32_t stream_;
  std::string line_;
  std::string target_;
  bool answered_ = false;
  BoundPort bound_;
};

}  // namespace

PublishRequest parsePublishRequest(std::string_view line) {
  try {
    const auto json = nlohmann::json::parse(line);
    const auto& body = json.at("publish");
    if (const std::string protocol = body.value("protocol", "tcp"); protocol != "tcp") {
      throw Error(ErrorKind::kNotSupported,
                  "publish: only tcp goes through hull machine, not " + protocol);
    }
    PublishRequest request;
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

BoundPort bindPort(const std::string& address, uint16_t port) {
  sockaddr_storage storage{};
  auto* four = reinterpret_cast<sockaddr_in*>(&storage);
  auto* six = reinterpret_cast<sockaddr_in6*>(&storage);
  socklen_t size = 0;
  if (inet_pton(AF_INET, address.c_str(), &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons(port);
    size = sizeof *four;
  } else if (inet_pton(AF_INET6, address.c_str(), &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(port);
    size = sizeof *six;
  } else {
    throw Error(ErrorKind::kInvalidArgument, "bind " + address + ": not an address");
  }
  const std::string what = "bind " + address + ":" + std::to_string(port);
  BoundPort bound;
  bound.listener.reset(socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!bound.listener) throw sysError(what);
  const int on = 1;
  setsockopt(bound.listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (storage.ss_family == AF_INET6) {
    setsockopt(bound.listener.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  }
  auto* general = reinterpret_cast<sockaddr*>(&storage);
  if (bind(bound.listener.get(), general, size) < 0 ||
      listen(bound.listener.get(), kListenBacklog) < 0 ||
      getsockname(bound.listener.get(), general, &size) < 0) {
    throw sysError(what);
  }
  bound.port = ntohs(storage.ss_family == AF_INET ? four->sin_port : six->sin6_port);
  return bound;
}

std::shared_ptr<StreamEvents> servePublish(EventLoop& loop, Mux& mux, uint32_t stream) {
  return std::make_shared<Publication>(loop, mux, stream);
}

}  // namespace hull::machine
