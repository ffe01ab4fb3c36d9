// POST /build, the classic builder's protocol.
#include "base/base64.h"
#include "daemon/api/handlers.h"
#include "daemon/api/json_stream.h"
#include "daemon/api/shapes.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine::api {

namespace {

constexpr const char* kHubConfigKey = "https://index.docker.io/v1/";

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

build::BuildRequest requestOf(const Query& query) {
  if (!query.get("remote").empty()) {
    throw Error(ErrorKind::kNotSupported,
                "building from an address is not supported: fetch the context and build from the "
                "folder");
  }
  if (query.get("version") == "2") {
    throw Error(ErrorKind::kNotSupported,
                "BuildKit's protocol is not supported: set DOCKER_BUILDKIT=0, or use hull build");
  }
  if (query.flag("squash")) throw Error(ErrorKind::kNotSupported, "squash is not supported");
  build::BuildRequest request;
  request.dockerfile_path = query.get("dockerfile");
  if (request.dockerfile_path.empty()) request.dockerfile_path = "Dockerfile";
  for (const std::string& tag : query.all("t")) {
    if (!tag.empty()) request.tags.push_back(image::Reference::parse(tag));
  }
  request.build_args = stringMap(query, "buildargs");
  request.labels = stringMap(query, "labels");
  request.target = query.get("target");
  request.no_cache = query.flag("nocache");
  request.pull = query.flag("pull");
  const std::string network = query.get("networkmode");
  if (!network.empty() && network != "default" && network != "bridge" && network != "none") {
    throw Error(ErrorKind::kNotSupported,
                "network mode \"" + network + "\" is not supported for builds: default or none");
  }
  request.network = network != "none";
  const int64_t memory = query.number("memory").value_or(0);
  request.memory_bytes = memory > 0 ? static_cast<uint64_t>(memory) : 0;
  request.extra_hosts = query.all("extrahosts");
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

void report(JsonStream& stream, const build::BuildEvent& event) {
  using Kind = build::BuildEvent::Kind;
  const auto text = [&](const std::string& line) { stream.line({{"stream", line}}); };
  switch (event.kind) {
    case Kind::kStepStarted:
      return text(event.text + "\n");
    case Kind::kStepCached:
      return text(" ---> Using cache\n");
    case Kind::kStepFinished:
      return text(" ---> " + event.id + "\n");
    case Kind::kOutput:
      return text(event.text);
    case Kind::kWarning:
      return text("[Warning] " + event.text + "\n");
    case Kind::kFinished:
      return;  // told from the image itself
  }
}

void buildImage(Exchange& exchange, Engine& engine) {
  const build::BuildRequest request = requestOf(exchange.request().query);
  const bool quiet = exchange.request().query.flag("q");
  const std::string registry_config = exchange.request().header("x-registry-config");
  JsonStream stream(exchange);
  build::BuildHooks hooks;
  hooks.cancelled = stream.cancelFunction();
  hooks.report = [&](const build::BuildEvent& event) {
    if (!quiet) report(stream, event);
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
  stream.run([&] {
    const auto image = engine.parts().build(engine.images(), *engine.parts().step_runner,
                                            exchange.body(), request, hooks);
    stream.line({{"aux", {{"ID", image.id.text()}}}});
    if (quiet) return stream.line({{"stream", image.id.text() + "\n"}});
    stream.line({{"stream", "Successfully built " + image.id.shortHex() + "\n"}});
    for (const auto& tag : request.tags) {
      stream.line({{"stream", "Successfully tagged " + tag.familiar() + "\n"}});
      engine.events().publish({"image", "tag", image.id.text(), {{"name", tag.familiar()}}, 0});
    }
  });
}

void pruneBuilds(Exchange& exchange, Engine& engine) {
  const auto collected = engine.images().collectGarbage();
  exchange.json(200, dump({{"CachesDeleted", nullptr}, {"SpaceReclaimed", collected.bytes}}));
}

}  // namespace

void addBuildRoutes(Router& router, Engine& engine) {
  router.add("POST", "/build", [&](Exchange& e) { buildImage(e, engine); });
  router.add("POST", "/build/prune", [&](Exchange& e) { pruneBuilds(e, engine); });
}

}  // namespace hull::engine::api
