// IPv4 addresses and subnets as numbers (host byte order), IPv6 ones as bytes (network order).
// Pure functions, any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hull::engine {

struct Subnet {
  uint32_t network = 0;
  uint8_t prefix_length = 0;

  uint32_t mask() const { return prefix_length == 0 ? 0 : ~uint32_t{0} << (32 - prefix_length); }
  bool contains(uint32_t address) const { return (address & mask()) == network; }
  bool overlaps(const Subnet& other) const {
    return contains(other.network) || other.contains(network);
  }
  uint32_t gateway() const { return network + 1; }
  uint32_t last() const { return network | ~mask(); }  // the broadcast address
  bool operator==(const Subnet&) const = default;
};

std::optional<uint32_t> parseAddress(std::string_view text);
std::string formatAddress(uint32_t address);
// "172.17.0.0/16"; host bits must be zero and there must be room for hosts (at most /29).
std::optional<Subnet> parseSubnet(std::string_view text);
std::string formatSubnet(const Subnet& subnet);

using Address6 = std::array<uint8_t, 16>;

struct Subnet6 {
  Address6 network{};
  uint8_t prefix_length = 0;

  bool contains(const Address6& address) const;
  bool overlaps(const Subnet6& other) const {
    return contains(other.network) || other.contains(network);
  }
  Address6 host(uint64_t number) const;  // the network with `number` in the last 64 bits added
  bool operator==(const Subnet6&) const = default;
};

std::optional<Address6> parseAddress6(std::string_view text);
std::string formatAddress6(const Address6& address);
// "fd00:1::/64"; host bits must be zero, 48 to 120 bits.
std::optional<Subnet6> parseSubnet6(std::string_view text);
std::string formatSubnet6(const Subnet6& subnet);

// As Docker derives it: 02:42 and the four bytes of the address.
std::array<uint8_t, 6> macOf(uint32_t address);
std::string formatMac(const std::array<uint8_t, 6>& mac);
// "02:42:ac:11:00:02"; no multicast address, not all zeros.
std::optional<std::array<uint8_t, 6>> parseMac(std::string_view text);
// fe80::/64 with the modified EUI-64 (RFC 4291, appendix A).
Address6 linkLocalOf(const std::array<uint8_t, 6>& mac);

// `wanted`, or else the first 172.x.0.0/16 (16 ≤ x < 32) that overlaps none of `taken`.
std::optional<Subnet> chooseSubnet(const Subnet& wanted, const std::vector<Subnet>& taken);
// For a network of the user's that names no subnet: Docker's pools, 172.16.0.0/12 by /16 and then
// 192.168.0.0/16, here by /24.
std::optional<Subnet> chooseSubnet(const std::vector<Subnet>& taken);

}  // namespace hull::engine
