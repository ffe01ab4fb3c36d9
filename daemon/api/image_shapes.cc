#include "daemon/api/shapes.h"

namespace hull::engine::api {

namespace {

constexpr int64_t kSecondNs = 1'000'000'000;

Json namesJson(const std::vector<image::Reference>& names) {
  Json list = Json::array();
  for (const auto& name : names) list.push_back(name.familiar());
  return list;
}

Json optionalList(const std::optional<std::vector<std::string>>& list) {
  return list ? Json(*list) : Json();
}

Json setJson(const std::vector<std::string>& keys) {
  if (keys.empty()) return nullptr;
  Json object = Json::object();
  for (const std::string& key : keys) object[key] = Json::object();
  return object;
}

}  // namespace

Json runtimeConfigJson(const image::RuntimeConfig& config) {
  Json json{{"Hostname", ""},
            {"Domainname", ""},
            {"User", config.user},
            {"AttachStdin", false},
            {"AttachStdout", false},
            {"AttachStderr", false},
            {"ExposedPorts", setJson(config.exposed_ports)},
            {"Tty", false},
            {"OpenStdin", false},
            {"StdinOnce", false},
            {"Env", config.env},
            {"Cmd", optionalList(config.cmd)},
            {"Image", ""},
            {"Volumes", setJson(config.volumes)},
            {"WorkingDir", config.working_dir},
            {"Entrypoint", optionalList(config.entrypoint)},
            {"OnBuild", config.on_build.empty() ? Json() : Json(config.on_build)},
            {"Labels", config.labels.empty() ? Json() : Json(config.labels)}};
  if (!config.stop_signal.empty()) json["StopSignal"] = config.stop_signal;
  if (!config.shell.empty()) json["Shell"] = config.shell;
  if (config.health_check) {
    json["Healthcheck"] = {{"Test", config.health_check->test},
                           {"Interval", config.health_check->interval_ns},
                           {"Timeout", config.health_check->timeout_ns},
                           {"StartPeriod", config.health_check->start_period_ns},
                           {"Retries", config.health_check->retries}};
  }
  return json;
}

Json imageSummary(const image::Image& image, int64_t containers) {
  const auto& labels = image.config.config.labels;
  return {{"Id", image.id.text()},
          {"ParentId", ""},
          {"RepoTags", namesJson(image.tags)},
          {"RepoDigests", namesJson(image.digests)},
          {"Created", parseTime(image.config.created) / kSecondNs},
          {"Size", image.size_bytes},
          {"VirtualSize", image.size_bytes},
          {"SharedSize", -1},
          {"Labels", labels.empty() ? Json() : Json(labels)},
          {"Containers", containers}};
}

Json imageJson(const image::Image& image) {
  Json layers = Json::array();
  for (const auto& diff_id : image.config.diff_ids) layers.push_back(diff_id.text());
  const auto& history = image.config.history;
  return {{"Id", image.id.text()},
          {"RepoTags", namesJson(image.tags)},
          {"RepoDigests", namesJson(image.digests)},
          {"Parent", ""},
          {"Comment", history.empty() ? "" : history.back().comment},
          {"Created", image.config.created.empty() ? timeText(0) : image.config.created},
          {"DockerVersion", ""},
          {"Author", image.config.author},
          {"Config", runtimeConfigJson(image.config.config)},
          {"Architecture", image.config.platform.architecture},
          {"Variant", image.config.platform.variant},
          {"Os", image.config.platform.os},
          {"Size", image.size_bytes},
          {"VirtualSize", image.size_bytes},
          {"GraphDriver", {{"Data", Json::object()}, {"Name", "hull"}}},
          {"RootFS", {{"Type", "layers"}, {"Layers", layers}}},
          {"Metadata", {{"LastTagTime", timeText(0)}}}};
}

Json imageHistory(const image::Image& image) {
  Json list = Json::array();
  size_t layer = 0;
  for (const auto& entry : image.config.history) {
    uint64_t size = 0;
    if (!entry.empty_layer && layer < image.layer_blobs.size()) {
      size = image.layer_blobs[layer++].size;  // as transferred: unpacked sizes are not kept apart
    }
    list.insert(list.begin(), Json{{"Id", "<missing>"},
                                   {"Created", parseTime(entry.created) / kSecondNs},
                                   {"CreatedBy", entry.created_by},
                                   {"Tags", nullptr},
                                   {"Size", size},
                                   {"Comment", entry.comment}});
  }
  if (list.empty()) {
    list.push_back({{"Created", parseTime(image.config.created) / kSecondNs},
                    {"CreatedBy", ""},
                    {"Size", image.size_bytes},
                    {"Comment", ""}});
  }
  list[0]["Id"] = image.id.text();
  list[0]["Tags"] = image.tags.empty() ? Json() : namesJson(image.tags);
  return list;
}

}  // namespace hull::engine::api
