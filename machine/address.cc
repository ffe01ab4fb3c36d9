#include "machine/address.h"

#include <charconv>

#include "base/error.h"

namespace hull::machine {

SocketAddress parseTarget(std::string_view target) {
  const size_t colon = target.rfind(':');
  const std::string_view digits = colon == std::string_view::npos ? "" : target.substr(colon + 1);
  uint16_t port = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
  const auto address = SocketAddress::parse(std::string(target.substr(0, colon)), port);
  if (!whole || port == 0 || !address) {
    throw Error(ErrorKind::kInvalidArgument,
                "connect to " + std::string(target) + ": want ADDRESS:PORT");
  }
  return *address;
}

}  // namespace hull::machine
