#include "daemon/engine/networks.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "daemon/engine/json_fields.h"
#include "daemon/engine/names.h"
#include "image/store/database.h"

namespace hull::engine {

using fields::Json;

namespace {

constexpr std::array<const char*, 1> kMigrations{R"(
  CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_ns INTEGER NOT NULL,
    document TEXT NOT NULL
  );)"};
constexpr size_t kMinIdPrefix = 4;
constexpr const char* kNone = "none";

std::string toJson(const NetworkRecord& record) {
  const NetworkSpec& spec = record.spec;
  return fields::dump({{"bridge", spec.bridge},
                       {"subnet", formatSubnet(*spec.subnet)},
                       {"gateway", formatAddress(spec.gateway)},
                       {"range", spec.range ? formatSubnet(*spec.range) : ""},
                       {"ipv6", spec.ipv6},
                       {"subnet6", spec.subnet6 ? formatSubnet6(*spec.subnet6) : ""},
                       {"gateway6", spec.gateway6 ? formatAddress6(*spec.gateway6) : ""},
                       {"internal", spec.internal},
                       {"isolated", spec.isolated},
                       {"masquerade", spec.masquerade},
                       {"mtu", spec.mtu},
                       {"attachable", record.attachable},
                       {"labels", record.labels},
                       {"options", record.options}});
}

void readDocument(std::string_view text, NetworkRecord& record) {
  const Json object = fields::parseObject(text, "a network's record");
  NetworkSpec& spec = record.spec;
  spec.id = record.id;
  spec.name = record.name;
  spec.bridge = fields::text(object, "bridge");
  spec.subnet = parseSubnet(fields::text(object, "subnet"));
  spec.gateway = parseAddress(fields::text(object, "gateway")).value_or(0);
  spec.range = parseSubnet(fields::text(object, "range"));
  spec.ipv6 = fields::boolean(object, "ipv6");
  spec.subnet6 = parseSubnet6(fields::text(object, "subnet6"));
  spec.gateway6 = parseAddress6(fields::text(object, "gateway6"));
  spec.internal = fields::boolean(object, "internal");
  spec.isolated = fields::boolean(object, "isolated");
  spec.masquerade = fields::boolean(object, "masquerade");
  spec.mtu = static_cast<uint16_t>(fields::integer(object, "mtu"));
  record.attachable = fields::boolean(object, "attachable");
  record.labels = fields::textMap(object, "labels");
  record.options = fields::textMap(object, "options");
  if (!spec.subnet || spec.gateway == 0 || spec.ipv6 != spec.subnet6.has_value()) {
    throw Error(ErrorKind::kCorrupt, "network " + record.name + ": its record is damaged");
  }
}

std::string predefinedId(const std::string& name) {
  return sha256Hex("hull network " + name);
}

}  // namespace

struct Networks::Database {
  explicit Database(const std::string& path) : sqlite(path, kMigrations) {}
  image::Database sqlite;
};

Networks::Networks(EngineParts& parts, const std::string& root, EventBus& events)
    : parts_(parts), events_(events), database_(std::make_unique<Database>(root + "/networks.db")) {
  std::vector<NetworkSpec> specs;
  {
    const auto lock = database_->sqlite.lock();
    auto select = database_->sqlite.prepare("SELECT id, name, created_ns, document FROM networks");
    while (select.step()) {
      NetworkRecord record;
      record.id = select.text(0);
      record.name = select.text(1);
      record.created_ns = select.number(2);
      try {
        readDocument(select.text(3), record);
      } catch (const Error& error) {
        log::error(error.what());
        continue;
      }
      specs.push_back(record.spec);
      records_[record.id] = std::move(record);
    }
  }
  if (parts_.network) parts_.network->restore(specs);
}

Networks::~Networks() = default;

Network& Networks::network() const {
  if (!parts_.network) throw Error(ErrorKind::kUnavailable, parts_.network_error);
  return *parts_.network;
}

std::vector<NetworkRecord> Networks::list() const {
  std::vector<NetworkRecord> all;
  NetworkRecord bridge;
  bridge.name = kDefaultNetwork;
  bridge.id = predefinedId(bridge.name);
  bridge.predefined = true;
  bridge.options = {{"com.docker.network.bridge.default_bridge", "true"},
                    {"com.docker.network.bridge.enable_icc", "true"},
                    {"com.docker.network.bridge.enable_ip_masquerade", "true"}};
  if (const auto spec = parts_.network ? parts_.network->find(kDefaultNetwork) : std::nullopt) {
    bridge.spec = *spec;
    if (!spec->bridge.empty()) bridge.options["com.docker.network.bridge.name"] = spec->bridge;
  }
  bridge.spec.id = kDefaultNetwork;
  all.push_back(std::move(bridge));
  NetworkRecord none;
  none.name = kNone;
  none.id = predefinedId(kNone);
  none.predefined = true;
  none.driver = "null";
  all.push_back(std::move(none));
  std::vector<NetworkRecord> users;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, record] : records_) users.push_back(record);
  }
  std::sort(users.begin(), users.end(), [](const auto& a, const auto& b) {
    return std::tie(a.created_ns, a.id) < std::tie(b.created_ns, b.id);
  });
  all.insert(all.end(), users.begin(), users.end());
  return all;
}

std::optional<NetworkRecord> Networks::find(std::string_view name) const {
  const auto all = list();
  const auto by = [&](const auto& fits) -> std::optional<NetworkRecord> {
    const auto found = std::find_if(all.begin(), all.end(), fits);
    return found == all.end() ? std::nullopt : std::optional(*found);
  };
  if (name == "default") name = kDefaultNetwork;
  if (auto exact = by([&](const NetworkRecord& each) { return each.id == name; })) return exact;
  if (auto named = by([&](const NetworkRecord& each) { return each.name == name; })) return named;
  if (name.size() < kMinIdPrefix) return std::nullopt;
  const auto starts = [&](const NetworkRecord& each) { return each.id.starts_with(name); };
  if (std::count_if(all.begin(), all.end(), starts) > 1) {
    throw Error(ErrorKind::kInvalidArgument,
                "network " + std::string(name) + " is ambiguous: several ids begin so");
  }
  return by(starts);
}

std::optional<NetworkRecord> Networks::findById(const std::string& spec_id) const {
  for (auto& record : list()) {
    if (record.spec.id == spec_id && !spec_id.empty()) return record;
  }
  return std::nullopt;
}

NetworkRecord Networks::get(std::string_view name) const {
  if (auto found = find(name)) return *found;
  throw Error(ErrorKind::kNotFound, "network " + std::string(name) + " not found");
}

void Networks::publish(const NetworkRecord& network, std::string action,
                       std::map<std::string, std::string> more) {
  more["name"] = network.name;
  more["type"] = network.driver;
  events_.publish({"network", std::move(action), network.id, std::move(more), 0});
}

NetworkRecord Networks::create(std::string_view body) {
  NetworkRecord record = parseNetworkRequest(body);
  record.id = record.spec.id = newId();
  record.created_ns = nowNs();
  const std::lock_guard one_at_a_time(creating_);
  if (find(record.name) && find(record.name)->name == record.name) {
    throw Error(ErrorKind::kConflict, "network with name " + record.name + " already exists");
  }
  record.spec = network().add(record.spec);
  try {
    const auto lock = database_->sqlite.lock();
    database_->sqlite
        .prepare("INSERT INTO networks (id, name, created_ns, document) VALUES (?,?,?,?)")
        .bind(record.id)
        .bind(record.name)
        .bind(record.created_ns)
        .bind(toJson(record))
        .run();
  } catch (const Error& error) {
    network().drop(record.spec.id);
    throw Error(error.kind(), "record network " + record.name + ": " + error.what());
  }
  {
    const std::lock_guard lock(mutex_);
    records_[record.id] = record;
  }
  publish(record, "create");
  return record;
}

void Networks::remove(const NetworkRecord& record) {
  if (record.predefined) {
    throw Error(ErrorKind::kForbidden,
                record.name + " is a pre-defined network and cannot be removed");
  }
  try {
    network().drop(record.spec.id);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kForbidden) throw;
    throw Error(ErrorKind::kForbidden, "error while removing network: network " + record.name +
                                           " id " + record.id + " has active endpoints");
  }
  {
    const auto lock = database_->sqlite.lock();
    database_->sqlite.prepare("DELETE FROM networks WHERE id = ?").bind(record.id).run();
  }
  {
    const std::lock_guard lock(mutex_);
    records_.erase(record.id);
  }
  publish(record, "destroy");
}

std::vector<Endpoint> Networks::endpointsOf(const ContainerSpec& spec,
                                            std::string_view endpoints) const {
  if (!spec.network) return {};
  std::map<std::string, Json> asked;  // by spec id
  std::vector<std::string> order;
  const Json object = fields::parseObject(endpoints, "EndpointsConfig");
  // Not kNotFound: to a client a 404 of create means a missing image, and it would pull.
  const auto idOf = [&](const std::string& name) {
    const auto found = find(name);
    if (!found || found->spec.id.empty()) {
      throw Error(ErrorKind::kInvalidArgument, "network " + name + " not found");
    }
    return found->spec.id;
  };
  order.push_back(idOf(spec.network_mode));
  for (const auto& [name, config] : object.items()) {
    const std::string id = idOf(name);
    if (id != order.front()) order.push_back(id);
    asked[id] = config;
  }
  std::vector<Endpoint> found;
  for (const std::string& id : order) {
    const auto config = asked.find(id);
    found.push_back(parseEndpoint(
        id, config == asked.end() || config->second.is_null() ? "" : fields::dump(config->second)));
  }
  // Where the MAC address was before API 1.44.
  if (found.front().wanted_mac.empty()) found.front().wanted_mac = spec.mac_address;
  if (found.size() > kMaxNetworksPerContainer) {
    throw Error(
        ErrorKind::kInvalidArgument,
        "a container can be in " + std::to_string(kMaxNetworksPerContainer) + " networks at most");
  }
  return found;
}

}  // namespace hull::engine
