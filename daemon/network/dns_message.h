// The little of DNS (RFC 1035 §4.1) that a forwarder must understand: whether a message is a query
// at all, what it asks for, whether a reply belongs to it; and answers of our own. Bytes come from
// guests and resolvers: bounded, no pointers are followed. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hull::engine {

inline constexpr size_t kMaxDnsQueryBytes = 4096;
inline constexpr size_t kMaxDnsMessageBytes = 65535;
inline constexpr size_t kDnsHeaderBytes = 12;
inline constexpr size_t kMaxPlainDnsBytes = 512;  // of a reply over UDP (RFC 1035 §2.3.4)

struct DnsQuery {
  uint16_t id = 0;
  std::string question;  // name, type and class as on the wire
  std::string name;      // lower case, "db.example", without the root's dot
  uint16_t type = 0;
  uint16_t kind = 0;  // its class: kDnsInternet
};

inline constexpr uint16_t kDnsA = 1, kDnsPtr = 12, kDnsAaaa = 28, kDnsAny = 255;
inline constexpr uint16_t kDnsInternet = 1;

enum class DnsCode : uint8_t { kNoError = 0, kServerFailure = 2, kNameError = 3 };

struct DnsRecord {
  uint16_t type = 0;
  std::string data;  // as on the wire
  bool operator==(const DnsRecord&) const = default;
};

// A name's answer: none and kNoError is "there is such a name, but nothing of that type".
struct DnsAnswer {
  DnsCode code = DnsCode::kNoError;
  std::vector<DnsRecord> records;
};

// One question, no answers.
std::optional<DnsQuery> parseDnsQuery(std::string_view message);
bool answersDnsQuery(const DnsQuery& query, std::string_view reply);
// The reply to a query that parseDnsQuery took; records that do not fit into `limit` bytes are left
// out and the reply says so (TC). Their time to live is 0: what a name means may change at once.
std::string dnsReply(const DnsQuery& query, std::string_view message, const DnsAnswer& answer,
                     size_t limit = kMaxPlainDnsBytes);
std::string dnsServerFailure(const DnsQuery& query, std::string_view message);
// "db.example" as on the wire; empty when it cannot be.
std::string dnsWireName(std::string_view name);

}  // namespace hull::engine
