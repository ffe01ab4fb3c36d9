// IPv4 addresses and subnets as numbers (host byte order). Pure functions, any thread.
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

// As Docker derives it: 02:42 and the four bytes of the address.
std::array<uint8_t, 6> macOf(uint32_t address);
std::string formatMac(const std::array<uint8_t, 6>& mac);

// `wanted`, or else the first 172.x.0.0/16 (16 ≤ x < 32) that overlaps none of `taken`.
std::optional<Subnet> chooseSubnet(const Subnet& wanted, const std::vector<Subnet>& taken);

}  // namespace hull::engine
