// OCI and Docker (schema 2) descriptors, manifests and indexes. Parsed from untrusted JSON within
// the bounds below; the original bytes are what is stored and hashed. Pure values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "image/types/digest.h"

namespace hull::image {

inline constexpr size_t kMaxManifestBytes = 4 << 20;
inline constexpr size_t kMaxConfigBytes = 8 << 20;
inline constexpr size_t kMaxLayers = 512;
inline constexpr size_t kMaxIndexEntries = 1024;

namespace media_type {
inline constexpr const char* kOciIndex = "application/vnd.oci.image.index.v1+json";
inline constexpr const char* kOciManifest = "application/vnd.oci.image.manifest.v1+json";
inline constexpr const char* kOciConfig = "application/vnd.oci.image.config.v1+json";
inline constexpr const char* kOciLayer = "application/vnd.oci.image.layer.v1.tar";
inline constexpr const char* kOciLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip";
inline constexpr const char* kOciLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd";
inline constexpr const char* kDockerList =
    "application/vnd.docker.distribution.manifest.list.v2+json";
inline constexpr const char* kDockerManifest =
    "application/vnd.docker.distribution.manifest.v2+json";
inline constexpr const char* kDockerConfig = "application/vnd.docker.container.image.v1+json";
inline constexpr const char* kDockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip";
inline constexpr const char* kDockerForeignLayer =
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
}  // namespace media_type

struct Platform {
  std::string os = "linux";
  std::string architecture = "amd64";
  std::string variant;
  static Platform parse(std::string_view text);  // "linux/amd64[/variant]"
  std::string text() const;
  bool operator==(const Platform&) const = default;
};

struct Descriptor {
  std::string media_type;
  Digest digest;
  uint64_t size = 0;
  std::optional<Platform> platform;
  std::map<std::string, std::string> annotations;
};

struct Manifest {
  std::string media_type;
  Descriptor config;
  std::vector<Descriptor> layers;
};

struct Index {
  std::string media_type;
  std::vector<Descriptor> manifests;
  // The entry for `platform`; throws kNotFound listing what there is.
  const Descriptor& select(const Platform& platform) const;
};

// The media type is taken from the document's own mediaType field, which must agree with
// `media_type` when that is given (CVE-2021-41190: a document that is both is refused).
std::variant<Manifest, Index> parseManifest(std::string_view json,
                                            std::string_view media_type = {});
std::string toJson(const Manifest& manifest);
std::string toJson(const Index& index);

}  // namespace hull::image
