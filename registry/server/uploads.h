// Uploads on their way in: resumable sessions on disk (<root>/uploads/<id>/{data,repository}), each
// digested while it is received; they survive a restart (what is on disk is digested again then)
// and are swept after kUploadLifetime without a byte. Any thread.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/stream.h"
#include "image/types/digest.h"
#include "registry/server/repositories.h"

namespace hull::registry {

inline constexpr size_t kMaxUploads = 4096;  // sessions at a time
inline constexpr std::chrono::hours kUploadLifetime{24};

class Upload;

class Uploads {
 public:
  explicit Uploads(RepositoryStore& store);
  ~Uploads();

  // Returns the id. Throws ApiError 429 beyond kMaxUploads.
  std::string start(const std::string& repository,
                    HashAlgorithm algorithm = HashAlgorithm::kSha256);
  uint64_t size(const std::string& repository, const std::string& id);
  struct Append {
    std::optional<uint64_t> offset;   // must be the present size (ApiError 416)
    uint64_t max_bytes = UINT64_MAX;  // of the whole upload
  };
  // Appends `body`. What arrived before `body` broke stays; beyond max_bytes the session ends and
  // kTooLarge is thrown. Returns the new size.
  uint64_t append(const std::string& repository, const std::string& id, const Append& how,
                  Source& body);
  // Verifies and publishes. A wrong digest ends the session (ApiError 400).
  void finish(const std::string& repository, const std::string& id, const image::Digest& expected);
  void cancel(const std::string& repository, const std::string& id);
  void forget(const std::string& id) { drop(id); }  // it may be gone already

  // Removes sessions that nothing was written to since `age`. Returns how many.
  size_t open() const;  // how many there are
  size_t sweep(std::chrono::seconds age = kUploadLifetime);

 private:
  // Throws ApiError 404 when there is none in this repository.
  std::shared_ptr<Upload> find(const std::string& repository, const std::string& id);
  std::string folder(const std::string& id) const;
  void drop(const std::string& id);

  RepositoryStore& store_;
  std::string root_;
  mutable std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Upload>> open_;  // guarded by mutex_
};

}  // namespace hull::registry
