// The guests' DNS server on a gateway's address: names of the network are answered here
// (name_table.h), other queries go on to the guest's own servers or the host's resolvers
// (/etc/resolv.conf, read again when it changes; one on 127.0.0.53 is as good as any, since the
// queries leave from the host). A query nobody answers becomes SERVFAIL in bounded time. Nothing is
// cached, so no guest can poison another's answers. Over TCP the connection is relayed to the
// host's resolvers as it is. Made, used and destroyed on the thread of its event loop.
#pragma once

#include <sys/stat.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"
#include "daemon/network/dns_message.h"
#include "daemon/network/name_table.h"
#include "base/socket_address.h"
#include "daemon/network/tcp_relay.h"

namespace hull::engine {

inline constexpr size_t kMaxDnsQueries = 512;         // in flight
inline constexpr size_t kMaxDnsQueriesPerGuest = 64;  // of these
inline constexpr size_t kMaxDnsAttempts = 4;          // resolvers asked for one query
inline constexpr size_t kMaxResolvers = 8;
inline constexpr std::chrono::milliseconds kDnsAttemptTimeout{2500};

// The resolvers of a resolv.conf(5), but for `except` (ourselves).
std::vector<SocketAddress> parseResolvers(const std::string& text, uint32_t except,
                                          uint16_t port = 53);

struct DnsOptions {
  std::string resolv_conf = "/etc/resolv.conf";
  uint16_t resolver_port = 53;
  std::chrono::milliseconds attempt_timeout = kDnsAttemptTimeout;
  NameTable* names = nullptr;  // outlives the forwarder; null: every query goes on
  bool over_tcp = true;        // not where nothing may leave
};

class DnsForwarder {
 public:
  // Listens on `address`:53, or on any other port when that is taken.
  DnsForwarder(EventLoop& loop, uint32_t address, uint16_t wanted_port, DnsOptions options = {});
  ~DnsForwarder();
  DnsForwarder(const DnsForwarder&) = delete;
  DnsForwarder& operator=(const DnsForwarder&) = delete;

  uint16_t port() const { return port_; }
  size_t inFlight() const { return flights_.size(); }

 private:
  struct Flight;
  void takeQueries();
  void takeQuery(std::string_view message, const SocketAddress& guest);
  void askNext(Flight& flight);
  void takeReply(Flight& flight);
  void finish(Flight& flight, std::string_view reply);
  void letGo(Flight& flight);
  const std::vector<SocketAddress>& resolvers();
  SocketAddress resolver(size_t attempt);
  std::optional<SocketAddress> serverOf(const Flight& flight);
  bool answerHere(const DnsQuery& query, std::string_view message, const SocketAddress& guest);
  void send(std::string_view reply, const SocketAddress& guest);

  EventLoop& loop_;
  const uint32_t address_;
  const DnsOptions options_;
  Fd udp_;
  uint16_t port_ = 0;
  std::unique_ptr<TcpRelay> tcp_;
  std::vector<SocketAddress> resolvers_;
  timespec resolvers_changed_{};
  size_t preferred_ = 0;  // the resolver that answered last
  uint64_t next_flight_ = 1;
  std::map<uint64_t, std::unique_ptr<Flight>> flights_;
  std::map<uint32_t, size_t> per_guest_;
};

}  // namespace hull::engine
