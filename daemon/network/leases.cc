#include "daemon/network/leases.h"

#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

namespace hull::engine {

namespace {
constexpr size_t kMaxLeaseFileBytes = 32 << 20;
}

Leases::Leases(std::string path) : path_(std::move(path)) {
  if (!path_.empty() && fileExists(path_)) load();
}

void Leases::load() {
  const auto json = nlohmann::json::parse(readFile(path_, kMaxLeaseFileBytes), nullptr, false);
  try {
    subnet_ = parseSubnet(json.at("subnet").get<std::string>());
    for (const auto& [container, lease] : json.at("leases").items()) {
      const auto address = parseAddress(lease.at("address").get<std::string>());
      if (!address) continue;
      leases_[container] = {*address, lease.at("interface").get<std::string>()};
    }
  } catch (const nlohmann::json::exception& error) {
    log::warning("ignoring " + path_ + ": " + error.what());
    subnet_.reset();
    leases_.clear();
  }
}

void Leases::save() const {
  if (path_.empty()) return;
  nlohmann::json leases = nlohmann::json::object();
  for (const auto& [container, lease] : leases_) {
    leases[container] = {{"address", formatAddress(lease.address)}, {"interface", lease.interface}};
  }
  const nlohmann::json json{{"subnet", subnet_ ? formatSubnet(*subnet_) : ""}, {"leases", leases}};
  writeFileAtomic(path_, json.dump(), 0600);
}

void Leases::setSubnet(const Subnet& subnet) {
  subnet_ = subnet;
  std::erase_if(leases_, [&](const auto& item) { return !subnet.contains(item.second.address); });
  save();
}

Lease Leases::add(const std::string& container, const std::string& interface) {
  std::set<uint32_t> taken;
  for (const auto& [name, lease] : leases_) taken.insert(lease.address);
  for (uint32_t address = subnet_->gateway() + 1; address < subnet_->last(); ++address) {
    if (taken.contains(address)) continue;
    const Lease lease{address, interface};
    leases_[container] = lease;
    try {
      save();
    } catch (...) {
      leases_.erase(container);
      throw;
    }
    return lease;
  }
  throw Error(ErrorKind::kConflict, "no address is free in " + formatSubnet(*subnet_));
}

std::optional<Lease> Leases::find(const std::string& container) const {
  const auto found = leases_.find(container);
  return found == leases_.end() ? std::nullopt : std::optional(found->second);
}

void Leases::remove(const std::string& container) {
  if (leases_.erase(container) != 0) save();
}

}  // namespace hull::engine
