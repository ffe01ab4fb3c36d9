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
//   <root>/{oci-layout,index.json}                           derived from the above: layout.h
// No repository name starts with '_' and no tag with '.', so names cannot collide.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
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

using FileTime = std::chrono::system_clock::time_point;

// What garbage collection decides by.
struct NamedFile {
  std::string name;
  FileTime written;
};
struct BlobLink {
  image::Digest digest;
  FileTime written;  // uploaded, mounted, or last found to be needed
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
  enum class Use {
    kServe,    // throws kConflict when another process serves the folder
    kInspect,  // read only, beside whoever serves it
  };
  explicit RepositoryStore(const std::string& root, Use use = Use::kServe);

  const std::string& root() const { return root_; }
  image::BlobStore& blobs() { return blobs_; }
  const image::BlobStore& blobs() const { return blobs_; }
  // Grows with every change of a tag or a manifest.
  uint64_t generation() const { return generation_; }
  bool has(const std::string& repository) const;
  std::vector<std::string> list() const;  // sorted

  bool hasBlob(const std::string& repository, const image::Digest& digest) const;
  // As hasBlob; whoever asks may rely on the answer for a while: collection leaves it alone.
  bool confirmBlob(const std::string& repository, const image::Digest& digest);
  // Moves a complete, verified file into the store and the repository.
  void publishBlob(const std::string& repository, const image::Digest& digest,
                   const std::string& path);
  bool mountBlob(const std::string& from, const std::string& to, const image::Digest& digest);
  bool removeBlob(const std::string& repository, const image::Digest& digest);

  std::optional<StoredManifest> findTag(const std::string& repository,
                                        const std::string& tag) const;
  std::optional<StoredManifest> findManifest(const std::string& repository,
                                             const image::Digest& digest) const;
  // The first needed blob or manifest that is missing; then nothing was stored. With `partial`,
  // missing ones are no obstacle: a cache has them later.
  std::optional<image::Digest> putManifest(const std::string& repository,
                                           const NewManifest& manifest, bool partial = false);
  bool removeManifest(const std::string& repository, const image::Digest& digest);
  bool removeTag(const std::string& repository, const std::string& tag);
  std::vector<std::string> tags(const std::string& repository) const;         // sorted
  std::vector<image::Digest> manifests(const std::string& repository) const;  // sorted
  // Descriptors of the manifests with this subject, sorted by digest.
  std::vector<std::string> referrers(const std::string& repository,
                                     const image::Digest& subject) const;
  // Marks a tag as used now, for retention by age.
  void touchTag(const std::string& repository, const std::string& tag);
  // When a tag was last set or marked; nullopt when it is gone.
  std::optional<FileTime> tagTime(const std::string& repository, const std::string& tag) const;

  // Bytes of the blobs and manifests of all repositories that match, each repository by itself.
  uint64_t bytesOf(std::string_view pattern);

  // For garbage collection (collector.h).
  std::vector<NamedFile> tagTimes(const std::string& repository) const;
  std::vector<BlobLink> blobLinks(const std::string& repository) const;
  std::vector<BlobLink> manifestLinks(const std::string& repository) const;
  std::optional<FileTime> contentTime(const image::Digest& digest) const;
  // Takes the blob out of the repository unless it was written after `before`.
  bool dropBlob(const std::string& repository, const image::Digest& digest, FileTime before);
  // Removes the content; the caller knows that no repository names it. As above.
  bool dropContent(const image::Digest& digest, FileTime before);
  // Removes the manifest if no tag names it and it was not written after `before`.
  bool dropManifest(const std::string& repository, const image::Digest& digest, FileTime before);

 private:
  std::string folder(const std::string& repository) const;
  std::string linkPath(const std::string& repository, const image::Digest& digest) const;
  void linkBlob(const std::string& repository, const image::Digest& digest);
  void count(const std::string& repository, const image::Digest& digest, bool added);
  std::vector<BlobLink> linksIn(const std::string& folder) const;
  void removeManifestFiles(const std::string& repository, const image::Digest& digest);
  void collectBlob(const image::Digest& digest);
  void forgetReferrer(const std::string& repository, const image::Digest& digest);

  std::string root_;
  Fd lock_;
  image::BlobStore blobs_;
  std::atomic<uint64_t> generation_ = 0;
  // Shared: publishing, which checks and then names blobs. Exclusive: deleting.
  mutable std::shared_mutex changing_;
  std::mutex usage_mutex_;
  bool usage_known_ = false;               // guarded by usage_mutex_, as below
  std::map<std::string, uint64_t> usage_;  // bytes by repository
};

}  // namespace hull::registry
