#include "registry/server/manifest_document.h"

#include <algorithm>

#include "base/error.h"
#include "image/types/json.h"
#include "image/types/manifest.h"
#include "registry/server/api.h"

namespace hull::registry {

namespace json = image::json;
using image::Digest;
using json::Json;

namespace {

constexpr size_t kMaxReferencedBlobs = 10000;
constexpr std::string_view kOciArtifactManifest = "application/vnd.oci.artifact.manifest.v1+json";
constexpr size_t kMaxMediaTypeBytes = 255;  // RFC 6838 §4.2: 127 on each side of the '/'

bool isForeign(const Json& descriptor) {
  const std::string type = json::text(descriptor, "mediaType");
  return type == image::media_type::kDockerForeignLayer ||
         type.find(".nondistributable.") != std::string::npos;
}

Digest digestOf(const Json& descriptor) {
  return Digest::parse(json::text(descriptor, "digest"));
}

void collect(const Json& document, const char* key, std::vector<Digest>& into) {
  const Json* list = json::find(document, key);
  if (!list) return;
  if (!list->is_array()) json::wrongType(key, "a list");
  if (list->size() > kMaxReferencedBlobs) {
    throw Error(ErrorKind::kTooLarge, std::string(key) + " has too many entries");
  }
  for (const Json& entry : *list) {
    if (!isForeign(entry)) into.push_back(digestOf(entry));
  }
}

bool isMediaType(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == 0 || slash == std::string_view::npos || slash + 1 == text.size()) return false;
  return text.size() <= kMaxMediaTypeBytes && std::all_of(text.begin(), text.end(), [](char c) {
           return c > 0x20 && c < 0x7f && c != '"' && c != '\\' && c != ',' && c != ';';
         });
}

std::string mediaTypeOf(const Json& document, std::string_view content_type) {
  const std::string_view header = content_type.substr(0, content_type.find(';'));
  std::string own = json::text(document, "mediaType");
  if (!own.empty() && !header.empty() && own != header) {
    throw Error(ErrorKind::kCorrupt, "mediaType and Content-Type disagree");
  }
  if (own.empty()) own = header;
  if (!isMediaType(own)) throw Error(ErrorKind::kCorrupt, "the media type is missing");
  return own;
}

// The entry of a referrers list (distribution-spec "Listing Referrers").
std::string descriptorOf(const Json& document, const NewManifest& manifest) {
  nlohmann::ordered_json descriptor = {{"mediaType", manifest.media_type},
                                       {"digest", manifest.digest.text()},
                                       {"size", manifest.bytes.size()}};
  std::string artifact_type = json::text(document, "artifactType");
  if (artifact_type.empty()) {
    if (const Json* config = json::find(document, "config")) {
      artifact_type = json::text(*config, "mediaType");
    }
  }
  if (!artifact_type.empty()) descriptor["artifactType"] = artifact_type;
  if (const Json* annotations = json::find(document, "annotations")) {
    descriptor["annotations"] = *annotations;
  }
  return descriptor.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

NewManifest interpret(std::string_view bytes, const Digest& digest, std::string_view content_type) {
  const Json document = json::parseDocument(bytes, kMaxServedManifestBytes, "manifest");
  if (!document.is_object()) json::wrongType("manifest", "an object");
  NewManifest manifest;
  manifest.bytes = bytes;
  manifest.digest = digest;
  manifest.media_type = mediaTypeOf(document, content_type);
  // The artifact manifest of the specification's release candidates had no version.
  const bool unversioned =
      manifest.media_type == kOciArtifactManifest && !json::find(document, "schemaVersion");
  if (!unversioned && json::integer(document, "schemaVersion") != 2) {
    throw Error(ErrorKind::kNotSupported, "schemaVersion is not 2");
  }
  // One document must not be both (CVE-2021-41190).
  if (json::find(document, "manifests") && json::find(document, "layers")) {
    throw Error(ErrorKind::kCorrupt, "it has both manifests and layers");
  }
  if (const Json* config = json::find(document, "config")) {
    manifest.needed_blobs.push_back(digestOf(*config));
  }
  collect(document, "layers", manifest.needed_blobs);
  collect(document, "blobs", manifest.needed_blobs);
  collect(document, "manifests", manifest.needed_manifests);
  if (const Json* subject = json::find(document, "subject")) {
    manifest.subject = digestOf(*subject);
    manifest.descriptor = descriptorOf(document, manifest);
  }
  return manifest;
}

}  // namespace

NewManifest readManifest(std::string_view bytes, const Digest& digest,
                         std::string_view content_type) {
  try {
    return interpret(bytes, digest, content_type);
  } catch (const Error& error) {
    throw ApiError(400, code::kManifestInvalid, std::string("manifest invalid: ") + error.what());
  }
}

}  // namespace hull::registry
