// Inside of ImageStore, shared by its source files: the database and its schema, the two stores,
// what is being fetched or stitched right now. Any thread, as ImageStore.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "image/store/database.h"
#include "image/store/image_store.h"

namespace hull::image {

// Lets one thread at a time work on a key; the others wait and then look again.
class KeyLocks {
 public:
  class Held {
   public:
    Held(KeyLocks& locks, std::string key);
    ~Held();
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;

   private:
    KeyLocks& locks_;
    std::string key_;
  };

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<std::string> held_;  // guarded by mutex_
};

struct ImageStore::State {
  State(const std::string& root, const LayerLimits& limits);

  std::string root;
  BlobStore blobs;
  LayerStore layers;
  Database database;
  KeyLocks fetching;   // layers, by blob digest
  KeyLocks stitching;  // disks, by key
  std::mutex sizes_mutex;
  std::map<Digest, uint64_t> layer_sizes;  // guarded by sizes_mutex; a layer never changes

  struct Record {
    Digest id;
    Digest manifest;
    uint64_t size_bytes = 0;
    std::vector<Digest> blobs;  // of the layers, in order
    std::vector<Digest> diff_ids;
  };
  // One transaction: the images, their layers and names.
  void record(const std::vector<std::pair<Record, std::vector<Reference>>>& images);
  void insert(const Record& image);  // in the caller's transaction; lock held
  // `names` in the caller's transaction; lock held.
  void setName(const Digest& image, const Reference& name);
  Image load(const Digest& id);
  std::vector<Digest> ids();

  std::optional<Digest> findByReference(const Reference& reference);
  std::optional<Digest> findById(std::string_view name);  // also short; throws kConflict
  std::optional<Digest> resolve(std::string_view name);

  bool unpacksTo(const Digest& blob, const Digest& diff_id);  // known to, because verified once
  void recordUnpacked(const Digest& blob, const Digest& diff_id);
  uint64_t layerBytes(const Digest& diff_id);
  uint64_t unpackedBytes(const std::vector<Digest>& diff_ids);

  std::string diskFolder(const std::vector<Digest>& diff_ids) const;
};

// What add() asks of a manifest before anything is fetched.
void checkMediaTypes(const Manifest& manifest);

}  // namespace hull::image
