// Which container has which address and tap, kept in one JSON file that is replaced atomically, so
// that a later engine process finds the addresses of VMs that live on. One thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "daemon/network/address.h"

namespace hull::engine {

struct Lease {
  uint32_t address = 0;
  std::string interface;
};

class Leases {
 public:
  // Reads `path`; a missing or damaged file holds no leases. An empty path keeps them in memory.
  explicit Leases(std::string path);

  std::optional<Subnet> subnet() const { return subnet_; }
  void setSubnet(const Subnet& subnet);  // leases outside it are dropped

  // The lowest free address behind the gateway's; kConflict when there is none.
  Lease add(const std::string& container, const std::string& interface);
  std::optional<Lease> find(const std::string& container) const;
  void remove(const std::string& container);
  const std::map<std::string, Lease>& all() const { return leases_; }

 private:
  void load();
  void save() const;

  std::string path_;
  std::optional<Subnet> subnet_;
  std::map<std::string, Lease> leases_;
};

}  // namespace hull::engine
