// The JSON shapes of Docker's API made of the engine's values. Pure functions; for .cc files (they
// include nlohmann).
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "daemon/engine/engine.h"

namespace hull::engine::api {

using Json = nlohmann::json;

std::string dump(const Json& value);
std::string timeText(int64_t ns);            // RFC 3339; 0 is Go's zero time
int64_t parseTime(const std::string& text);  // RFC 3339 → ns; 0 when it is none
std::string humanDuration(int64_t seconds);  // "About a minute", as `docker ps` shows

Json containerJson(Engine& engine, const Container& container);
Json containerSummary(Engine& engine, const Container& container, bool with_size);
uint64_t writableBytes(const Container& container);
Json execJson(const Exec& exec);

Json imageJson(const image::Image& image);
// `containers`: how many use it; `shared`: bytes of layers that others use too; -1 where not asked.
Json imageSummary(const image::Image& image, int64_t containers, int64_t shared = -1);
// "Manifests" of a summary: the one platform that is here.
Json imageManifests(Engine& engine, const image::Image& image);
Json imageHistory(const image::ImageStore& images, const image::Image& image);
Json runtimeConfigJson(const image::RuntimeConfig& config);

Json networkJson(Engine& engine, const NetworkRecord& network, bool with_containers);
size_t networkMembers(Engine& engine, const NetworkRecord& network);  // running ones
// The container's networks by name, and NetworkSettings of inspect.
Json networksJson(Engine& engine, const Container& container, const ContainerState& state);
Json networkSettings(Engine& engine, const Container& container, const ContainerState& state);
// `usage`: with what it takes on the disk and how many containers use it.
Json volumeJson(Engine& engine, const VolumeRecord& volume, bool usage);
Json volumesUsageJson(Engine& engine);
Json mountsJson(const Container& container);
Json eventJson(const Event& event);

}  // namespace hull::engine::api
