#include "daemon/network/name_table.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "daemon/network/network_plan.h"

namespace hull::engine {

namespace {

constexpr size_t kMaxHostsBytes = 1 << 20;
constexpr const char* kHostNames[] = {"host.docker.internal", "gateway.docker.internal"};

DnsRecord recordOf(uint32_t address) {
  const uint32_t wire = htonl(address);
  std::string data(sizeof wire, '\0');
  std::memcpy(data.data(), &wire, sizeof wire);
  return {kDnsA, data};
}

DnsRecord recordOf(const Address6& address) {
  return {kDnsAaaa, std::string(address.begin(), address.end())};
}

template <typename Members>
DnsAnswer answerOf(const Members& members, uint16_t type) {
  DnsAnswer answer;
  for (const auto& member : members) {
    if ((type == kDnsA || type == kDnsAny) && member.address != 0) {
      answer.records.push_back(recordOf(member.address));
    }
    if ((type == kDnsAaaa || type == kDnsAny) && member.address6) {
      answer.records.push_back(recordOf(*member.address6));
    }
  }
  return answer;
}

// "2.0.18.172.in-addr.arpa" (RFC 1035 §3.5).
std::string pointerName(uint32_t address) {
  std::string name;
  for (int shift = 0; shift < 32; shift += 8) {
    name += std::to_string(address >> shift & 0xff) + ".";
  }
  return name + "in-addr.arpa";
}

}  // namespace

void NameTable::set(const std::vector<NetworkSpec>& networks, const std::vector<Lease>& leases) {
  std::map<std::string, const NetworkSpec*> by_id;
  for (const NetworkSpec& network : networks) by_id[network.id] = &network;
  std::map<std::string, std::vector<const Lease*>> of_container;
  for (const Lease& lease : leases) {
    if (!lease.spare() && by_id.contains(lease.network)) {
      of_container[lease.container].push_back(&lease);
    }
  }
  const std::lock_guard lock(mutex_);
  guests_.clear();
  names_.clear();
  pointers_.clear();
  for (const auto& [container, cards] : of_container) {
    Guest guest;
    for (const Lease* card : cards) {
      const NetworkSpec& network = *by_id.at(card->network);
      guest.networks.push_back(card->network);
      guest.outside = guest.outside || !network.internal;
      if (!card->servers.empty()) guest.servers = card->servers;
      for (const std::string& name : card->names) {
        names_[card->network][name].push_back({card->address, card->address6});
      }
      if (!card->names.empty()) {
        pointers_[pointerName(card->address)] = {card->network,
                                                 card->names.front() + "." + network.name};
      }
    }
    for (const Lease* card : cards) {
      guest.gateway = by_id.at(card->network)->gateway;
      guests_[card->address] = guest;
    }
  }
}

std::optional<DnsAnswer> NameTable::find(uint32_t guest, const DnsQuery& query) {
  if (query.kind != kDnsInternet || query.name.empty()) return std::nullopt;
  const std::lock_guard lock(mutex_);
  const auto found = guests_.find(guest);
  if (found == guests_.end()) return std::nullopt;
  if (auto answer = findMember(found->second, query)) return answer;
  if (query.type == kDnsPtr) return findPointer(found->second, query);
  for (const char* name : kHostNames) {
    if (query.name == name) {
      return answerOf(std::vector<Member>{{found->second.gateway, std::nullopt}}, query.type);
    }
  }
  return found->second.outside ? findOnHost(query) : std::nullopt;
}

std::optional<DnsAnswer> NameTable::findMember(const Guest& guest, const DnsQuery& query) const {
  std::vector<Member> members;
  for (const std::string& network : guest.networks) {
    const auto names = names_.find(network);
    if (names == names_.end()) continue;
    const auto found = names->second.find(query.name);
    if (found == names->second.end()) continue;
    members.insert(members.end(), found->second.begin(), found->second.end());
  }
  if (members.empty()) return std::nullopt;
  const auto first = static_cast<std::ptrdiff_t>(query.id % members.size());
  std::rotate(members.begin(), members.begin() + first, members.end());
  return answerOf(members, query.type);
}

std::optional<DnsAnswer> NameTable::findPointer(const Guest& guest, const DnsQuery& query) const {
  const auto found = pointers_.find(query.name);
  if (found == pointers_.end()) return std::nullopt;
  const auto& [network, name] = found->second;
  if (std::find(guest.networks.begin(), guest.networks.end(), network) == guest.networks.end()) {
    return DnsAnswer{DnsCode::kNameError, {}};
  }
  return DnsAnswer{DnsCode::kNoError, {{kDnsPtr, dnsWireName(name)}}};
}

std::optional<DnsAnswer> NameTable::findOnHost(const DnsQuery& query) {
  if (query.type != kDnsA && query.type != kDnsAaaa) return std::nullopt;
  readHosts();
  const auto found = hosts_.find(query.name);
  if (found == hosts_.end()) return std::nullopt;
  return answerOf(found->second, query.type);
}

// hosts(5), read again when it has changed.
void NameTable::readHosts() {
  struct stat info {};
  if (::stat(hosts_file_.c_str(), &info) != 0) return hosts_.clear();
  if (info.st_mtim.tv_sec == hosts_changed_.tv_sec &&
      info.st_mtim.tv_nsec == hosts_changed_.tv_nsec) {
    return;
  }
  hosts_changed_ = info.st_mtim;
  hosts_.clear();
  std::string text;
  try {
    text = readFile(hosts_file_, kMaxHostsBytes);
  } catch (const Error&) {
    return;  // too large, or gone: then it says nothing
  }
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string address, name;
    words >> address;
    Member member{parseAddress(address).value_or(0), parseAddress6(address)};
    if (member.address >> 24 == 127) continue;
    if (member.address == 0 &&
        (!member.address6 ||
         IN6_IS_ADDR_LOOPBACK(reinterpret_cast<const in6_addr*>(member.address6->data()))))
      continue;
    while (words >> name) {
      const std::string plain = dnsName(name);
      if (!plain.empty()) hosts_[plain].push_back(member);
    }
  }
}

std::vector<SocketAddress> NameTable::servers(uint32_t guest, uint16_t port) const {
  const std::lock_guard lock(mutex_);
  std::vector<SocketAddress> found;
  const auto asking = guests_.find(guest);
  if (asking == guests_.end()) return found;
  for (const std::string& server : asking->second.servers) {
    if (const auto address = SocketAddress::parse(server, port)) found.push_back(*address);
  }
  return found;
}

bool NameTable::mayAskElsewhere(uint32_t guest) const {
  const std::lock_guard lock(mutex_);
  const auto found = guests_.find(guest);
  return found == guests_.end() || found->second.outside;
}

}  // namespace hull::engine
