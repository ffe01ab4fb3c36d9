// POST /build, the classic builder's protocol.
#include <time.h>

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "base/base64.h"
#include "base/log.h"
#include "daemon/api/build_agents.h"
#include "daemon/api/build_cache.h"
#include "daemon/api/build_events.h"
#include "daemon/api/build_secrets.h"
#include "daemon/api/filters.h"
#include "daemon/api/handlers.h"
#include "daemon/api/json_stream.h"
#include "daemon/api/shapes.h"
#include "daemon/api/time_query.h"
#include "daemon/engine/json_fields.h"
#include "image/build/cache.h"
#include "image/build/context_store.h"
#include "image/build/lean_tar.h"
#include "image/build/rootfs.h"
#include "image/build/stages.h"

namespace hull::engine::api {

namespace {

constexpr const char* kHubConfigKey = "https://index.docker.io/v1/";
constexpr int64_t kNsPerSecond = 1'000'000'000;
constexpr size_t kCacheIdDigits = 25;  // as long as BuildKit's

// A build's context is a layer of no image; it goes when the build is over.
class ContextSweep {
 public:
  explicit ContextSweep(image::ImageStore& images) : images_(images) {}
  ~ContextSweep() {
    try {
      images_.collectGarbage();
    } catch (const std::exception& error) {
      log::warning(std::string("sweep after a build: ") + error.what());
    }
  }
  ContextSweep(const ContextSweep&) = delete;
  ContextSweep& operator=(const ContextSweep&) = delete;

 private:
  image::ImageStore& images_;
};

// A JSON object of strings; null values (build arguments without one) are left out.
std::map<std::string, std::string> stringMap(const Query& query, const char* key) {
  std::map<std::string, std::string> map;
  const Json object = fields::parseObject(query.get(key), key);
  for (const auto& [name, value] : object.items()) {
    if (value.is_null()) continue;
    if (!value.is_string()) fields::wrongType(key, "an object of strings");
    map[name] = value.get<std::string>();
  }
  return map;
}

// "a:1,b:2" in one value (docker-py) or one in each (docker).
std::vector<std::string> extraHosts(const Query& query) {
  std::vector<std::string> hosts;
  for (const std::string& value : query.all("extrahosts")) {
    for (size_t start = 0; start < value.size();) {
      const size_t comma = std::min(value.find(',', start), value.size());
      if (comma > start) hosts.push_back(value.substr(start, comma - start));
      start = comma + 1;
    }
  }
  return hosts;
}

void refuse(const Query& query) {
  if (query.get("version") == "2") {
    throw Error(ErrorKind::kNotSupported,
                "BuildKit's protocol is not supported: set DOCKER_BUILDKIT=0, or use hull build");
  }
  if (query.flag("squash")) throw Error(ErrorKind::kNotSupported, "squash is not supported");
}

// CPU shares and quotas, swap, cgroup parents and the like are accepted and mean nothing: a step
// has a machine of its own.
build::BuildRequest requestOf(const Request& http) {
  const Query& query = http.query;
  refuse(query);
  build::BuildRequest request;
  request.lean_context = http.header("content-type") == build::kLeanTarType;
  request.remote_context = query.get("remote");
  if (request.remote_context == "client-session") request.remote_context.clear();
  request.dockerfile_path = query.get("dockerfile");
  if (request.dockerfile_path.empty()) request.dockerfile_path = "Dockerfile";
  for (const std::string& tag : query.all("t")) {
    if (!tag.empty()) request.tags.push_back(image::Reference::parse(tag));
  }
  request.build_args = stringMap(query, "buildargs");
  request.labels = stringMap(query, "labels");
  request.target = query.get("target");
  request.no_cache = query.flag("nocache");
  for (const std::string& stage : query.all("nocachefilter"))
    request.no_cache_stages.insert(build::lowerCase(stage));
  request.pull = query.flag("pull");
  request.check_only = query.flag("check");
  for (const auto& [name, source] : stringMap(query, "buildcontexts"))
    request.contexts[build::lowerCase(name)] = source;
  if (const std::string platform = query.get("platform"); !platform.empty()) {
    image::Platform::parse(platform);
    request.platform = platform;
  }
  const std::string network = query.get("networkmode");
  if (!network.empty() && network != "default" && network != "bridge" && network != "none") {
    throw Error(ErrorKind::kNotSupported,
                "network mode \"" + network + "\" is not supported for builds: default or none");
  }
  request.network = network != "none";
  const int64_t memory = query.number("memory").value_or(0);
  request.memory_bytes = memory > 0 ? static_cast<uint64_t>(memory) : 0;
  request.extra_hosts = extraHosts(query);
  request.cache_from = cacheSources(query);
  request.inline_cache = cacheTargets(query).in_image;
  return request;
}

// X-Registry-Config: base64 JSON of credentials by registry.
registry::Credentials buildCredentials(Engine& engine, const std::string& header,
                                       const std::string& registry) {
  const auto decoded = base64Decode(header);
  if (!decoded) return {};
  const Json configs = fields::parseObject(*decoded, "X-Registry-Config");
  for (const std::string& key :
       {registry, "https://" + registry, registry == "docker.io" ? kHubConfigKey : registry}) {
    if (const Json* found = fields::find(configs, key.c_str())) {
      return engine.parts().parse_auth(base64Encode(fields::dump(*found), Base64Alphabet::kUrl));
    }
  }
  return {};
}

void buildImage(Exchange& exchange, Engine& engine, BuildAgents& agents, BuildSecrets& secrets) {
  const Query& query = exchange.request().query;
  build::BuildRequest request = requestOf(exchange.request());
  request.agents = agents.find(query.get("sshsession"), query.all("ssh"));
  request.secrets = secrets.take(query.get("secretsession"), query.all("secret"));
  const bool quiet = query.flag("q");
  const std::string registry_config = exchange.request().header("x-registry-config");
  JsonStream stream(exchange);
  std::unique_ptr<BuildEvents> events;
  if (query.flag("hullevents"))
    events = std::make_unique<StructuredBuildEvents>(stream);
  else
    events = std::make_unique<ClassicBuildEvents>([&](const std::string& text) {
      stream.line({{"stream", text}});
    });
  build::BuildHooks hooks;
  hooks.cancelled = stream.cancelFunction();
  hooks.report = [&](const build::BuildEvent& event) {
    if (!quiet) events->report(event);
  };
  hooks.pull_image = [&](const image::Reference& name, const image::Platform& platform) {
    registry::ClientOptions options = engine.options().registry;
    options.cancelled = stream.cancelFunction();
    if (!quiet) stream.status("Pulling from " + name.repository, name.tag);
    return engine.parts()
        .pull(engine.images(), name, platform,
              buildCredentials(engine, registry_config, name.registry), options,
              [&](const image::LayerProgress& p) {
                if (!quiet) stream.progress(p);
              })
        .image;
  };
  const CacheTargets cache_targets = cacheTargets(query);
  hooks.cache_mode = cache_targets.mode;
  std::optional<image::Image> cache;
  hooks.deliver_cache = [&](const image::Image& made) { cache = made; };
  stream.run([&] {
    const ContextSweep sweep(engine.images());
    image::Image image;
    try {
      image = engine.parts().build(engine.images(), *engine.parts().step_runner, exchange.body(),
                                   request, hooks);
    } catch (...) {
      events->finish();
      throw;
    }
    events->finish();
    if (cache) {
      deliverCache(stream, engine, cache_targets, *cache, [&](const std::string& registry) {
        return buildCredentials(engine, registry_config, registry);
      });
    }
    if (request.check_only)
      return stream.line({{"stream", "Check complete, no warnings found.\n"}});
    stream.line({{"aux", {{"ID", image.id.text()}}}});
    if (quiet) return stream.line({{"stream", image.id.text() + "\n"}});
    stream.line({{"stream", "Successfully built " + image.id.shortHex() + "\n"}});
    for (const auto& tag : request.tags) {
      stream.line({{"stream", "Successfully tagged " + tag.familiar() + "\n"}});
      engine.events().publish({"image", "tag", image.id.text(), {{"name", tag.familiar()}}, 0});
    }
  });
}

// "24h", "90m", "30s" ago, or a time as `since` of events takes it; seconds since 1970.
int64_t pastTime(const std::string& text) {
  int64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [at, failed] = std::from_chars(text.data(), end, number);
  const int64_t unit = at + 1 != end ? 0 : *at == 'h' ? 3600 : *at == 'm' ? 60 : *at == 's' ? 1 : 0;
  if (failed == std::errc{} && unit != 0 && number >= 0) return time(nullptr) - number * unit;
  return timeQuery(text).value_or(0) / kNsPerSecond;
}

// filters={"until": {"24h": true}}: what was not used for that long.
int64_t usedBefore(const Query& query) {
  const Filters filters(query.get("filters"), {"until", "unused-for"});
  int64_t before = INT64_MAX;
  for (const char* key : {"until", "unused-for"}) {
    for (const std::string& text : filters.get(key)) before = pastTime(text);
  }
  return before;
}

// POST /build/contents, of hull's client: a row of SHA-256 digests, 32 bytes each. The answer: "1"
// for each content that a lean tar may name, "0" for another.
void findContents(Exchange& exchange, build::ContextStore& contexts) {
  const std::string digests =
      readAll(exchange.body(), build::kMaxNamedContents * sizeof(Sha256), "digests of contents");
  exchange.reply(200, "text/plain", contexts.held(digests), {});
}

void pruneBuilds(Exchange& exchange, Engine& engine, build::BuildCache& cache,
                 build::ContextStore& contexts) {
  const Query& query = exchange.request().query;
  build::BuildCache::Prune options;
  options.used_before = usedBefore(query);
  for (const char* key : {"keep-storage", "reserved-space"}) {
    const int64_t keep = query.number(key).value_or(0);
    if (keep > 0) options.keep_bytes = static_cast<uint64_t>(keep);
  }
  std::vector<std::string> deleted = cache.prune(options);
  for (const auto& context : contexts.list()) {
    if (context.used_at >= options.used_before || options.keep_bytes != 0) continue;
    contexts.remove(context.diff_id);
    deleted.push_back("context " + context.diff_id.shortHex());
  }
  uint64_t bytes = 0;
  const auto runner = engine.parts().step_runner;
  for (const auto& mount : runner ? runner->mountCaches() : std::vector<build::CacheUsage>{}) {
    if (mount.in_use || mount.used_at >= options.used_before || options.keep_bytes != 0) continue;
    bytes += runner->removeMountCache(mount.id);
    deleted.push_back("cache-mount " + mount.id);
  }
  bytes += engine.images().collectGarbage().bytes;
  exchange.json(200, dump({{"CachesDeleted", deleted}, {"SpaceReclaimed", bytes}}));
}

}  // namespace

Json buildCacheUsage(Engine& engine) {
  Json list = Json::array();
  for (const auto& record : build::BuildCache::open(engine.images())->list()) {
    if (record.bytes == 0) continue;  // changes of the configuration
    list.push_back({{"ID", record.key.substr(0, kCacheIdDigits)},
                    {"Type", "regular"},
                    {"Description", record.description},
                    {"InUse", false},
                    {"Shared", record.shared},
                    {"Size", record.bytes},
                    {"CreatedAt", timeText(record.created_at * kNsPerSecond)},
                    {"LastUsedAt", timeText(record.used_at * kNsPerSecond)},
                    {"UsageCount", record.uses}});
  }
  for (const auto& context : build::ContextStore::open(engine.images())->list()) {
    list.push_back({{"ID", std::string(context.diff_id.hex().substr(0, kCacheIdDigits))},
                    {"Type", "source.local"},
                    {"Description", "files of a context"},
                    {"InUse", false},
                    {"Shared", false},
                    {"Size", context.bytes},
                    {"CreatedAt", timeText(context.made_at * kNsPerSecond)},
                    {"LastUsedAt", timeText(context.used_at * kNsPerSecond)},
                    {"UsageCount", 1}});
  }
  if (!engine.parts().step_runner) return list;
  for (const auto& mount : engine.parts().step_runner->mountCaches()) {
    list.push_back({{"ID", mount.id},
                    {"Type", "exec.cachemount"},
                    {"Description", "cache mount " + mount.id},
                    {"InUse", mount.in_use},
                    {"Shared", false},
                    {"Size", mount.bytes},
                    {"CreatedAt", timeText(mount.used_at * kNsPerSecond)},
                    {"LastUsedAt", timeText(mount.used_at * kNsPerSecond)},
                    {"UsageCount", 1}});
  }
  return list;
}

// What `hull build --output type=local` unpacks: the image's root file system.
void exportRootfs(Exchange& exchange, Engine& engine) {
  const image::Image image = engine.images().get(exchange.parameter(0));
  const auto pin = engine.images().pinLayers(image.config.diff_ids);
  build::RootFs root(engine.images().layers(), image.config.diff_ids);
  build::writeTree(root, exchange.stream(200, "application/x-tar", {}));
}

void addBuildRoutes(Router& router, Engine& engine) {
  // Open as long as the routes are: what it knows is pinned in the store.
  const std::shared_ptr<build::BuildCache> cache = build::BuildCache::open(engine.images());
  const std::shared_ptr<build::ContextStore> contexts = build::ContextStore::open(engine.images());
  const auto agents = std::make_shared<BuildAgents>();
  const auto secrets = std::make_shared<BuildSecrets>();
  router.add("POST", "/build", [&engine, cache, agents, secrets](Exchange& e) {
    buildImage(e, engine, *agents, *secrets);
  });
  router.add("POST", "/build/agents", [agents](Exchange& e) { agents->serve(e); });
  router.add("POST", "/build/secrets", [secrets](Exchange& e) { secrets->serve(e); });
  router.add("GET", "/images/{name*}/rootfs", [&engine](Exchange& e) { exportRootfs(e, engine); });
  router.add("POST", "/build/contents", [contexts](Exchange& e) { findContents(e, *contexts); });
  router.add("POST", "/build/prune", [&engine, cache, contexts](Exchange& e) {
    pruneBuilds(e, engine, *cache, *contexts);
  });
}

}  // namespace hull::engine::api
