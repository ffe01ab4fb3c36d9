// The images of a host: names, manifests, configs, and the disks made of their layers. Metadata in
// SQLite (<root>/images.db), content in BlobStore and LayerStore under the same root. Killed at any
// instant it holds either the old or the new state; collectGarbage() removes what nothing names.
// Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "image/ext4/stitch.h"
#include "image/layer/tree.h"
#include "image/store/blob_store.h"
#include "image/store/layer_store.h"
#include "image/types/config.h"
#include "image/types/manifest.h"
#include "image/types/reference.h"

namespace hull::image {

struct Image {
  Digest id;                    // of the config blob: Docker's image id
  Digest manifest;              // of the manifest blob
  std::string manifest_type;    // its media type
  uint64_t manifest_bytes = 0;  // its size
  ImageConfig config;
  std::vector<Descriptor> layer_blobs;  // as in the manifest
  uint64_t size_bytes = 0;              // unpacked
  std::vector<Reference> tags;          // familiar order
  std::vector<Reference> digests;       // name@manifest digest, of pulled and pushed names
};

// A root disk ready for a VMM: `segments` with the files to open (read-only).
struct RootDisk {
  struct Segment {
    std::string path;
    uint64_t file_offset = 0;
    uint64_t disk_offset = 0;
    uint64_t length = 0;
  };
  uint64_t disk_bytes = 0;
  std::vector<Segment> segments;
};

// Where blobs come from that the store does not have: a registry, an archive. Owned by the caller.
class BlobSource {
 public:
  virtual ~BlobSource() = default;
  virtual std::unique_ptr<Source> open(const Descriptor& blob) = 0;
};

// Progress of a long operation; called from worker threads, must be quick.
struct LayerProgress {
  Digest blob;
  std::string status;  // Docker's words: "Pulling fs layer", "Downloading", "Extracting", "Pull
                       // complete", "Already exists"
  uint64_t current = 0;
  uint64_t total = 0;
};
using ProgressFunction = std::function<void(const LayerProgress&)>;

enum class RemoveOutcome { kUntagged, kDeleted };
struct RemovedItem {
  RemoveOutcome outcome;
  std::string name;  // reference or digest
};

class ImageStore {
 public:
  explicit ImageStore(const std::string& root, LayerLimits limits = {});
  ~ImageStore();

  BlobStore& blobs();
  LayerStore& layers();

  // Fetches what is missing of the manifest's image (layers in parallel), unpacks, verifies, and
  // records it; `names` are tags to set, atomically with the record. `manifest_json` are the exact
  // bytes. Images of any Linux platform are kept; which can run is the engine's business. Throws
  // kNotSupported for another system, a foreign layer or an unknown media type.
  Image add(std::string_view manifest_json, BlobSource& source, const std::vector<Reference>& names,
            const ProgressFunction& progress = {});

  // As add, for several: all are recorded in one transaction, or none.
  struct Addition {
    std::string manifest_json;
    std::vector<Reference> names;
  };
  std::vector<Image> addAll(const std::vector<Addition>& images, BlobSource& source,
                            const ProgressFunction& progress = {});

  // Remembers that the layer's blob holds the layer: add() then does not unpack it again.
  void recordLayer(const IngestedLayer& layer);

  // Records an image made here: writes config and manifest for layers already in the store.
  Image create(const ImageConfig& config, const std::vector<IngestedLayer>& layers,
               const std::vector<Reference>& names);

  // By reference, full or short id ("sha256:ab…" or ≥ 4 hex digits). Throws kNotFound with Docker's
  // words ("No such image: …"), kConflict when a short id is ambiguous.
  Image get(std::string_view name) const;
  std::optional<Image> find(std::string_view name) const;
  std::vector<Image> list() const;  // newest first

  void tag(const Digest& image, const Reference& name);
  void recordDigest(const Digest& image, const Reference& name);  // after push or pull
  // Docker's rmi: by name untags, and deletes with the last name; by id deletes when at most one
  // name is left or `force`. `in_use` says whether a container uses the image (then kConflict
  // unless forced).
  std::vector<RemovedItem> remove(std::string_view name, bool force,
                                  const std::function<bool(const Digest&)>& in_use);

  // The tree of an image, and its stitched disk: made on first use, then cached.
  Tree tree(const Image& image) const;
  Tree treeOf(const std::vector<Digest>& diff_ids) const;
  RootDisk rootDisk(const std::vector<Digest>& diff_ids);

  // What files of layers take. A layer that several images use counts once in `layers`, and in
  // `shared` of each of them. Sizes of layers are remembered: the first call reads every index.
  struct Usage {
    uint64_t layers = 0;                // bytes
    std::map<Digest, uint64_t> shared;  // by image id; bytes
  };
  Usage usage() const;
  uint64_t layerBytes(const Digest& diff_id) const;  // of the layer's files; throws kNotFound

  // Layers ingested for a build are not named by an image yet: pinned ones are not collected.
  // The pin lasts as long as the token lives. Digests of blobs may be among them.
  std::shared_ptr<void> pinLayers(const std::vector<Digest>& diff_ids);

  struct Collected {
    uint64_t blobs = 0, layers = 0, bytes = 0;
  };
  Collected collectGarbage();

 private:
  struct State;
  struct Adder;
  std::unique_ptr<State> state_;
};

}  // namespace hull::image
