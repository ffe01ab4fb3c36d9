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

Json imageSummary(const image::Image& image, int64_t containers, int64_t shared) {
  const auto& labels = image.config.config.labels;
  return {{"Id", image.id.text()},
          {"ParentId", ""},
          {"RepoTags", namesJson(image.tags)},
          {"RepoDigests", namesJson(image.digests)},
          {"Created", parseTime(image.config.created) / kSecondNs},
          {"Size", image.size_bytes},
          {"VirtualSize", image.size_bytes},
          {"SharedSize", shared},
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
          {"Metadata", {{"LastTagTime", timeText(0)}}},
          {"Descriptor",
           {{"mediaType", image.manifest_type},
            {"digest", image.manifest.text()},
            {"size", image.manifest_bytes}}}};
}

Json imageManifests(Engine& engine, const image::Image& image) {
  uint64_t content = 0;
  for (const auto& layer : image.layer_blobs) content += layer.size;
  Json containers = Json::array();
  for (const auto& container : engine.containers().list()) {
    if (container->record().image_id == image.id.text()) containers.push_back(container->id());
  }
  const image::Platform& platform = image.config.platform;
  Json platform_json{{"architecture", platform.architecture}, {"os", platform.os}};
  if (!platform.variant.empty()) platform_json["variant"] = platform.variant;
  return Json::array({{{"ID", image.manifest.text()},
                       {"Descriptor",
                        {{"mediaType", image.manifest_type},
                         {"digest", image.manifest.text()},
                         {"size", image.manifest_bytes}}},
                       {"Available", true},
                       {"Kind", "image"},
                       {"Size", {{"Content", content}, {"Total", content + image.size_bytes}}},
                       {"ImageData",
                        {{"Platform", platform_json},
                         {"Size", {{"Unpacked", image.size_bytes}}},
                         {"Containers", containers}}}}});
}

Json imageHistory(const image::ImageStore& images, const image::Image& image) {
  Json list = Json::array();
  size_t layer = 0;
  for (const auto& entry : image.config.history) {
    uint64_t size = 0;
    if (!entry.empty_layer && layer < image.config.diff_ids.size()) {
      size = images.layerBytes(image.config.diff_ids[layer++]);
    }
    list.insert(list.begin(), Json{{"Id", "<missing>"},
                                   {"Created", parseTime(entry.created) / kSecondNs},
                                   {"CreatedBy", entry.created_by},
                                   {"Tags", nullptr},
                                   {"Size", size},
                                   {"Comment", entry.comment}});
  }
  if (list.empty()) {
    list.push_back({{"Id", image.id.text()},
                    {"Created", parseTime(image.config.created) / kSecondNs},
                    {"CreatedBy", ""},
                    {"Tags", nullptr},
                    {"Size", image.size_bytes},
                    {"Comment", ""}});
  }
  list[0]["Id"] = image.id.text();
  list[0]["Tags"] = image.tags.empty() ? Json() : namesJson(image.tags);
  return list;
}

}  // namespace hull::engine::api
