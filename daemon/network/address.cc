#include "daemon/network/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

namespace hull::engine {

namespace {
constexpr uint8_t kLongestPrefix = 29;
constexpr uint8_t kShortestPrefix = 8;
}  // namespace

std::optional<uint32_t> parseAddress(std::string_view text) {
  in_addr address{};
  if (inet_pton(AF_INET, std::string(text).c_str(), &address) != 1) return std::nullopt;
  return ntohl(address.s_addr);
}

std::string formatAddress(uint32_t address) {
  const in_addr bytes{htonl(address)};
  std::array<char, INET_ADDRSTRLEN> buffer{};
  inet_ntop(AF_INET, &bytes, buffer.data(), buffer.size());
  return buffer.data();
}

std::optional<Subnet> parseSubnet(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const auto network = parseAddress(text.substr(0, slash));
  const std::string_view digits = text.substr(slash + 1);
  uint8_t length = 0;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), length);
  if (!network || error != std::errc() || end != digits.end()) return std::nullopt;
  if (length < kShortestPrefix || length > kLongestPrefix) return std::nullopt;
  const Subnet subnet{*network, length};
  if ((subnet.network & ~subnet.mask()) != 0) return std::nullopt;
  return subnet;
}

std::string formatSubnet(const Subnet& subnet) {
  return formatAddress(subnet.network) + "/" + std::to_string(subnet.prefix_length);
}

std::array<uint8_t, 6> macOf(uint32_t address) {
  const auto byte = [&](int shift) { return static_cast<uint8_t>(address >> shift); };
  return {0x02, 0x42, byte(24), byte(16), byte(8), byte(0)};
}

std::string formatMac(const std::array<uint8_t, 6>& mac) {
  std::array<char, 18> buffer{};
  std::snprintf(buffer.data(), buffer.size(), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1],
                mac[2], mac[3], mac[4], mac[5]);
  return buffer.data();
}

std::optional<Subnet> chooseSubnet(const Subnet& wanted, const std::vector<Subnet>& taken) {
  const auto free = [&](const Subnet& subnet) {
    return std::none_of(taken.begin(), taken.end(),
                        [&](const Subnet& other) { return subnet.overlaps(other); });
  };
  if (free(wanted)) return wanted;
  for (uint32_t second = 16; second < 32; ++second) {
    const Subnet candidate{uint32_t{172} << 24 | second << 16, 16};
    if (free(candidate)) return candidate;
  }
  return std::nullopt;
}

}  // namespace hull::engine
