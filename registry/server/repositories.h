// What the registry holds: blobs shared by all repositories (BlobStore), and per repository a
// folder of small files that say which blobs, manifests and tags it has. A blob is visible in a
// repository only when it was uploaded or mounted there. Every file appears complete and synced;
// deletions wait for running publications. Any thread; one process per root (locked).
//
//   <root>/blobs/<algorithm>/<hex>                           contents, manifests too
//   <root>/repositories/<name>/_layers/<algorithm>-<hex>     empty
//   <root>/repositories/<name>/_manifests/<algorithm>-<hex>  the media type
//   <root>/repositories/<name>/_tags/<tag>                   a digest
//   <root>/repositories/<name>/_referrers/<subject>/<manifest>  a descriptor (JSON)
// No repository name starts with '_' and no tag with '.', so names cannot collide.
#pragma once

#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "image/store/blob_store.h"
#include "image/types/digest.h"

namespace hull::registry {

struct StoredManifest {
  image::Digest digest;
  std::string media_type;
};

struct NewManifest {
  std::string_view bytes;
  image::Digest digest;
  std::string media_type;
  std::string tag;                          // empty: none
  std::vector<image::Digest> needed_blobs;  // must be in the repository
  std::vector<image::Digest> needed_manifests;
  image::Digest subject;   // empty: none
  std::string descriptor;  // for the subject's referrers
};

class RepositoryStore {
 public:
  explicit RepositoryStore(const std::string& root);  // throws kConflict when another one uses it

  const std::string& root() const { return root_; }
  image::BlobStore& blobs() { return blobs_; }
  bool has(const std::string& repository) const;
  std::vector<std::string> list() const;  // sorted

  bool hasBlob(const std::string& repository, const image::Digest& digest) const;
  // Moves a complete, verified file into the store and the repository.
  void publishBlob(const std::string& repository, const image::Digest& digest,
                   const std::string& path);
  bool mountBlob(const std::string& from, const std::string& to, const image::Digest& digest);
  bool removeBlob(const std::string& repository, const image::Digest& digest);

  std::optional<StoredManifest> findTag(const std::string& repository,
                                        const std::string& tag) const;
  std::optional<StoredManifest> findManifest(const std::string& repository,
                                             const image::Digest& digest) const;
  // The first needed blob or manifest that is missing; then nothing was stored.
  std::optional<image::Digest> putManifest(const std::string& repository,
                                           const NewManifest& manifest);
  bool removeManifest(const std::string& repository, const image::Digest& digest);
  bool removeTag(const std::string& repository, const std::string& tag);
  std::vector<std::string> tags(const std::string& repository) const;  // sorted
  // Descriptors of the manifests with this subject, sorted by digest.
  std::vector<std::string> referrers(const std::string& repository,
                                     const image::Digest& subject) const;

 private:
  std::string folder(const std::string& repository) const;
  void collectBlob(const image::Digest& digest);
  void forgetReferrer(const std::string& repository, const image::Digest& digest);

  std::string root_;
  Fd lock_;
  image::BlobStore blobs_;
  // Shared: publishing, which checks and then names blobs. Exclusive: deleting.
  mutable std::shared_mutex changing_;
};

}  // namespace hull::registry
