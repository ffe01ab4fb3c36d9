// ImageStore::add and create: how an image gets into the store.
#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <thread>
#include <utility>

#include "base/error.h"
#include "image/store/image_state.h"

namespace hull::image {

namespace {

constexpr size_t kParallelLayers = 4;
constexpr uint64_t kProgressStepBytes = 1 << 20;

constexpr const char* kDockerLayer = "application/vnd.docker.image.rootfs.diff.tar";
constexpr const char* kDockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd";
constexpr std::string_view kNonDistributable = "application/vnd.oci.image.layer.nondistributable.";

bool isConfigType(std::string_view type) {
  return type == media_type::kOciConfig || type == media_type::kDockerConfig;
}

// The OCI type that says the same, for manifests written here; empty when it is no layer type.
std::string ociLayerType(std::string_view type) {
  if (type == media_type::kOciLayer || type == kDockerLayer) return media_type::kOciLayer;
  if (type == media_type::kOciLayerGzip || type == media_type::kDockerLayerGzip) {
    return media_type::kOciLayerGzip;
  }
  if (type == media_type::kOciLayerZstd || type == kDockerLayerZstd) {
    return media_type::kOciLayerZstd;
  }
  return {};
}

// A blob on its way in: no longer than its descriptor says, stopped when another layer failed.
class FetchSource final : public Source {
 public:
  FetchSource(Source& inner, const Descriptor& blob, const ProgressFunction& progress,
              const std::atomic<bool>& stop)
      : inner_(inner), blob_(blob), progress_(progress), stop_(stop) {}

  size_t read(std::span<std::byte> into) override {
    if (stop_) throw Error(ErrorKind::kCancelled, "another layer failed");
    const size_t got = inner_.read(into);
    bytes_ += got;
    if (bytes_ > blob_.size || (got == 0 && bytes_ < blob_.size)) {
      throw Error(ErrorKind::kCorrupt, "it has " + std::string(got == 0 ? "only " : "more than ") +
                                           std::to_string(got == 0 ? bytes_ : blob_.size) +
                                           " bytes, the manifest says " +
                                           std::to_string(blob_.size));
    }
    if (progress_ && (bytes_ >= reported_ + kProgressStepBytes || bytes_ == blob_.size) &&
        got > 0) {
      reported_ = bytes_;
      progress_({blob_.digest, "Downloading", bytes_, blob_.size});
    }
    return got;
  }

 private:
  Source& inner_;
  const Descriptor& blob_;
  const ProgressFunction& progress_;
  const std::atomic<bool>& stop_;
  uint64_t bytes_ = 0;
  uint64_t reported_ = 0;
};

std::string readConfig(BlobStore& blobs, const Descriptor& config, BlobSource& source) {
  if (config.size > kMaxConfigBytes) {
    throw Error(ErrorKind::kTooLarge,
                "configuration is larger than " + std::to_string(kMaxConfigBytes) + " bytes");
  }
  if (blobs.has(config.digest)) return blobs.read(config.digest, kMaxConfigBytes);
  const auto stream = source.open(config);
  HashingSource hashed(*stream, config.digest.algorithm());
  std::string text = readAll(hashed, kMaxConfigBytes, "image configuration");
  const std::string got = hashed.finishHex();
  if (got != config.digest.hex()) {
    throw Error(ErrorKind::kCorrupt,
                "verify configuration " + config.digest.text() + ": digest mismatch (got " +
                    std::string(config.digest.algorithmName()) + ":" + got + ")");
  }
  return text;
}

struct LayerJob {
  Descriptor blob;
  Digest diff_id;
};

// Fetches and unpacks the layers that are missing, a few at a time. The first error stops all.
class LayerFetcher {
 public:
  // `have` is asked and `add` called with the layer's lock held.
  using Have = std::function<bool(const LayerJob&)>;
  using Add = std::function<void(const LayerJob&, const std::atomic<bool>& stop)>;

  LayerFetcher(std::vector<LayerJob> jobs, KeyLocks& locks)
      : jobs_(std::move(jobs)), locks_(locks) {}

  void run(const Have& have, const Add& add, const ProgressFunction& progress) {
    const auto report = [&](const LayerJob& job, const char* status) {
      if (progress) progress({job.blob.digest, status, 0, job.blob.size});
    };
    for (const LayerJob& job : jobs_) report(job, "Pulling fs layer");
    const auto work = [&] {
      for (size_t i = next_++; i < jobs_.size() && !stop_; i = next_++) {
        const LayerJob& job = jobs_[i];
        const KeyLocks::Held held(locks_, job.blob.digest.text());
        const bool there = have(job);
        if (!there) add(job, stop_);
        report(job, there ? "Already exists" : "Pull complete");
      }
    };
    std::vector<std::thread> threads;
    for (size_t i = 0; i < std::min(kParallelLayers, jobs_.size()); ++i) {
      threads.emplace_back([&] {
        try {
          work();
        } catch (...) {
          const std::lock_guard lock(mutex_);
          if (!error_) error_ = std::current_exception();
          stop_ = true;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::vector<LayerJob> jobs_;
  KeyLocks& locks_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  std::exception_ptr error_;  // guarded by mutex_
};

std::vector<LayerJob> jobsOf(const Manifest& manifest, const ImageConfig& config) {
  if (config.diff_ids.size() != manifest.layers.size()) {
    throw Error(ErrorKind::kCorrupt, "the manifest has " + std::to_string(manifest.layers.size()) +
                                         " layers, the configuration " +
                                         std::to_string(config.diff_ids.size()));
  }
  std::vector<LayerJob> jobs;
  for (size_t i = 0; i < manifest.layers.size(); ++i) {
    const Descriptor& blob = manifest.layers[i];
    const auto same = std::find_if(jobs.begin(), jobs.end(), [&](const LayerJob& job) {
      return job.blob.digest == blob.digest;
    });
    if (same == jobs.end()) {
      jobs.push_back({blob, config.diff_ids[i]});
    } else if (same->diff_id != config.diff_ids[i]) {
      throw Error(ErrorKind::kCorrupt,
                  "layer " + blob.digest.text() + " is named with two different diff ids");
    }
  }
  return jobs;
}

std::vector<Digest> digestsOf(const std::vector<Descriptor>& blobs) {
  std::vector<Digest> result;
  for (const Descriptor& blob : blobs) result.push_back(blob.digest);
  return result;
}

}  // namespace

void checkMediaTypes(const Manifest& manifest) {
  if (!isConfigType(manifest.config.media_type)) {
    throw Error(ErrorKind::kNotSupported,
                "this is no container image: its configuration is " + manifest.config.media_type);
  }
  for (const Descriptor& layer : manifest.layers) {
    if (layer.media_type == media_type::kDockerForeignLayer ||
        layer.media_type.starts_with(kNonDistributable)) {
      throw Error(ErrorKind::kNotSupported, "layer " + layer.digest.text() +
                                                " is a foreign one, to be had from elsewhere only");
    }
    if (ociLayerType(layer.media_type).empty()) {
      throw Error(ErrorKind::kNotSupported, "layer " + layer.digest.text() +
                                                " has the unknown media type " + layer.media_type);
    }
  }
}

namespace {

void checkSystem(const Platform& platform) {
  if (platform.os == "linux") return;
  throw Error(ErrorKind::kNotSupported,
              "image is for " + platform.text() + ": only images of Linux are supported");
}

// An image on its way in: complete in the stores and pinned, but not recorded.
struct Prepared {
  Digest id;
  Digest manifest;
  std::vector<Digest> blobs;
  std::vector<Digest> diff_ids;
  std::vector<std::shared_ptr<void>> pins;
};

}  // namespace

struct ImageStore::Adder {
  State& state;
  BlobSource& source;
  const ProgressFunction& progress;

  bool have(const LayerJob& job) const {
    return state.layers.has(job.diff_id) && state.blobs.has(job.blob.digest) &&
           state.unpacksTo(job.blob.digest, job.diff_id);
  }

  void fetch(const LayerJob& job, const std::atomic<bool>& stop) const {
    IngestedLayer layer;
    inContext("layer " + job.blob.digest.text(), [&] {
      if (state.blobs.has(job.blob.digest)) {  // only unpacked anew
        const Fd fd = state.blobs.open(job.blob.digest);
        FdSource file(fd.get());
        layer = state.layers.ingest(file, KeepBlob::kNo, job.blob.digest, job.diff_id);
      } else {
        const auto stream = source.open(job.blob);
        FetchSource checked(*stream, job.blob, progress, stop);
        layer = state.layers.ingest(checked, KeepBlob::kAsIs, job.blob.digest, job.diff_id);
      }
    });
    state.recordUnpacked(job.blob.digest, job.diff_id);
  }

  Prepared prepare(std::string_view manifest_json) const {
    const auto document = parseManifest(manifest_json);
    if (!std::holds_alternative<Manifest>(document)) {
      throw Error(ErrorKind::kInvalidArgument, "an index is no image: select one of its manifests");
    }
    const auto& manifest = std::get<Manifest>(document);
    checkMediaTypes(manifest);
    if (manifest.config.digest.algorithm() != HashAlgorithm::kSha256) {
      throw Error(ErrorKind::kNotSupported, "image ids other than sha256 are not supported");
    }
    Prepared image;
    image.id = manifest.config.digest;
    image.manifest = Digest::of(manifest_json);
    image.blobs = digestsOf(manifest.layers);
    PinSet& pins = state.layers.pins();
    std::vector<Digest> needed = image.blobs;
    needed.insert(needed.end(), {image.id, image.manifest});
    image.pins.push_back(pins.pin(needed));

    const std::string config_text = readConfig(state.blobs, manifest.config, source);
    const ImageConfig config = parseImageConfig(config_text);
    checkSystem(config.platform);
    image.diff_ids = config.diff_ids;
    image.pins.push_back(pins.pin(image.diff_ids));
    LayerFetcher(jobsOf(manifest, config), state.fetching)
        .run([this](const LayerJob& job) { return have(job); },
             [this](const LayerJob& job, const std::atomic<bool>& stop) { fetch(job, stop); },
             progress);
    state.blobs.put(config_text);
    state.blobs.put(manifest_json);
    return image;
  }
};

Image ImageStore::add(std::string_view manifest_json, BlobSource& source,
                      const std::vector<Reference>& names, const ProgressFunction& progress) {
  return addAll({{std::string(manifest_json), names}}, source, progress).front();
}

std::vector<Image> ImageStore::addAll(const std::vector<Addition>& images, BlobSource& source,
                                      const ProgressFunction& progress) {
  const Adder adder{*state_, source, progress};
  std::vector<Prepared> prepared;
  std::vector<std::pair<State::Record, std::vector<Reference>>> records;
  for (const Addition& image : images) {
    const Prepared& last = prepared.emplace_back(adder.prepare(image.manifest_json));
    records.push_back(
        {{last.id, last.manifest, state_->unpackedBytes(last.diff_ids), last.blobs, last.diff_ids},
         image.names});
  }
  state_->record(records);
  std::vector<Image> result;
  for (const Prepared& image : prepared) result.push_back(state_->load(image.id));
  return result;
}

void ImageStore::recordLayer(const IngestedLayer& layer) {
  if (layer.blob.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "layer " + layer.diff_id.text() + " has no blob");
  }
  state_->recordUnpacked(layer.blob, layer.diff_id);
}

Image ImageStore::create(const ImageConfig& config, const std::vector<IngestedLayer>& layers,
                         const std::vector<Reference>& names) {
  State& state = *state_;
  ImageConfig complete = config;
  complete.diff_ids.clear();
  Manifest manifest;
  manifest.media_type = media_type::kOciManifest;
  std::vector<Digest> needed;
  for (const IngestedLayer& layer : layers) {
    needed.insert(needed.end(), {layer.diff_id, layer.blob});
  }
  const auto pin = state.layers.pins().pin(needed);
  for (const IngestedLayer& layer : layers) {
    if (!state.layers.has(layer.diff_id) || !state.blobs.has(layer.blob)) {
      throw Error(ErrorKind::kNotFound,
                  "create image: layer " + layer.diff_id.text() + " is not in the store");
    }
    const std::string type = ociLayerType(layer.media_type);
    if (type.empty()) {
      throw Error(ErrorKind::kInvalidArgument,
                  "create image: " + layer.media_type + " is no layer type");
    }
    complete.diff_ids.push_back(layer.diff_id);
    manifest.layers.push_back({type, layer.blob, state.blobs.size(layer.blob), {}, {}});
  }
  const std::string config_text = toJson(complete);
  const Digest id = Digest::of(config_text);
  manifest.config = {media_type::kOciConfig, id, config_text.size(), {}, {}};
  const std::string manifest_text = toJson(manifest);
  const Digest manifest_digest = Digest::of(manifest_text);
  const auto document_pin = state.layers.pins().pin({id, manifest_digest});
  state.blobs.put(config_text);
  state.blobs.put(manifest_text);
  state.record({{{id, manifest_digest, state.unpackedBytes(complete.diff_ids),
                  digestsOf(manifest.layers), complete.diff_ids},
                 names}});
  return state.load(id);
}

}  // namespace hull::image
