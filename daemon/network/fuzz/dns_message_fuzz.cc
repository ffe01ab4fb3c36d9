// A guest's bytes as a DNS query, and a resolver's as its reply.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "daemon/network/dns_message.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull::engine;
  if (size == 0) return 0;
  // The first byte says how many of the others are the query; the rest is the reply.
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::string_view message = bytes.substr(0, data[0]);
  const auto query = parseDnsQuery(message);
  if (!query) return 0;
  answersDnsQuery(*query, bytes.substr(message.size()));
  if (!answersDnsQuery(*query, dnsServerFailure(*query, message))) abort();
  return 0;
}
