// --cache-from and --cache-to: folders are brought to the engine and fetched from it here, images
// of registries are the engine's affair.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "cli/commands/build_options.h"

namespace hull::cli {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr const char* kLayoutFile = "oci-layout";

// "type=registry,ref=host/name:tag"; what has no type is the name of an image.
std::map<std::string, std::string> parseCache(const std::string& flag, const std::string& text,
                                              std::initializer_list<std::string_view> known) {
  if (text.find('=') == std::string::npos) return {{"ref", text}};
  std::map<std::string, std::string> values;
  for (size_t start = 0; start <= text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    const std::string field = text.substr(start, comma - start);
    const size_t equals = std::min(field.find('='), field.size());
    const std::string key = field.substr(0, equals);
    if (std::find(known.begin(), known.end(), key) == known.end() || equals == field.size()) {
      throw Exit{125, fmt::format("{} {}: unknown key \"{}\" (known: {})", flag, text, key,
                                  fmt::join(known, ", "))};
    }
    values[key] = field.substr(equals + 1);
    start = comma + 1;
  }
  return values;
}

std::string required(const std::map<std::string, std::string>& values, const std::string& key,
                     const std::string& flag, const std::string& text) {
  const auto found = values.find(key);
  if (found == values.end() || found->second.empty())
    throw Exit{125, fmt::format("{} {}: {}= is missing", flag, text, key)};
  return found->second;
}

// The folder is an OCI layout: what `load` takes.
std::string loadFolder(const EngineClient& engine, const std::string& folder) {
  const std::unique_ptr<Source> tar = openFolder(folder);
  std::string id;
  JsonLines lines([&](const json& event) {
    constexpr std::string_view kLoaded = "Loaded image ID: ";
    std::string text = event.value("stream", "");
    if (!text.starts_with(kLoaded)) return;
    while (text.ends_with('\n')) text.pop_back();
    id = text.substr(kLoaded.size());
  });
  engine.stream("POST", withQuery("/images/load", {{"quiet", "1"}}), tar.get(),
                {{"Content-Type", "application/x-tar"}},
                [&](std::string_view data) { lines.feed(data); });
  lines.finish();
  if (id.empty()) throw Error(ErrorKind::kCorrupt, "it holds no nameless image");
  return id;
}

void addSource(const EngineClient& engine, const std::string& text, BuildCaches& caches,
               json& images, json& fetched) {
  const auto values = parseCache("--cache-from", text, {"type", "ref", "src"});
  const auto type = values.find("type");
  if (type == values.end()) {
    images.push_back(required(values, "ref", "--cache-from", text));
  } else if (type->second == "registry") {
    fetched.push_back(required(values, "ref", "--cache-from", text));
  } else if (type->second == "local") {
    const std::string folder = required(values, "src", "--cache-from", text);
    if (!fileExists(folder + "/" + kLayoutFile)) {
      std::cerr << fmt::format("--cache-from {}: no cache there, built without it\n", folder);
      return;
    }
    inContext("--cache-from " + folder,
              [&] { caches.loaded.push_back(loadFolder(engine, folder)); });
    images.push_back(caches.loaded.back());
  } else {
    throw Exit{125, fmt::format("--cache-from type={}: registry, local, or the name of an image "
                                "(inline caches are in it)",
                                type->second)};
  }
}

json target(const std::string& text, BuildCaches& caches) {
  auto values = parseCache("--cache-to", text, {"type", "ref", "dest", "mode"});
  const std::string type = values.contains("type") ? values["type"] : "registry";
  if (type == "registry") {
    required(values, "ref", "--cache-to", text);
  } else if (type == "local") {
    if (!caches.folder.empty())
      throw Exit{125, fmt::format("--cache-to {}: only one folder can be written", text)};
    caches.folder = required(values, "dest", "--cache-to", text);
  } else if (type != "inline") {
    throw Exit{125, fmt::format("--cache-to type={}: registry, local or inline", type)};
  }
  const std::string mode = values["mode"];
  if (!mode.empty() && mode != "min" && mode != "max")
    throw Exit{125, fmt::format("--cache-to {}: mode is min or max", text)};
  return {{"type", type}, {"ref", values["ref"]}, {"mode", mode}};
}

}  // namespace

BuildCaches openBuildCaches(const EngineClient& engine, const BuildOptions& o) {
  BuildCaches caches;
  json images = json::array(), fetched = json::array(), targets = json::array();
  for (const auto& text : o.cache_to) targets.push_back(target(text, caches));
  for (const auto& text : o.cache_from) addSource(engine, text, caches, images, fetched);
  if (!images.empty()) caches.query.emplace_back("cachefrom", images.dump());
  if (!fetched.empty()) caches.query.emplace_back("hullcachefrom", fetched.dump());
  if (!targets.empty()) caches.query.emplace_back("hullcacheto", targets.dump());
  return caches;
}

// In place of an older cache, whole or not at all; a folder that is none is left alone.
void writeCacheFolder(const EngineClient& engine, const std::string& image,
                      const std::string& folder) {
  const fs::path wanted = fs::absolute(fs::path(folder) / "").parent_path();
  const bool older = fs::exists(wanted / kLayoutFile);
  if (fs::exists(wanted) && !older && !(fs::is_directory(wanted) && fs::is_empty(wanted))) {
    throw Exit{1, fmt::format("--cache-to {}: the folder holds something else than a cache",
                              wanted.string())};
  }
  fs::create_directories(wanted.parent_path());
  const fs::path fresh = wanted.string() + ".tmp-" + randomHex(8);
  try {
    unpackAnswer(engine, "/images/" + urlEncode(image) + "/get", fresh.string());
    fs::remove_all(wanted);
    fs::rename(fresh, wanted);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(fresh, ignored);
    throw;
  }
}

}  // namespace hull::cli
