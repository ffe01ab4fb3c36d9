// The little of DNS (RFC 1035 §4.1) that a forwarder must understand: whether a message is a query
// at all, and whether a reply belongs to it. Bytes come from guests and resolvers: bounded, no
// pointers are followed. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hull::engine {

inline constexpr size_t kMaxDnsQueryBytes = 4096;
inline constexpr size_t kMaxDnsMessageBytes = 65535;
inline constexpr size_t kDnsHeaderBytes = 12;

struct DnsQuery {
  uint16_t id = 0;
  std::string question;  // name, type and class as on the wire
};

// One question, no answers.
std::optional<DnsQuery> parseDnsQuery(std::string_view message);
bool answersDnsQuery(const DnsQuery& query, std::string_view reply);
// "SERVFAIL" to a query that parseDnsQuery took.
std::string dnsServerFailure(const DnsQuery& query, std::string_view message);

}  // namespace hull::engine
