#include "daemon/network/dns_message.h"

namespace hull::engine {

namespace {

constexpr size_t kMaxNameBytes = 255;
constexpr uint8_t kMaxLabelBytes = 63;
constexpr uint8_t kResponseBit = 0x80;  // of byte 2
constexpr uint8_t kRecursionDesired = 0x01;
constexpr uint8_t kRecursionAvailable = 0x80;  // of byte 3
constexpr uint8_t kServerFailure = 2;
constexpr uint8_t kCodeMask = 0x0f;

uint8_t byteAt(std::string_view message, size_t at) {
  return static_cast<uint8_t>(message[at]);
}

uint16_t numberAt(std::string_view message, size_t at) {
  return static_cast<uint16_t>(byteAt(message, at) << 8 | byteAt(message, at + 1));
}

// Name, type and class right behind the header; nullopt when they do not fit or are compressed
// (nothing precedes the question that a pointer could point to).
std::optional<std::string_view> questionOf(std::string_view message) {
  size_t at = kDnsHeaderBytes;
  for (;;) {
    if (at >= message.size()) return std::nullopt;
    const uint8_t label = byteAt(message, at);
    if (label > kMaxLabelBytes) return std::nullopt;
    at += 1 + label;
    if (at - kDnsHeaderBytes > kMaxNameBytes) return std::nullopt;
    if (label == 0) break;
  }
  if (message.size() < at + 4) return std::nullopt;
  return message.substr(kDnsHeaderBytes, at + 4 - kDnsHeaderBytes);
}

}  // namespace

std::optional<DnsQuery> parseDnsQuery(std::string_view message) {
  if (message.size() < kDnsHeaderBytes || message.size() > kMaxDnsQueryBytes) return std::nullopt;
  if ((byteAt(message, 2) & kResponseBit) != 0) return std::nullopt;
  if (numberAt(message, 4) != 1 || numberAt(message, 6) != 0) return std::nullopt;
  const auto question = questionOf(message);
  if (!question) return std::nullopt;
  return DnsQuery{numberAt(message, 0), std::string(*question)};
}

bool answersDnsQuery(const DnsQuery& query, std::string_view reply) {
  if (reply.size() < kDnsHeaderBytes || (byteAt(reply, 2) & kResponseBit) == 0) return false;
  if (numberAt(reply, 0) != query.id) return false;
  // A server that could not read the query may leave it out of its complaint.
  if (numberAt(reply, 4) == 0) return (byteAt(reply, 3) & kCodeMask) != 0;
  const auto question = questionOf(reply);
  return numberAt(reply, 4) == 1 && question && *question == query.question;
}

std::string dnsServerFailure(const DnsQuery& query, std::string_view message) {
  std::string reply(message.substr(0, 2));
  reply += static_cast<char>(kResponseBit | (byteAt(message, 2) & kRecursionDesired));
  reply += static_cast<char>(kRecursionAvailable | kServerFailure);
  reply += std::string("\0\1\0\0\0\0\0\0", 8);
  return reply + query.question;
}

}  // namespace hull::engine
