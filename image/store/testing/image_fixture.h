// Images made in memory for tests: a source of blobs, and manifests to go with them.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "image/layer/testing/tar_builder.h"
#include "image/store/image_store.h"

namespace hull::image::testing {

class MemoryBlobs final : public BlobSource {
 public:
  std::map<Digest, std::string> blobs;
  std::map<Digest, int> opened;

  Digest put(const std::string& content) {
    const Digest digest = Digest::of(content);
    blobs[digest] = content;
    return digest;
  }

  std::unique_ptr<Source> open(const Descriptor& blob) override {
    const std::lock_guard lock(mutex_);
    ++opened[blob.digest];
    const auto it = blobs.find(blob.digest);
    if (it == blobs.end()) throw Error(ErrorKind::kNotFound, "no blob " + blob.digest.text());
    return std::make_unique<StringSource>(it->second);
  }

 private:
  std::mutex mutex_;
};

struct TestImage {
  Manifest manifest;
  ImageConfig config;
  std::string manifest_text;
  Digest id;
};

// An image of gzip layers with these tars, its blobs put into `blobs`.
inline TestImage makeImage(MemoryBlobs& blobs, const std::vector<std::string>& tars,
                           const ImageConfig& base = {}) {
  TestImage image;
  image.config = base;
  image.manifest.media_type = media_type::kDockerManifest;
  for (const std::string& tar : tars) {
    const std::string packed = gzip(tar);
    image.config.diff_ids.push_back(Digest::of(tar));
    image.manifest.layers.push_back(
        {media_type::kDockerLayerGzip, blobs.put(packed), packed.size(), {}, {}});
  }
  const std::string config_text = toJson(image.config);
  image.id = blobs.put(config_text);
  image.manifest.config = {media_type::kDockerConfig, image.id, config_text.size(), {}, {}};
  image.manifest_text = toJson(image.manifest);
  return image;
}

}  // namespace hull::image::testing
