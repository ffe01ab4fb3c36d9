// Immutable blobs by digest in OCI layout order (<root>/blobs/sha256/<hex>). A blob appears under
// its digest only complete, verified and synced. Any thread; several processes may share a root.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/stream.h"
#include "image/types/digest.h"

namespace hull::image {

class BlobStore;

// A blob on its way in. Dropped uncommitted, it leaves nothing.
class BlobWriter final : public Sink {
 public:
  using Sink::write;
  void write(std::span<const std::byte> bytes) override;
  uint64_t size() const { return size_; }
  // Publishes. With `expected`, throws kCorrupt when the content differs. Idempotent per digest.
  Digest commit(const Digest& expected = {});

 private:
  friend class BlobStore;
  BlobWriter(BlobStore& store, HashAlgorithm algorithm);
  BlobStore& store_;
  PendingFile file_;
  HashAlgorithm algorithm_;
  Hasher hasher_;
  uint64_t size_ = 0;
};

class BlobStore {
 public:
  explicit BlobStore(std::string root);  // creates the folders; sweeps abandoned temporaries

  bool has(const Digest& digest) const;
  uint64_t size(const Digest& digest) const;  // throws kNotFound
  Fd open(const Digest& digest) const;        // read-only; throws kNotFound
  std::string read(const Digest& digest, size_t limit) const;
  BlobWriter create(HashAlgorithm algorithm = HashAlgorithm::kSha256);
  Digest put(std::string_view content);
  void remove(const Digest& digest);  // absent is fine
  void forEach(const std::function<void(const Digest&, uint64_t size)>& visit) const;
  std::string path(const Digest& digest) const;
  const std::string& root() const { return root_; }

 private:
  friend class BlobWriter;
  std::string root_;
};

}  // namespace hull::image
