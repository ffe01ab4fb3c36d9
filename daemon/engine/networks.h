// The networks there are: the predefined ones and the user's, whose record is kept in
// <root>/networks.db; carried out by Network (daemon/network). Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/engine/container_spec.h"
#include "daemon/engine/container_state.h"
#include "daemon/engine/engine_parts.h"
#include "daemon/engine/events.h"

namespace hull::engine {

struct NetworkRecord {
  std::string id;  // 64 hex digits
  std::string name;
  std::string driver = "bridge";  // or "null"
  int64_t created_ns = 0;
  bool predefined = false;
  bool attachable = false;
  NetworkSpec spec;  // spec.id is what endpoints name; none for "none"
  std::map<std::string, std::string> labels;
  std::map<std::string, std::string> options;  // as asked, and shown again
  std::string ipam_driver = "default";
};

// What a create request asks for. Throws kInvalidArgument, kNotSupported. Pure.
NetworkRecord parseNetworkRequest(std::string_view body);
// One EndpointConfig of the API. Pure.
Endpoint parseEndpoint(const std::string& network, std::string_view config);

class Networks {
 public:
  Networks(EngineParts& parts, const std::string& root, EventBus& events);
  ~Networks();

  std::vector<NetworkRecord> list() const;  // predefined first, then by age
  // By name, id or unique id prefix. Throws kNotFound in Docker's words.
  NetworkRecord get(std::string_view name) const;
  std::optional<NetworkRecord> find(std::string_view name) const;  // throws when ambiguous
  std::optional<NetworkRecord> findById(const std::string& spec_id) const;

  NetworkRecord create(std::string_view body);  // throws kConflict when the name is in use
  void remove(const NetworkRecord& network);    // throws kForbidden: in use, predefined

  // The endpoints a new container begins with: of its network mode and its EndpointsConfig.
  std::vector<Endpoint> endpointsOf(const ContainerSpec& spec, std::string_view endpoints) const;
  void publish(const NetworkRecord& network, std::string action,
               std::map<std::string, std::string> more = {});

 private:
  struct Database;
  Network& network() const;  // throws kUnavailable

  EngineParts& parts_;
  EventBus& events_;
  std::unique_ptr<Database> database_;
  std::mutex creating_;                           // of two with one name the second one fails
  mutable std::mutex mutex_;                      // below
  std::map<std::string, NetworkRecord> records_;  // the user's, by id
};

}  // namespace hull::engine
