#include "image/types/config.h"

#include <utility>

#include "base/error.h"
#include "image/types/json.h"

namespace hull::image {

namespace {

using json::Json;
using OrderedJson = nlohmann::ordered_json;

constexpr const char* kBuildCache = "hull.build.cache.v1";
constexpr size_t kCacheKeyDigits = 64;
constexpr size_t kMaxTimeBytes = 40;

std::vector<std::string> listOf(const Json& object, const char* key) {
  const Json* value = json::find(object, key);
  return value ? json::texts(*value, key) : std::vector<std::string>{};
}

HealthCheck parseHealthCheck(const Json& object) {
  HealthCheck check;
  check.test = listOf(object, "Test");
  check.interval_ns = json::integer(object, "Interval");
  check.timeout_ns = json::integer(object, "Timeout");
  check.start_period_ns = json::integer(object, "StartPeriod");
  check.start_interval_ns = json::integer(object, "StartInterval");
  check.retries = json::integer(object, "Retries");
  return check;
}

RuntimeConfig parseRuntime(const Json& object) {
  RuntimeConfig config;
  config.user = json::text(object, "User");
  config.env = listOf(object, "Env");
  if (json::find(object, "Entrypoint")) config.entrypoint = listOf(object, "Entrypoint");
  if (json::find(object, "Cmd")) config.cmd = listOf(object, "Cmd");
  config.working_dir = json::text(object, "WorkingDir");
  if (const Json* labels = json::find(object, "Labels")) {
    for (const std::string& key : json::keys(object, "Labels")) {
      config.labels[key] = json::text(*labels, key.c_str());
    }
  }
  config.exposed_ports = json::keys(object, "ExposedPorts");
  config.volumes = json::keys(object, "Volumes");
  config.stop_signal = json::text(object, "StopSignal");
  config.shell = listOf(object, "Shell");
  config.on_build = listOf(object, "OnBuild");
  if (const Json* check = json::find(object, "Healthcheck")) {
    config.health_check = parseHealthCheck(*check);
  }
  return config;
}

std::vector<Digest> parseDiffIds(const Json& document) {
  std::vector<Digest> result;
  const Json* rootfs = json::find(document, "rootfs");
  if (!rootfs) throw Error(ErrorKind::kCorrupt, "it has no rootfs");
  if (json::text(*rootfs, "type") != "layers") {
    throw Error(ErrorKind::kNotSupported, "its rootfs type is not \"layers\"");
  }
  for (const std::string& text : listOf(*rootfs, "diff_ids")) {
    try {
      result.push_back(Digest::parse(text));
    } catch (const Error& error) {
      throw Error(ErrorKind::kCorrupt, error.what());
    }
  }
  if (result.size() > kMaxLayers) {
    throw Error(ErrorKind::kTooLarge, "more than " + std::to_string(kMaxLayers) + " layers");
  }
  return result;
}

std::vector<HistoryEntry> parseHistory(const Json& document) {
  std::vector<HistoryEntry> result;
  const Json* list = json::find(document, "history");
  if (!list) return result;
  if (!list->is_array()) json::wrongType("history", "a list");
  for (const Json& item : *list) {
    result.push_back({json::text(item, "created"), json::text(item, "created_by"),
                      json::text(item, "author"), json::text(item, "comment"),
                      json::boolean(item, "empty_layer")});
  }
  return result;
}

bool consistsOf(std::string_view text, std::string_view characters) {
  return text.find_first_not_of(characters) == std::string_view::npos;
}

std::vector<CacheStep> parseBuildCache(const Json& document, size_t layers) {
  std::vector<CacheStep> result;
  const Json* cache = json::find(document, kBuildCache);
  if (!cache) return result;
  const Json* list = json::find(*cache, "steps");
  if (!list) return result;
  if (!list->is_array()) json::wrongType("steps", "a list");
  if (list->size() > kMaxCacheSteps) {
    throw Error(ErrorKind::kTooLarge,
                "its build cache has more than " + std::to_string(kMaxCacheSteps) + " steps");
  }
  for (const Json& item : *list) {
    CacheStep step{json::text(item, "key"), json::text(item, "created"),
                   json::text(item, "description"), std::nullopt};
    if (step.key.size() != kCacheKeyDigits || !consistsOf(step.key, "0123456789abcdef") ||
        step.created.empty() || step.created.size() > kMaxTimeBytes ||
        !consistsOf(step.created, "0123456789-+:.TZ") ||
        step.description.size() > kMaxCacheTextBytes) {
      throw Error(ErrorKind::kCorrupt, "a step of its build cache is malformed");
    }
    if (json::find(item, "layer")) {
      step.layer = json::size(item, "layer");
      if (*step.layer >= layers)
        throw Error(ErrorKind::kCorrupt, "a step of its build cache names a layer it has not");
    }
    result.push_back(std::move(step));
  }
  return result;
}

OrderedJson buildCacheJson(const std::vector<CacheStep>& steps) {
  OrderedJson list = OrderedJson::array();
  for (const CacheStep& step : steps) {
    OrderedJson item = {{"key", step.key}, {"created", step.created}};
    if (!step.description.empty()) item["description"] = step.description;
    if (step.layer) item["layer"] = *step.layer;
    list.push_back(std::move(item));
  }
  OrderedJson cache = OrderedJson::object();
  cache["steps"] = std::move(list);
  return cache;
}

ImageConfig interpret(const Json& document) {
  ImageConfig config;
  if (const std::string os = json::text(document, "os"); !os.empty()) config.platform.os = os;
  if (const std::string name = json::text(document, "architecture"); !name.empty()) {
    config.platform.architecture = name;
  }
  config.platform.variant = json::text(document, "variant");
  config.created = json::text(document, "created");
  config.author = json::text(document, "author");
  if (const Json* runtime = json::find(document, "config")) config.config = parseRuntime(*runtime);
  config.diff_ids = parseDiffIds(document);
  config.history = parseHistory(document);
  config.build_cache = parseBuildCache(document, config.diff_ids.size());
  return config;
}

void putIf(OrderedJson& object, const char* key, const std::string& text) {
  if (!text.empty()) object[key] = text;
}
void putIf(OrderedJson& object, const char* key, const std::vector<std::string>& list) {
  if (!list.empty()) object[key] = list;
}

OrderedJson emptyObjects(const std::vector<std::string>& names) {
  OrderedJson object = OrderedJson::object();
  for (const std::string& name : names) object[name] = OrderedJson::object();
  return object;
}

OrderedJson healthJson(const HealthCheck& check) {
  OrderedJson object = OrderedJson::object();
  putIf(object, "Test", check.test);
  const std::pair<const char*, int64_t> numbers[] = {{"Interval", check.interval_ns},
                                                     {"Timeout", check.timeout_ns},
                                                     {"StartPeriod", check.start_period_ns},
                                                     {"StartInterval", check.start_interval_ns},
                                                     {"Retries", check.retries}};
  for (const auto& [key, value] : numbers) {
    if (value != 0) object[key] = value;
  }
  return object;
}

OrderedJson runtimeJson(const RuntimeConfig& config) {
  OrderedJson object = OrderedJson::object();
  putIf(object, "User", config.user);
  if (!config.exposed_ports.empty()) object["ExposedPorts"] = emptyObjects(config.exposed_ports);
  putIf(object, "Env", config.env);
  if (config.entrypoint) object["Entrypoint"] = *config.entrypoint;
  if (config.cmd) object["Cmd"] = *config.cmd;
  if (!config.volumes.empty()) object["Volumes"] = emptyObjects(config.volumes);
  putIf(object, "WorkingDir", config.working_dir);
  if (!config.labels.empty()) object["Labels"] = config.labels;
  putIf(object, "StopSignal", config.stop_signal);
  putIf(object, "Shell", config.shell);
  putIf(object, "OnBuild", config.on_build);
  if (config.health_check) object["Healthcheck"] = healthJson(*config.health_check);
  return object;
}

}  // namespace

ImageConfig parseImageConfig(std::string_view text) {
  return inContext("parse image configuration",
                   [&] { return interpret(json::parseDocument(text, kMaxConfigBytes, "JSON")); });
}

std::string toJson(const ImageConfig& config) {
  OrderedJson document;
  putIf(document, "created", config.created);
  putIf(document, "author", config.author);
  document["architecture"] = config.platform.architecture;
  putIf(document, "variant", config.platform.variant);
  document["os"] = config.platform.os;
  document["config"] = runtimeJson(config.config);
  OrderedJson diff_ids = OrderedJson::array();
  for (const Digest& digest : config.diff_ids) diff_ids.push_back(digest.text());
  document["rootfs"]["type"] = "layers";
  document["rootfs"]["diff_ids"] = std::move(diff_ids);
  if (!config.history.empty()) document["history"] = OrderedJson::array();
  for (const HistoryEntry& entry : config.history) {
    OrderedJson item = OrderedJson::object();
    putIf(item, "created", entry.created);
    putIf(item, "created_by", entry.created_by);
    putIf(item, "author", entry.author);
    putIf(item, "comment", entry.comment);
    if (entry.empty_layer) item["empty_layer"] = true;
    document["history"].push_back(std::move(item));
  }
  if (!config.build_cache.empty()) document[kBuildCache] = buildCacheJson(config.build_cache);
  // Environment values may hold any bytes; JSON holds only UTF-8.
  return document.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace hull::image
