#include "daemon/network/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

namespace hull::engine {

namespace {
constexpr uint8_t kLongestPrefix = 29;
constexpr uint8_t kShortestPrefix = 8;
constexpr uint8_t kShortestPrefix6 = 48, kLongestPrefix6 = 120;

bool isFree(const Subnet& subnet, const std::vector<Subnet>& taken) {
  return std::none_of(taken.begin(), taken.end(),
                      [&](const Subnet& other) { return subnet.overlaps(other); });
}

std::optional<Subnet> firstFree(uint32_t from, uint32_t count, uint8_t prefix_length,
                                const std::vector<Subnet>& taken) {
  for (uint32_t i = 0; i < count; ++i) {
    const Subnet candidate{from + (i << (32 - prefix_length)), prefix_length};
    if (isFree(candidate, taken)) return candidate;
  }
  return std::nullopt;
}

std::optional<Subnet> nextOf172(const std::vector<Subnet>& taken) {
  return firstFree(uint32_t{172} << 24 | 16 << 16, 16, 16, taken);
}

// Text up to the slash, and the number behind it.
std::optional<std::pair<std::string_view, uint8_t>> splitSubnet(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const std::string_view digits = text.substr(slash + 1);
  uint8_t length = 0;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), length);
  if (error != std::errc() || end != digits.end()) return std::nullopt;
  return std::pair(text.substr(0, slash), length);
}
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
  const auto parts = splitSubnet(text);
  const auto network = parts ? parseAddress(parts->first) : std::nullopt;
  if (!network) return std::nullopt;
  const uint8_t length = parts->second;
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

std::optional<std::array<uint8_t, 6>> parseMac(std::string_view text) {
  std::array<uint8_t, 6> mac{};
  if (text.size() != 17) return std::nullopt;
  for (size_t i = 0; i < mac.size(); ++i) {
    const std::string_view digits = text.substr(3 * i, 2);
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), mac[i], 16);
    if (error != std::errc() || end != digits.end()) return std::nullopt;
    if (i > 0 && text[3 * i - 1] != ':' && text[3 * i - 1] != '-') return std::nullopt;
  }
  if ((mac[0] & 1) != 0 || mac == std::array<uint8_t, 6>{}) return std::nullopt;
  return mac;
}

Address6 linkLocalOf(const std::array<uint8_t, 6>& mac) {
  Address6 address{0xfe, 0x80};
  const std::array<uint8_t, 8> identifier{
      static_cast<uint8_t>(mac[0] ^ 2), mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};
  std::copy(identifier.begin(), identifier.end(), address.begin() + 8);
  return address;
}

bool Subnet6::contains(const Address6& address) const {
  for (size_t i = 0; i < address.size(); ++i) {
    const int bits = std::clamp(prefix_length - static_cast<int>(8 * i), 0, 8);
    const auto mask = static_cast<uint8_t>(0xff00 >> bits);
    if ((address[i] & mask) != (network[i] & mask)) return false;
  }
  return true;
}

Address6 Subnet6::host(uint64_t number) const {
  Address6 address = network;
  for (size_t i = 0; i < 8; ++i) {
    address[15 - i] = static_cast<uint8_t>(address[15 - i] | (number >> (8 * i) & 0xff));
  }
  return address;
}

std::optional<Address6> parseAddress6(std::string_view text) {
  Address6 address{};
  if (inet_pton(AF_INET6, std::string(text).c_str(), address.data()) != 1) return std::nullopt;
  return address;
}

std::string formatAddress6(const Address6& address) {
  std::array<char, INET6_ADDRSTRLEN> buffer{};
  inet_ntop(AF_INET6, address.data(), buffer.data(), buffer.size());
  return buffer.data();
}

std::optional<Subnet6> parseSubnet6(std::string_view text) {
  const auto parts = splitSubnet(text);
  const auto network = parts ? parseAddress6(parts->first) : std::nullopt;
  if (!network) return std::nullopt;
  const uint8_t length = parts->second;
  if (length < kShortestPrefix6 || length > kLongestPrefix6) return std::nullopt;
  for (size_t i = 0; i < network->size(); ++i) {
    const int bits = std::clamp(length - static_cast<int>(8 * i), 0, 8);
    if (((*network)[i] & static_cast<uint8_t>(0xff >> bits)) != 0) return std::nullopt;
  }
  return Subnet6{*network, length};
}

std::string formatSubnet6(const Subnet6& subnet) {
  return formatAddress6(subnet.network) + "/" + std::to_string(subnet.prefix_length);
}

std::optional<Subnet> chooseSubnet(const Subnet& wanted, const std::vector<Subnet>& taken) {
  return isFree(wanted, taken) ? std::optional(wanted) : nextOf172(taken);
}

std::optional<Subnet> chooseSubnet(const std::vector<Subnet>& taken) {
  if (const auto found = nextOf172(taken)) return found;
  return firstFree(uint32_t{192} << 24 | 168 << 16, 256, 24, taken);
}

}  // namespace hull::engine
