#include "daemon/network/published_ports.h"

#include "base/error.h"
#include "base/udp_relay.h"
#include "daemon/network/address.h"
#include "daemon/network/host_publisher.h"
#include "daemon/network/tcp_relay.h"

namespace hull::engine {

namespace {

constexpr size_t kShortIdCharacters = 12;

}  // namespace

Error bindFailure(const std::string& container, const PortMapping& wanted, const Error& cause) {
  std::string text = "driver failed programming external connectivity on endpoint " +
                     container.substr(0, kShortIdCharacters) + ": Bind for " + wanted.host_address +
                     ":" + std::to_string(wanted.host_port) + " failed: ";
  text += cause.kind() == ErrorKind::kConflict ? "port is already allocated" : cause.what();
  return Error(cause.kind(), text);
}

struct PublishedPorts::Port {
  PortMapping mapping;
  std::unique_ptr<TcpRelay> tcp;
  std::unique_ptr<UdpRelay> udp;
  HostPort on_host;
};

PublishedPorts::PublishedPorts(LoopThread& loop, std::string publisher)
    : loop_(loop), publisher_(std::move(publisher)) {}

PublishedPorts::~PublishedPorts() {
  for (auto& [container, ports] : ports_) close(std::move(ports));
}

std::unique_ptr<PublishedPorts::Port> PublishedPorts::open(uint32_t guest,
                                                           const PortMapping& wanted) {
  const bool through_machine = !publisher_.empty(), udp = wanted.protocol == "udp";
  const auto address = SocketAddress::parse(through_machine ? "127.0.0.1" : wanted.host_address,
                                            through_machine ? 0 : wanted.host_port);
  if (!address) {
    throw Error(ErrorKind::kInvalidArgument, "\"" + wanted.host_address + "\" is no address");
  }
  Fd socket = udp ? bindUdp(*address) : listenTcp(*address);
  auto port = std::make_unique<Port>();
  port->mapping = wanted;
  port->mapping.host_port_last = 0;
  port->mapping.host_port = SocketAddress::local(socket.get()).port();
  if (through_machine) {
    port->on_host = publishOnHost(publisher_, wanted.host_address, wanted.host_port,
                                  wanted.protocol, port->mapping.host_port);
    port->mapping.host_port = port->on_host.port;
  }
  const auto target = SocketAddress::parse(formatAddress(guest), wanted.guest_port);
  loop_.run([&] {
    if (udp) {
      port->udp = std::make_unique<UdpRelay>(
          loop_.loop(), std::move(socket), [this, target](UdpRelay::Answer answer) {
            return converseWith(loop_.loop(), *target, std::move(answer));
          });
      return;
    }
    port->tcp = std::make_unique<TcpRelay>(
        loop_.loop(), std::move(socket),
        [target](size_t attempt) { return attempt == 0 ? target : std::nullopt; });
  });
  return port;
}

// Of a range, the first port that nobody has.
std::unique_ptr<PublishedPorts::Port> PublishedPorts::openFirst(uint32_t guest,
                                                                const PortMapping& wanted) {
  PortMapping tried = wanted;
  for (;; ++tried.host_port) {
    try {
      return open(guest, tried);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kConflict || tried.host_port >= wanted.host_port_last) throw;
    }
  }
}

std::vector<PortMapping> PublishedPorts::publish(const std::string& container, uint32_t guest,
                                                 const std::vector<PortMapping>& ports) {
  const std::lock_guard lock(mutex_);
  std::vector<std::unique_ptr<Port>> opened;
  std::vector<PortMapping> real;
  for (PortMapping wanted : ports) {
    if (wanted.host_address.empty()) wanted.host_address = "0.0.0.0";
    try {
      opened.push_back(openFirst(guest, wanted));
    } catch (const Error& error) {
      close(std::move(opened));
      throw bindFailure(container, wanted, error);
    }
    real.push_back(opened.back()->mapping);
  }
  auto& all = ports_[container];
  for (auto& port : opened) all.push_back(std::move(port));
  return real;
}

void PublishedPorts::unpublish(const std::string& container) {
  const std::lock_guard lock(mutex_);
  const auto found = ports_.find(container);
  if (found == ports_.end()) return;
  close(std::move(found->second));
  ports_.erase(found);
}

void PublishedPorts::close(std::vector<std::unique_ptr<Port>> ports) {
  if (!ports.empty()) loop_.run([&] { ports.clear(); });
}

}  // namespace hull::engine
