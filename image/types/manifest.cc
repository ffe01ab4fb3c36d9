#include "image/types/manifest.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "image/types/json.h"

namespace hull::image {

namespace {

using json::Json;
using OrderedJson = nlohmann::ordered_json;

std::string normalArchitecture(std::string_view name) {
  if (name == "x86_64" || name == "x86-64") return "amd64";
  if (name == "aarch64") return "arm64";
  return std::string(name);
}

// "v8" is what arm64 means without a variant, "v1" what amd64 means.
std::string normalVariant(const Platform& platform) {
  if (platform.architecture == "arm64" && platform.variant == "v8") return {};
  if (platform.architecture == "amd64" && platform.variant == "v1") return {};
  return platform.variant;
}

bool isIndexType(std::string_view type) {
  return type == media_type::kOciIndex || type == media_type::kDockerList;
}
bool isManifestType(std::string_view type) {
  return type == media_type::kOciManifest || type == media_type::kDockerManifest;
}

Digest parseDigest(const Json& object) {
  try {
    return Digest::parse(json::text(object, "digest"));
  } catch (const Error& error) {
    throw Error(ErrorKind::kCorrupt, error.what());  // the document is wrong, not the caller
  }
}

Descriptor parseDescriptor(const Json& object) {
  Descriptor descriptor;
  descriptor.media_type = json::text(object, "mediaType");
  descriptor.digest = parseDigest(object);
  descriptor.size = json::size(object, "size");
  if (const Json* platform = json::find(object, "platform")) {
    descriptor.platform = Platform{json::text(*platform, "os"),
                                   normalArchitecture(json::text(*platform, "architecture")),
                                   json::text(*platform, "variant")};
  }
  if (const Json* annotations = json::find(object, "annotations")) {
    for (const std::string& key : json::keys(object, "annotations")) {
      descriptor.annotations[key] = json::text(*annotations, key.c_str());
    }
  }
  return descriptor;
}

std::vector<Descriptor> parseDescriptors(const Json& document, const char* key, size_t limit) {
  std::vector<Descriptor> result;
  const Json* list = json::find(document, key);
  if (!list) return result;
  if (!list->is_array()) json::wrongType(key, "a list");
  if (list->size() > limit) {
    throw Error(ErrorKind::kTooLarge,
                "\"" + std::string(key) + "\" has more than " + std::to_string(limit) + " entries");
  }
  result.reserve(list->size());
  for (const Json& item : *list) result.push_back(parseDescriptor(item));
  return result;
}

// The document's own type, after checking it against what the server called it and what it holds.
std::string mediaTypeOf(const Json& document, std::string_view expected) {
  const bool index_shape = document.contains("manifests");
  const bool manifest_shape = document.contains("layers") || document.contains("config");
  if (index_shape && manifest_shape) {
    throw Error(ErrorKind::kCorrupt, "the document is both an index and a manifest");
  }
  std::string type = json::text(document, "mediaType");
  if (type.empty()) {
    type = !expected.empty() ? std::string(expected)
           : index_shape     ? media_type::kOciIndex
                             : media_type::kOciManifest;
  } else if (!expected.empty() && type != expected) {
    throw Error(ErrorKind::kCorrupt,
                "its mediaType is " + type + " but it was served as " + std::string(expected));
  }
  if (!isIndexType(type) && !isManifestType(type)) {
    throw Error(ErrorKind::kNotSupported, "media type " + type + " is no image manifest or index");
  }
  if ((isIndexType(type) && manifest_shape) || (isManifestType(type) && index_shape)) {
    throw Error(ErrorKind::kCorrupt, "its content does not fit its media type " + type);
  }
  return type;
}

std::variant<Manifest, Index> interpret(const Json& document, std::string_view expected) {
  if (!document.is_object()) {
    throw Error(ErrorKind::kCorrupt, "not a JSON object");
  }
  const uint64_t version = json::size(document, "schemaVersion");
  if (version == 1) {
    throw Error(ErrorKind::kNotSupported,
                "schema 1 manifests are obsolete (push the image again with a current tool)");
  }
  if (version != 2) throw Error(ErrorKind::kCorrupt, "schemaVersion is not 2");
  const std::string type = mediaTypeOf(document, expected);
  if (isIndexType(type)) {
    return Index{type, parseDescriptors(document, "manifests", kMaxIndexEntries)};
  }
  const Json* config = json::find(document, "config");
  if (!config) throw Error(ErrorKind::kCorrupt, "it names no config");
  return Manifest{type, parseDescriptor(*config), parseDescriptors(document, "layers", kMaxLayers)};
}

OrderedJson descriptorJson(const Descriptor& descriptor) {
  OrderedJson object;
  object["mediaType"] = descriptor.media_type;
  object["digest"] = descriptor.digest.text();
  object["size"] = descriptor.size;
  if (!descriptor.annotations.empty()) object["annotations"] = descriptor.annotations;
  if (descriptor.platform) {
    OrderedJson platform;
    platform["architecture"] = descriptor.platform->architecture;
    platform["os"] = descriptor.platform->os;
    if (!descriptor.platform->variant.empty()) platform["variant"] = descriptor.platform->variant;
    object["platform"] = std::move(platform);
  }
  return object;
}

std::string dump(const OrderedJson& document) {
  return document.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace

Platform Platform::parse(std::string_view text) {
  const auto refuse = [&]() -> Error {
    return Error(ErrorKind::kInvalidArgument,
                 "invalid platform \"" + std::string(text.substr(0, 64)) +
                     "\": expected os/architecture[/variant], for example linux/amd64");
  };
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == '/') {
      parts.emplace_back();
    } else if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
               c == '.') {
      parts.back().push_back(c);
    } else {
      throw refuse();
    }
  }
  if (parts.size() > 3 || std::any_of(parts.begin(), parts.end(),
                                      [](const std::string& part) { return part.empty(); })) {
    throw refuse();
  }
  Platform platform;
  if (parts.size() == 1) {  // Docker takes a lone operating system or a lone architecture
    static constexpr std::array kSystems = {"linux", "windows", "darwin", "freebsd"};
    static constexpr std::array kArchitectures = {
        "386",      "amd64",  "arm",   "arm64",   "loong64", "mips",  "mips64",
        "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x", "wasm"};
    if (std::find(kSystems.begin(), kSystems.end(), parts[0]) != kSystems.end()) {
      platform.os = parts[0];
    } else {
      platform.architecture = normalArchitecture(parts[0]);
      if (std::find(kArchitectures.begin(), kArchitectures.end(), platform.architecture) ==
          kArchitectures.end())
        throw refuse();
    }
    return platform;
  }
  platform.os = parts[0];
  platform.architecture = normalArchitecture(parts[1]);
  if (parts.size() == 3) platform.variant = parts[2];
  return platform;
}

std::string Platform::text() const {
  std::string result = os + "/" + architecture;
  if (!variant.empty()) result += "/" + variant;
  return result;
}

const Descriptor& Index::select(const Platform& platform) const {
  // Best first: the same variant; then an entry without one; then, if any will do, whatever comes.
  const Descriptor* plain = nullptr;
  const Descriptor* other = nullptr;
  for (const Descriptor& entry : manifests) {
    if (!entry.platform || entry.platform->os != platform.os ||
        entry.platform->architecture != platform.architecture) {
      continue;
    }
    const std::string variant = normalVariant(*entry.platform);
    if (variant == normalVariant(platform)) return entry;
    if (variant.empty() && !plain) plain = &entry;
    if (platform.variant.empty() && !other) other = &entry;
  }
  if (plain) return *plain;
  if (other) return *other;
  std::string there;
  for (const Descriptor& entry : manifests) {
    if (!entry.platform || entry.platform->os == "unknown") continue;  // attestations
    if (!there.empty()) there += ", ";
    there += entry.platform->text();
  }
  throw Error(ErrorKind::kNotFound, "no image for " + platform.text() + " in the index (there is " +
                                        (there.empty() ? "none" : there) + ")");
}

std::variant<Manifest, Index> parseManifest(std::string_view text, std::string_view media_type) {
  return inContext("parse manifest", [&] {
    return interpret(json::parseDocument(text, kMaxManifestBytes, "JSON"), media_type);
  });
}

std::string toJson(const Manifest& manifest) {
  OrderedJson document;
  document["schemaVersion"] = 2;
  document["mediaType"] = manifest.media_type;
  document["config"] = descriptorJson(manifest.config);
  document["layers"] = OrderedJson::array();
  for (const Descriptor& layer : manifest.layers) {
    document["layers"].push_back(descriptorJson(layer));
  }
  return dump(document);
}

std::string toJson(const Index& index) {
  OrderedJson document;
  document["schemaVersion"] = 2;
  document["mediaType"] = index.media_type;
  document["manifests"] = OrderedJson::array();
  for (const Descriptor& entry : index.manifests) {
    document["manifests"].push_back(descriptorJson(entry));
  }
  return dump(document);
}

}  // namespace hull::image
