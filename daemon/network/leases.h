// Which container has which network cards (taps), and which of them is in which network under which
// addresses and names, kept in one JSON file that is replaced atomically, so that a later engine
// process finds the cards of VMs that live on. One thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "daemon/network/address.h"

namespace hull::engine {

// One card of one container's VM.
struct Lease {
  std::string container;
  unsigned slot = 0;      // "eth<slot>" in the guest
  std::string interface;  // its tap
  std::string network;    // empty: a spare card
  uint32_t address = 0;
  std::optional<Address6> address6;
  std::array<uint8_t, 6> mac{};
  std::vector<std::string> names;    // that the network's other guests know it by
  std::vector<std::string> servers;  // DNS servers of its own (--dns)
  bool reaches_host = false;         // may use any service of the host

  bool spare() const { return network.empty(); }
};

class Leases {
 public:
  // Reads `path`; a missing or damaged file holds no leases. An empty path keeps them in memory.
  explicit Leases(std::string path);

  const std::vector<Lease>& all() const { return leases_; }
  std::vector<Lease> of(const std::string& container) const;  // by slot
  const Lease* find(const std::string& container, const std::string& network) const;
  void put(const Lease& lease);  // replaces the one of the same container and slot
  void remove(const std::string& container, unsigned slot);
  void removeIf(const std::function<bool(const Lease&)>& unwanted);

 private:
  void load();
  void save() const;

  std::string path_;
  std::vector<Lease> leases_;
};

}  // namespace hull::engine
