#include "daemon/network/dns_message.h"

#include <algorithm>

namespace hull::engine {

namespace {

constexpr size_t kMaxNameBytes = 255;
constexpr uint8_t kMaxLabelBytes = 63;
constexpr uint8_t kResponseBit = 0x80;  // of byte 2
constexpr uint8_t kRecursionDesired = 0x01;
constexpr uint8_t kRecursionAvailable = 0x80;                // of byte 3
constexpr uint8_t kAuthoritative = 0x04, kTruncated = 0x02;  // of byte 2
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

// Of a question: its labels with dots. A dot within a label would look like two: no name of ours.
std::string nameOf(std::string_view question) {
  std::string name;
  for (size_t at = 0; byteAt(question, at) != 0; at += 1 + byteAt(question, at)) {
    if (at != 0) name += '.';
    for (const char c : question.substr(at + 1, byteAt(question, at))) {
      if (c == '.') return {};
      name += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
  }
  return name;
}

std::string bigEndian(uint16_t number) {
  return {static_cast<char>(number >> 8), static_cast<char>(number)};
}

}  // namespace

std::optional<DnsQuery> parseDnsQuery(std::string_view message) {
  if (message.size() < kDnsHeaderBytes || message.size() > kMaxDnsQueryBytes) return std::nullopt;
  if ((byteAt(message, 2) & kResponseBit) != 0) return std::nullopt;
  if (numberAt(message, 4) != 1 || numberAt(message, 6) != 0) return std::nullopt;
  const auto question = questionOf(message);
  if (!question) return std::nullopt;
  const size_t end = question->size();
  return DnsQuery{numberAt(message, 0), std::string(*question), nameOf(*question),
                  numberAt(*question, end - 4), numberAt(*question, end - 2)};
}

bool answersDnsQuery(const DnsQuery& query, std::string_view reply) {
  if (reply.size() < kDnsHeaderBytes || (byteAt(reply, 2) & kResponseBit) == 0) return false;
  if (numberAt(reply, 0) != query.id) return false;
  // A server that could not read the query may leave it out of its complaint.
  if (numberAt(reply, 4) == 0) return (byteAt(reply, 3) & kCodeMask) != 0;
  const auto question = questionOf(reply);
  return numberAt(reply, 4) == 1 && question && *question == query.question;
}

std::string dnsReply(const DnsQuery& query, std::string_view message, const DnsAnswer& answer,
                     size_t limit) {
  std::string records;
  uint16_t count = 0;
  bool truncated = false;
  for (const DnsRecord& record : answer.records) {
    // A pointer to the question's name, type, class, time to live, length (RFC 1035 §4.1.3, .4).
    const std::string text = std::string("\xc0\x0c", 2) + bigEndian(record.type) +
                             bigEndian(kDnsInternet) + std::string(4, '\0') +
                             bigEndian(static_cast<uint16_t>(record.data.size())) + record.data;
    truncated = kDnsHeaderBytes + query.question.size() + records.size() + text.size() > limit;
    if (truncated) break;
    records += text;
    ++count;
  }
  uint8_t flags = kResponseBit | (byteAt(message, 2) & kRecursionDesired);
  if (answer.code != DnsCode::kServerFailure) flags |= kAuthoritative;
  if (truncated) flags |= kTruncated;
  std::string reply(message.substr(0, 2));
  reply += static_cast<char>(flags);
  reply += static_cast<char>(kRecursionAvailable | static_cast<uint8_t>(answer.code));
  reply += bigEndian(1) + bigEndian(count) + std::string(4, '\0');
  return reply + query.question + records;
}

std::string dnsServerFailure(const DnsQuery& query, std::string_view message) {
  return dnsReply(query, message, {DnsCode::kServerFailure, {}});
}

std::string dnsWireName(std::string_view name) {
  std::string wire;
  while (!name.empty()) {
    const size_t length = std::min(name.find('.'), name.size());
    if (length == 0 || length > kMaxLabelBytes) return {};
    wire += static_cast<char>(length);
    wire += name.substr(0, length);
    name.remove_prefix(std::min(length + 1, name.size()));
  }
  wire += '\0';
  return wire.size() <= kMaxNameBytes ? wire : std::string();
}

}  // namespace hull::engine
