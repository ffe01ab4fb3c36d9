// Unpacked layers by diff id: <root>/layers/<diff hex>/{index,data}. One pass over a layer's
// stream digests the blob, inflates, digests the tar, parses it, and writes index and data; nothing
// is published before every digest that was asked for matches. Any thread; ingests run in parallel.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/hash.h"
#include "base/stream.h"
#include "image/layer/index.h"
#include "image/store/blob_store.h"
#include "image/store/pins.h"
#include "image/types/digest.h"

namespace hull::image {

// Limits on what a hostile layer can make the host do.
struct LayerLimits {
  uint64_t max_blob_bytes = uint64_t{64} << 30;
  uint64_t max_unpacked_bytes = uint64_t{256} << 30;
  uint64_t max_entries = kMaxEntriesPerLayer;
  uint64_t max_index_bytes = uint64_t{1} << 30;  // names, links and attributes of one layer
  uint64_t max_ratio = 1100;  // unpacked ÷ blob, once past 64 MiB (gzip's own maximum is 1032)
};

// Changes one from text, as `hulld --layer-limit` takes it: blob-bytes=32g, unpacked-bytes=1t,
// entries=100000, index-bytes=512m or ratio=200. Throws kInvalidArgument naming what can be said.
void setLayerLimit(LayerLimits& limits, std::string_view text);

struct IngestedLayer {
  Digest diff_id;
  Digest blob;             // the compressed (or plain) bytes as they came; empty when not kept
  std::string media_type;  // OCI layer type by what the bytes are
  uint64_t blob_bytes = 0;
  uint64_t tar_bytes = 0;
  std::shared_ptr<void> pin;  // while any copy lives, garbage collection leaves the layer alone
};

// A file's bytes in a data file, by their digest.
struct FileContent {
  Sha256 digest{};
  uint64_t offset = 0;
  uint64_t size = 0;
  auto operator<=>(const FileContent&) const = default;
};

enum class KeepBlob {
  kNo,        // contexts of builds
  kAsIs,      // pulled and loaded layers: the bytes as they came
  kCompress,  // layers made here: gzip, deterministic (for push)
};

class LayerStore {
 public:
  LayerStore(std::string root, BlobStore& blobs, LayerLimits limits = {});

  // gzip, zstd or plain tar, told by the bytes. `blob`, `diff_id`: expected digests or empty.
  // `contents`: gets what the files hold, in the tar's order; sparse and empty ones are left out.
  // Throws kCorrupt (digest, truncation, malformed), kTooLarge, kNoSpace, kNotSupported.
  IngestedLayer ingest(Source& stream, KeepBlob keep, const Digest& blob = {},
                       const Digest& diff_id = {}, std::vector<FileContent>* contents = nullptr);

  bool has(const Digest& diff_id) const;
  LayerIndex index(const Digest& diff_id) const;
  std::string dataPath(const Digest& diff_id) const;  // for read-only descriptors
  uint64_t dataBytes(const Digest& diff_id) const;
  void remove(const Digest& diff_id);
  void forEach(const std::function<void(const Digest& diff_id)>& visit) const;
  PinSet& pins() const { return *pins_; }

 private:
  std::string folder() const;
  std::string path(const Digest& diff_id) const;

  std::string root_;
  BlobStore& blobs_;
  LayerLimits limits_;
  std::shared_ptr<PinSet> pins_;
};

// A tree's or layer's entries written as a tar again (COPY layers, save, export). `data` gives the
// content of a file entry.
class LayerTarWriter {
 public:
  explicit LayerTarWriter(Sink& out);
  ~LayerTarWriter();
  void add(const Entry& entry,
           int data_fd);  // data_fd: the file holding entry.data_offset; -1 none
  void finish();          // the two zero blocks

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hull::image
