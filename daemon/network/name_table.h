// Which names the guests of a network find each other by. A guest asks from its address in one
// network and is told what is in any network it is in, and nothing else; it learns of the host what
// /etc/hosts says (no loopback addresses: those are the guest's own), and host.docker.internal. Any
// thread.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "daemon/network/dns_message.h"
#include "daemon/network/leases.h"
#include "daemon/network/network.h"
#include "base/socket_address.h"

namespace hull::engine {

class NameTable {
 public:
  explicit NameTable(std::string hosts_file) : hosts_file_(std::move(hosts_file)) {}

  // All of it anew.
  void set(const std::vector<NetworkSpec>& networks, const std::vector<Lease>& leases);

  // nullopt: not known here, ask elsewhere.
  std::optional<DnsAnswer> find(uint32_t guest, const DnsQuery& query);
  // The servers a guest's own configuration names (--dns); none: the host's.
  std::vector<SocketAddress> servers(uint32_t guest, uint16_t port) const;
  // On an internal network nothing leaves, questions neither.
  bool mayAskElsewhere(uint32_t guest) const;

 private:
  struct Member {
    uint32_t address = 0;
    std::optional<Address6> address6;
  };
  struct Guest {
    std::vector<std::string> networks;  // ids
    std::vector<std::string> servers;
    bool outside = false;
    uint32_t gateway = 0;
  };

  std::optional<DnsAnswer> findMember(const Guest& guest, const DnsQuery& query) const;
  std::optional<DnsAnswer> findPointer(const Guest& guest, const DnsQuery& query) const;
  std::optional<DnsAnswer> findOnHost(const DnsQuery& query);
  void readHosts();

  const std::string hosts_file_;
  mutable std::mutex mutex_;  // below
  std::map<uint32_t, Guest> guests_;
  std::map<std::string, std::map<std::string, std::vector<Member>>> names_;  // network, name
  std::map<std::string, std::pair<std::string, std::string>> pointers_;  // PTR name: network, name
  std::map<std::string, std::vector<Member>> hosts_;
  timespec hosts_changed_{};
};

}  // namespace hull::engine
