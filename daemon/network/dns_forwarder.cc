#include "daemon/network/dns_forwarder.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "daemon/network/address.h"

namespace hull::engine {

namespace {

constexpr size_t kMaxResolvConfBytes = 64 * 1024;
constexpr int kQueriesPerTurn = 32;
constexpr RelayLimits kTcpLimits{64, std::chrono::seconds(3), std::chrono::seconds(60)};
constexpr int kListenTries = 16;

// UDP and TCP on the same port.
struct Listeners {
  Fd udp, tcp;
  uint16_t port = 0;
};

std::optional<Listeners> tryToListen(const std::string& address, uint16_t port) {
  Listeners made;
  try {
    made.tcp = listenTcp(*SocketAddress::parse(address, port));
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kConflict) return std::nullopt;
    throw;
  }
  const auto bound = SocketAddress::local(made.tcp.get());
  made.udp.reset(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!made.udp) throw sysError("create socket");
  if (bind(made.udp.get(), bound.get(), bound.length) < 0) {
    if (errno == EADDRINUSE) return std::nullopt;
    throw sysError("bind");
  }
  made.port = bound.port();
  return made;
}

Listeners listenOn(uint32_t address, uint16_t wanted) {
  const std::string text = formatAddress(address);
  return inContext("serve names on " + text, [&] {
    if (auto made = tryToListen(text, wanted)) return std::move(*made);
    for (int i = 0; i < kListenTries; ++i) {
      if (auto made = tryToListen(text, 0)) return std::move(*made);
    }
    throw Error(ErrorKind::kConflict, "no port is free");
  });
}

}  // namespace

std::vector<SocketAddress> parseResolvers(const std::string& text, uint32_t except, uint16_t port) {
  std::vector<SocketAddress> found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line) && found.size() < kMaxResolvers;) {
    std::istringstream words(line);
    std::string keyword, host;
    words >> keyword >> host;
    if (keyword != "nameserver") continue;
    const auto address = SocketAddress::parse(host, port);
    if (address && (except == 0 || address->ipv4() != except)) found.push_back(*address);
  }
  return found;
}

// One query of a guest, on its way to one resolver after another.
struct DnsForwarder::Flight {
  uint64_t number = 0;
  SocketAddress guest;
  DnsQuery query;
  std::string message;
  std::vector<SocketAddress> servers;  // of its own; none: the host's
  size_t attempts = 0;
  Fd socket;
  std::optional<EventLoop::TimerId> timeout;
};

DnsForwarder::DnsForwarder(EventLoop& loop, uint32_t address, uint16_t wanted_port,
                           DnsOptions options)
    : loop_(loop), address_(address), options_(std::move(options)) {
  Listeners listeners = listenOn(address, wanted_port);
  udp_ = std::move(listeners.udp);
  port_ = listeners.port;
  loop_.add(udp_.get(), EPOLLIN, [this](uint32_t) { takeQueries(); });
  if (!options_.over_tcp) return;
  tcp_ = std::make_unique<TcpRelay>(
      loop_, std::move(listeners.tcp),
      [this](size_t attempt) -> std::optional<SocketAddress> {
        if (attempt >= kMaxDnsAttempts || resolvers().empty()) return std::nullopt;
        return resolver(attempt);
      },
      kTcpLimits);
}

DnsForwarder::~DnsForwarder() {
  loop_.remove(udp_.get());
  while (!flights_.empty()) letGo(*flights_.begin()->second);
}

const std::vector<SocketAddress>& DnsForwarder::resolvers() {
  struct stat info {};
  ::stat(options_.resolv_conf.c_str(), &info);
  if (info.st_mtim.tv_sec != resolvers_changed_.tv_sec ||
      info.st_mtim.tv_nsec != resolvers_changed_.tv_nsec) {
    resolvers_changed_ = info.st_mtim;
    preferred_ = 0;
    try {
      resolvers_ = parseResolvers(readFile(options_.resolv_conf, kMaxResolvConfBytes), address_,
                                  options_.resolver_port);
    } catch (const Error& error) {
      log::warning(std::string("names cannot be looked up for guests: ") + error.what());
      resolvers_.clear();
    }
  }
  return resolvers_;
}

SocketAddress DnsForwarder::resolver(size_t attempt) {
  return resolvers_[(preferred_ + attempt) % resolvers_.size()];
}

void DnsForwarder::takeQueries() {
  std::array<char, kMaxDnsQueryBytes + 1> buffer;
  for (int i = 0; i < kQueriesPerTurn; ++i) {
    SocketAddress guest;
    guest.length = sizeof guest.storage;
    const ssize_t got =
        recvfrom(udp_.get(), buffer.data(), buffer.size(), 0, guest.get(), &guest.length);
    if (got < 0) return;
    takeQuery({buffer.data(), static_cast<size_t>(got)}, guest);
  }
}

void DnsForwarder::takeQuery(std::string_view message, const SocketAddress& guest) {
  auto query = parseDnsQuery(message);
  if (!query || answerHere(*query, message, guest)) return;
  if (flights_.size() >= kMaxDnsQueries) return;
  size_t& of_guest = per_guest_[guest.ipv4()];
  if (of_guest >= kMaxDnsQueriesPerGuest) return;
  ++of_guest;
  auto flight = std::make_unique<Flight>();
  flight->number = next_flight_++;
  flight->guest = guest;
  flight->query = std::move(*query);
  flight->message = message;
  if (options_.names)
    flight->servers = options_.names->servers(guest.ipv4(), options_.resolver_port);
  Flight& added = *flight;
  flights_[added.number] = std::move(flight);
  resolvers();
  askNext(added);
}

bool DnsForwarder::answerHere(const DnsQuery& query, std::string_view message,
                              const SocketAddress& guest) {
  if (!options_.names) return false;
  if (const auto answer = options_.names->find(guest.ipv4(), query)) {
    send(dnsReply(query, message, *answer), guest);
    return true;
  }
  if (options_.names->mayAskElsewhere(guest.ipv4())) return false;
  send(dnsReply(query, message, {DnsCode::kNameError, {}}), guest);
  return true;
}

// The next one to ask.
std::optional<SocketAddress> DnsForwarder::serverOf(const Flight& flight) {
  if (flight.attempts >= kMaxDnsAttempts) return std::nullopt;
  if (!flight.servers.empty()) return flight.servers[flight.attempts % flight.servers.size()];
  if (resolvers_.empty()) return std::nullopt;
  return resolver(flight.attempts);
}

void DnsForwarder::askNext(Flight& flight) {
  if (flight.socket.valid()) loop_.remove(flight.socket.get());
  if (flight.timeout) loop_.cancel(*flight.timeout);
  flight.timeout.reset();
  while (const auto server = serverOf(flight)) {
    const SocketAddress& address = *server;
    ++flight.attempts;
    // A socket of its own for each try: connected, so that only the resolver can answer, and from
    // a port that nobody can guess.
    flight.socket.reset(socket(address.family(), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!flight.socket || connect(flight.socket.get(), address.get(), address.length) < 0 ||
        ::send(flight.socket.get(), flight.message.data(), flight.message.size(), MSG_NOSIGNAL) <
            0) {
      continue;
    }
    loop_.add(flight.socket.get(), EPOLLIN, [this, &flight](uint32_t) { takeReply(flight); });
    flight.timeout = loop_.after(options_.attempt_timeout, [this, &flight] {
      flight.timeout.reset();
      askNext(flight);
    });
    return;
  }
  flight.socket.reset();
  finish(flight, dnsServerFailure(flight.query, flight.message));
}

void DnsForwarder::takeReply(Flight& flight) {
  std::array<char, kMaxDnsMessageBytes> buffer;
  const ssize_t got = recv(flight.socket.get(), buffer.data(), buffer.size(), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got < 0) return askNext(flight);  // refused: nobody listens there
  const std::string_view reply(buffer.data(), static_cast<size_t>(got));
  if (!answersDnsQuery(flight.query, reply)) return;  // the right one may still come
  if (flight.servers.empty() && !resolvers_.empty())
    preferred_ = (preferred_ + flight.attempts - 1) % resolvers_.size();
  finish(flight, reply);
}

void DnsForwarder::send(std::string_view reply, const SocketAddress& guest) {
  sendto(udp_.get(), reply.data(), reply.size(), MSG_NOSIGNAL, guest.get(), guest.length);
}

void DnsForwarder::finish(Flight& flight, std::string_view reply) {
  send(reply, flight.guest);
  letGo(flight);
}

void DnsForwarder::letGo(Flight& flight) {
  if (flight.socket.valid()) loop_.remove(flight.socket.get());
  if (flight.timeout) loop_.cancel(*flight.timeout);
  const auto guest = per_guest_.find(flight.guest.ipv4());
  if (guest != per_guest_.end() && --guest->second == 0) per_guest_.erase(guest);
  flights_.erase(flight.number);
}

}  // namespace hull::engine
