#include "cli/commands/disk_details.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

constexpr size_t kCommandWidth = 20;

json listOf(const json& from, const char* key) {
  const auto found = from.find(key);
  return found != from.end() && found->is_array() ? *found : json::array();
}

std::string sizeOf(const json& from, const char* key) {
  return humanSize(std::max(0.0, from.value(key, 0.0)));
}

std::pair<std::string, std::string> splitName(const std::string& name) {
  const size_t colon = name.rfind(':');
  if (colon == std::string::npos) return {name, "<none>"};
  return {name.substr(0, colon), name.substr(colon + 1)};
}

std::string images(const json& usage) {
  Table table({"REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE",
               "CONTAINERS"});
  for (const json& image : listOf(usage, "Images")) {
    json names = listOf(image, "RepoTags");
    if (names.empty()) names.push_back("<none>:<none>");
    const double size = image.value("Size", 0.0), shared = image.value("SharedSize", 0.0);
    for (const json& name : names) {
      const auto [repository, tag] = splitName(name.get<std::string>());
      table.add({repository, tag, shortId(image.value("Id", "")),
                 ago(image.value("Created", int64_t{0})), sizeOf(image, "Size"),
                 sizeOf(image, "SharedSize"),
                 humanSize(std::max(0.0, size - std::max(0.0, shared))),
                 std::to_string(std::max(0, image.value("Containers", 0)))});
    }
  }
  return "Images space usage:\n\n" + table.text();
}

std::string containers(const json& usage) {
  Table table(
      {"CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"});
  for (const json& container : listOf(usage, "Containers")) {
    size_t volumes = 0;
    for (const json& mount : listOf(container, "Mounts"))
      volumes += mount.value("Type", "") == "volume" ? 1 : 0;
    std::string names;
    for (const json& name : listOf(container, "Names"))
      names += (names.empty() ? "" : ",") + name.get<std::string>().substr(1);
    table.add({shortId(container.value("Id", "")), container.value("Image", ""),
               '"' + ellipsis(container.value("Command", ""), kCommandWidth) + '"',
               std::to_string(volumes), sizeOf(container, "SizeRw"),
               ago(container.value("Created", int64_t{0})), container.value("Status", ""), names});
  }
  return "Containers space usage:\n\n" + table.text();
}

std::string volumes(const json& usage) {
  Table table({"VOLUME NAME", "LINKS", "SIZE"});
  for (const json& volume : listOf(usage, "Volumes")) {
    const json data = volume.value("UsageData", json::object());
    table.add({volume.value("Name", ""), std::to_string(std::max(0, data.value("RefCount", 0))),
               sizeOf(data, "Size")});
  }
  return "Local Volumes space usage:\n\n" + table.text();
}

std::string caches(const json& usage) {
  Table table({"CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"});
  double total = 0;
  for (const json& cache : listOf(usage, "BuildCache")) {
    total += cache.value("Size", 0.0);
    table.add({shortId(cache.value("ID", "")), cache.value("Type", ""), sizeOf(cache, "Size"),
               ago(parseTimestamp(cache.value("CreatedAt", ""))),
               ago(parseTimestamp(cache.value("LastUsedAt", ""))),
               std::to_string(cache.value("UsageCount", 0)),
               cache.value("Shared", false) ? "true" : "false"});
  }
  return fmt::format("Build cache usage: {}\n\n{}", humanSize(total), table.text());
}

}  // namespace

std::string diskDetails(const json& usage) {
  return images(usage) + "\n" + containers(usage) + "\n" + volumes(usage) + "\n" + caches(usage);
}

}  // namespace hull::cli
