#include "daemon/network/leases.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

namespace hull::engine {

namespace {

using nlohmann::json;

constexpr size_t kMaxLeaseFileBytes = 32 << 20;

json toJson(const Lease& lease) {
  return {{"container", lease.container},
          {"slot", lease.slot},
          {"interface", lease.interface},
          {"network", lease.network},
          {"address", formatAddress(lease.address)},
          {"address6", lease.address6 ? formatAddress6(*lease.address6) : ""},
          {"mac", formatMac(lease.mac)},
          {"names", lease.names},
          {"servers", lease.servers},
          {"reaches_host", lease.reaches_host}};
}

Lease leaseOf(const json& value) {
  Lease lease;
  value.at("container").get_to(lease.container);
  value.at("slot").get_to(lease.slot);
  value.at("interface").get_to(lease.interface);
  value.at("network").get_to(lease.network);
  lease.address = parseAddress(value.at("address").get<std::string>()).value_or(0);
  lease.address6 = parseAddress6(value.at("address6").get<std::string>());
  lease.mac = parseMac(value.at("mac").get<std::string>()).value_or(lease.mac);
  value.at("names").get_to(lease.names);
  value.at("servers").get_to(lease.servers);
  value.at("reaches_host").get_to(lease.reaches_host);
  return lease;
}

}  // namespace

Leases::Leases(std::string path) : path_(std::move(path)) {
  if (!path_.empty() && fileExists(path_)) load();
}

void Leases::load() {
  const auto document = json::parse(readFile(path_, kMaxLeaseFileBytes), nullptr, false);
  try {
    for (const auto& value : document.at("cards")) leases_.push_back(leaseOf(value));
  } catch (const json::exception& error) {
    log::warning("ignoring " + path_ + ": " + error.what());
    leases_.clear();
  }
}

void Leases::save() const {
  if (path_.empty()) return;
  json cards = json::array();
  for (const Lease& lease : leases_) cards.push_back(toJson(lease));
  writeFileAtomic(path_, json{{"cards", cards}}.dump(), 0600);
}

std::vector<Lease> Leases::of(const std::string& container) const {
  std::vector<Lease> found;
  for (const Lease& lease : leases_) {
    if (lease.container == container) found.push_back(lease);
  }
  std::sort(found.begin(), found.end(),
            [](const Lease& a, const Lease& b) { return a.slot < b.slot; });
  return found;
}

const Lease* Leases::find(const std::string& container, const std::string& network) const {
  for (const Lease& lease : leases_) {
    if (lease.container == container && lease.network == network) return &lease;
  }
  return nullptr;
}

void Leases::put(const Lease& lease) {
  const auto before = leases_;
  std::erase_if(leases_, [&](const Lease& other) {
    return other.container == lease.container && other.slot == lease.slot;
  });
  leases_.push_back(lease);
  try {
    save();
  } catch (...) {
    leases_ = before;
    throw;
  }
}

void Leases::remove(const std::string& container, unsigned slot) {
  removeIf([&](const Lease& lease) { return lease.container == container && lease.slot == slot; });
}

void Leases::removeIf(const std::function<bool(const Lease&)>& unwanted) {
  if (std::erase_if(leases_, unwanted) != 0) save();
}

}  // namespace hull::engine
