// --cache-from and --cache-to of POST /build: which caches of elsewhere a build looks at, and where
// its own goes. Of hull's client come "hullcachefrom" (images that are fetched each time) and
// "hullcacheto"; "cachefrom" is Docker's. One request, one thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "daemon/api/http.h"
#include "daemon/api/json_stream.h"
#include "daemon/engine/engine.h"
#include "image/build/builder.h"

namespace hull::engine::api {

inline constexpr size_t kMaxBuildCaches = 32;  // of one build, each way

std::vector<build::BuildRequest::CacheSource> cacheSources(const Query& query);

struct CacheTargets {
  bool in_image = false;                     // type=inline
  bool to_client = false;                    // type=local: the client fetches it by its id
  std::vector<image::Reference> registries;  // type=registry
  std::optional<build::CacheMode> mode;      // none: there is nothing but in_image
};
// "hullcacheto": [{"type": "registry", "ref": "host/name:tag", "mode": "max"}, …]
CacheTargets cacheTargets(const Query& query);

using CredentialsFunction = std::function<registry::Credentials(const std::string& registry)>;
// Pushes the cache's image, and tells the client its id or removes it.
void deliverCache(JsonStream& stream, Engine& engine, const CacheTargets& targets,
                  const image::Image& cache, const CredentialsFunction& credentials);

}  // namespace hull::engine::api
