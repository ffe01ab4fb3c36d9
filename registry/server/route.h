// Which endpoint a request's target names (distribution-spec, "Endpoints"), with every name in it
// checked against the specification's grammar before anything touches a path. Untrusted input.
// Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "registry/http/url.h"

namespace hull::registry {

inline constexpr size_t kMaxRepositoryNameBytes = 255;
inline constexpr size_t kMaxTagBytes = 128;
inline constexpr size_t kUploadIdDigits = 32;

enum class Endpoint {
  kBase,       // /v2/
  kCatalog,    // /v2/_catalog
  kTags,       // /v2/<name>/tags/list
  kManifest,   // /v2/<name>/manifests/<tag or digest>
  kBlob,       // /v2/<name>/blobs/<digest>
  kUploads,    // /v2/<name>/blobs/uploads/
  kUpload,     // /v2/<name>/blobs/uploads/<id>
  kReferrers,  // /v2/<name>/referrers/<digest>
};

struct Route {
  Endpoint endpoint = Endpoint::kBase;
  std::string repository;
  std::string reference;  // tag, digest text or upload id; digests are not parsed here
  Query query;
};

// Throws ApiError: 404 for no endpoint, 400 for a name that breaks the grammar.
Route parseRoute(std::string_view target);

bool isRepositoryName(std::string_view name);
bool isTag(std::string_view tag);

}  // namespace hull::registry
