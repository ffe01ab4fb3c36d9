// Containers: everything that is one request and one answer.
#include <algorithm>

#include "base/file.h"
#include "daemon/api/filters.h"
#include "daemon/api/handlers.h"
#include "daemon/api/shapes.h"
#include "daemon/api/stats.h"
#include "daemon/api/time_query.h"
#include "daemon/engine/json_fields.h"
#include "daemon/engine/names.h"

namespace hull::engine::api {

namespace {

using ContainerPtr = std::shared_ptr<Container>;

ContainerPtr named(Exchange& exchange, Engine& engine) {
  return engine.containers().get(exchange.parameter(0));
}

void create(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  const auto created =
      engine.containers().create(exchange.text(), query.get("name"), query.get("platform"));
  exchange.json(201, dump({{"Id", created.id}, {"Warnings", created.warnings}}));
}

// --- list ---

bool anyName(const Filters& filters, const std::string& name) {
  const auto& wanted = filters.get("name");
  return wanted.empty() || std::any_of(wanted.begin(), wanted.end(), [&](std::string part) {
           if (part.starts_with('^')) {  // what compose sends: ^/name$
             part.erase(0, 1);
             if (part.starts_with('/')) part.erase(0, 1);
             if (part.ends_with('$')) return name == part.substr(0, part.size() - 1);
             return name.starts_with(part);
           }
           if (part.starts_with('/')) part.erase(0, 1);
           return name.find(part) != std::string::npos;
         });
}

bool ancestorFits(Engine& engine, const Filters& filters, const Container& container) {
  const auto& wanted = filters.get("ancestor");
  return wanted.empty() || std::any_of(wanted.begin(), wanted.end(), [&](const std::string& name) {
           const auto image = engine.images().find(name);
           return image && image->id.text() == container.imageId();
         });
}

bool networkFits(Engine& engine, const Filters& filters, const Container& container) {
  const auto& wanted = filters.get("network");
  if (wanted.empty()) return true;
  const ContainerState state = container.state();
  return std::any_of(wanted.begin(), wanted.end(), [&](const std::string& name) {
    const auto network = engine.networks().find(name);
    if (!network) return false;
    if (network->spec.id.empty()) return !container.spec().network;
    return std::any_of(state.endpoints.begin(), state.endpoints.end(),
                       [&](const Endpoint& each) { return each.network == network->spec.id; });
  });
}

// A volume's name or a mount's destination.
bool volumeFits(const Filters& filters, const Container& container) {
  const auto& wanted = filters.get("volume");
  if (wanted.empty()) return true;
  const auto mounts = container.mounts();
  return std::any_of(mounts.begin(), mounts.end(), [&](const MountPoint& mount) {
    return std::any_of(wanted.begin(), wanted.end(), [&](const std::string& name) {
      return name == mount.name || name == mount.destination || name == mount.source;
    });
  });
}

bool portFits(const std::vector<std::string>& wanted, const std::vector<std::string>& have) {
  return wanted.empty() || std::any_of(wanted.begin(), wanted.end(), [&](std::string port) {
           if (port.find('/') == std::string::npos) port += "/tcp";
           return std::find(have.begin(), have.end(), port) != have.end();
         });
}

bool containerFits(Engine& engine, const Filters& filters, const Container& container) {
  const ContainerState state = container.state();
  const auto& ids = filters.get("id");
  const bool id_fits =
      ids.empty() || std::any_of(ids.begin(), ids.end(), [&](const std::string& prefix) {
        return container.id().starts_with(prefix);
      });
  std::vector<std::string> published;
  for (const auto& port : state.ports)
    published.push_back(std::to_string(port.guest_port) + "/" + port.protocol);
  const bool exited_fits =
      !filters.has("exited") || (state.status == Status::kExited &&
                                 filters.allows("exited", std::to_string(state.exit_code)));
  return id_fits && exited_fits && anyName(filters, container.name()) &&
         filters.allows("status", toString(state.status)) &&
         filters.labelsFit(container.spec().labels) && ancestorFits(engine, filters, container) &&
         networkFits(engine, filters, container) && portFits(filters.get("publish"), published) &&
         portFits(filters.get("expose"), container.spec().exposed_ports) &&
         volumeFits(filters, container) && filters.allows("health", toString(state.health.status));
}

int64_t createdOf(Engine& engine, const std::string& name) {
  return engine.containers().get(name)->createdNs();
}

void list(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  const Filters filters(query.get("filters"), {"ancestor", "before", "expose", "exited", "health",
                                               "id", "is-task", "isolation", "label", "name",
                                               "network", "publish", "since", "status", "volume"});
  for (const std::string& status : filters.get("status")) parseStatus(status);
  int64_t limit = query.number("limit").value_or(0);
  const bool all = query.flag("all") || limit > 0 || filters.has("status") ||
                   filters.has("exited") || filters.has("before") || filters.has("since");
  Json containers = Json::array();
  for (const ContainerPtr& container : engine.containers().list()) {
    if (!all && !container->state().running() && container->state().status != Status::kRestarting) {
      continue;
    }
    if (!containerFits(engine, filters, *container)) continue;
    const int64_t created = container->createdNs();
    if (filters.has("before") && created >= createdOf(engine, filters.get("before").front())) {
      continue;
    }
    if (filters.has("since") && created <= createdOf(engine, filters.get("since").front())) {
      continue;
    }
    containers.push_back(containerSummary(engine, *container, query.flag("size")));
    if (limit > 0 && --limit == 0) break;
  }
  exchange.json(200, dump(containers));
}

void inspect(Exchange& exchange, Engine& engine) {
  const ContainerPtr container = named(exchange, engine);
  Json json = containerJson(engine, *container);
  if (exchange.request().query.flag("size")) {
    const auto image = engine.images().find(container->record().image_id);
    json["SizeRw"] = writableBytes(*container);
    json["SizeRootFs"] = writableBytes(*container) + (image ? image->size_bytes : 0);
  }
  exchange.json(200, dump(json));
}

// --- state ---

StopOptions stopOptions(Exchange& exchange) {
  const Query& query = exchange.request().query;
  StopOptions options;
  if (query.has("signal")) options.signal = query.get("signal");
  options.timeout_s = query.number("t");
  return options;
}

void update(Exchange& exchange, Engine& engine) {
  const auto warnings = engine.containers().update(named(exchange, engine), exchange.text());
  exchange.json(200, dump({{"Warnings", warnings}}));
}

void top(Exchange& exchange, Engine& engine) {
  const ContainerPtr container = named(exchange, engine);
  const auto run = container->run();
  if (!run) {
    throw Error(ErrorKind::kConflict, "container " + container->id() + " is not running");
  }
  const auto table =
      run->vm()->requestFor<guest::ProcessTable>(container->id(), guest::ListProcesses{});
  exchange.json(200, dump({{"Titles", table.titles}, {"Processes", table.rows}}));
}

void remove(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  if (query.flag("link")) {
    throw Error(ErrorKind::kNotSupported, "links are not supported");
  }
  engine.containers().remove(named(exchange, engine), query.flag("force"), query.flag("v"));
  exchange.empty(204);
}

void prune(Exchange& exchange, Engine& engine) {
  const Filters filters(exchange.request().query.get("filters"), {"label", "label!", "until"});
  const auto until = filters.has("until") ? timeQuery(filters.get("until").front()) : std::nullopt;
  Json deleted = Json::array();
  uint64_t reclaimed = 0;
  for (const ContainerPtr& container : engine.containers().list()) {
    const Status status = container->state().status;
    if (status != Status::kCreated && status != Status::kExited && status != Status::kDead)
      continue;
    if (!filters.labelsFit(container->spec().labels)) continue;
    if (until && container->createdNs() > *until) continue;
    const uint64_t bytes = writableBytes(*container);
    try {
      engine.containers().remove(container, false);
    } catch (const Error&) {
      continue;  // started meanwhile
    }
    deleted.push_back(container->id());
    reclaimed += bytes;
  }
  exchange.json(200, dump({{"ContainersDeleted", deleted}, {"SpaceReclaimed", reclaimed}}));
}

uint16_t dimension(const Query& query, const char* key) {
  const int64_t value = query.number(key).value_or(0);
  if (value < 0 || value > 65535) {
    throw Error(ErrorKind::kInvalidArgument, std::string("invalid terminal size: ") + key);
  }
  return static_cast<uint16_t>(value);
}

void resize(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  engine.containers().resize(named(exchange, engine), dimension(query, "h"), dimension(query, "w"));
  exchange.empty(200);
}

void resizeExec(Exchange& exchange, Engine& engine) {
  const Query& query = exchange.request().query;
  engine.execs().resize(*engine.execs().get(exchange.parameter(0)), dimension(query, "h"),
                        dimension(query, "w"));
  exchange.empty(200);
}

void createExec(Exchange& exchange, Engine& engine) {
  const auto container = named(exchange, engine);
  const auto exec = engine.execs().create(container, parseExecSpec(exchange.text()));
  engine.containers().publish(*container, "exec_create", {{"execID", exec->id()}});
  exchange.json(201, dump({{"Id", exec->id()}}));
}

using Action = std::function<void(Exchange&, const ContainerPtr&)>;

}  // namespace

void addContainerRoutes(Router& router, Engine& engine) {
  router.add("POST", "/containers/create", [&](Exchange& e) { create(e, engine); });
  router.add("GET", "/containers/json", [&](Exchange& e) { list(e, engine); });
  router.add("POST", "/containers/prune", [&](Exchange& e) { prune(e, engine); });
  router.add("GET", "/containers/{name}/json", [&](Exchange& e) { inspect(e, engine); });
  router.add("GET", "/containers/{name}/top", [&](Exchange& e) { top(e, engine); });
  router.add("GET", "/containers/{name}/stats", [&](Exchange& e) { stats(e, engine); });
  router.add("DELETE", "/containers/{name}", [&](Exchange& e) { remove(e, engine); });
  router.add("POST", "/containers/{name}/resize", [&](Exchange& e) { resize(e, engine); });
  router.add("POST", "/containers/{name}/update", [&](Exchange& e) { update(e, engine); });
  router.add("POST", "/containers/{name}/exec", [&](Exchange& e) { createExec(e, engine); });
  router.add("POST", "/exec/{id}/resize", [&](Exchange& e) { resizeExec(e, engine); });
  router.add("GET", "/exec/{id}/json", [&](Exchange& e) {
    e.json(200, dump(execJson(*engine.execs().get(e.parameter(0)))));
  });

  const auto action = [&](const char* verb, const Action& work) {
    router.add("POST", std::string("/containers/{name}/") + verb, [&engine, work](Exchange& e) {
      const auto container = named(e, engine);
      work(e, container);
      if (!e.answered()) e.empty(204);
    });
  };
  action("start", [&](Exchange& e, const ContainerPtr& c) {
    if (!engine.containers().start(c)) e.empty(304);
  });
  action("stop", [&](Exchange& e, const ContainerPtr& c) {
    if (!engine.containers().stop(c, stopOptions(e))) e.empty(304);
  });
  action("restart", [&](Exchange& e, const ContainerPtr& c) {
    engine.containers().restart(c, stopOptions(e));
  });
  action("kill", [&](Exchange& e, const ContainerPtr& c) {
    engine.containers().kill(c, e.request().query.get("signal"));
  });
  action("pause", [&](Exchange&, const ContainerPtr& c) { engine.containers().pause(c); });
  action("unpause", [&](Exchange&, const ContainerPtr& c) { engine.containers().unpause(c); });
  action("rename", [&](Exchange& e, const ContainerPtr& c) {
    engine.containers().rename(c, e.request().query.get("name"));
  });
}

}  // namespace hull::engine::api
