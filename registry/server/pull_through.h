// The pull-through cache: what this registry lacks comes from another one, is given to whoever
// asked while it arrives, and stays. Blobs are fetched once however many ask; their last byte is
// held back until the digest is right, so a wrong blob is a broken transfer, never a complete one.
// Tags are believed for a while, then asked for again; while the other registry is away, what is
// here is served. Any thread; fills have threads of their own, which the destructor ends.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "registry/client/session.h"
#include "registry/server/configuration.h"
#include "registry/server/message.h"
#include "registry/server/metrics.h"
#include "registry/server/repositories.h"

namespace hull::registry {

inline constexpr size_t kMaxFills = 64;            // blobs on their way at a time
inline constexpr size_t kMaxCachedSessions = 256;  // repositories with a token at hand

class PullThrough {
 public:
  PullThrough(const CacheOptions& options, RepositoryStore& store, Metrics& metrics);
  ~PullThrough();

  const std::string& upstream() const { return registry_; }
  // Ends what is being fetched, so that nobody waits for it any more.
  void stop() { stopping_ = true; }

  class Fill;
  class Fetched {
   public:
    explicit Fetched(std::shared_ptr<Fill> fill) : fill_(std::move(fill)) {}
    uint64_t size() const;
    std::shared_ptr<Source> read(uint64_t offset) const;

   private:
    std::shared_ptr<Fill> fill_;
  };
  // Null when the other registry has none. Throws ApiError 502 when it cannot be asked.
  std::unique_ptr<Fetched> fetchBlob(const std::string& repository, const image::Digest& digest);

  // Brings a manifest up to date here, by tag or digest. Throws ApiError 502 when there is nothing
  // to serve and the other registry cannot be asked.
  void refresh(const std::string& repository, const std::string& reference);

  // The other registry's answer to a GET; nullopt when it has none: then what is here counts.
  std::optional<Response> forward(const std::string& target, const std::string& repository);

 private:
  std::shared_ptr<Session> session(const std::string& repository);
  std::string upstreamName(const std::string& repository) const;
  void fill(const std::shared_ptr<Fill>& fill);
  void receive(Fill& fill);
  std::unique_ptr<Transfer> ask(const char* method, const std::string& repository,
                                const std::string& rest);
  bool changed(const std::string& repository, const std::string& tag);
  void fetchManifest(const std::string& repository, const std::string& reference);

  const CacheOptions options_;
  RepositoryStore& store_;
  Metrics& metrics_;
  std::string registry_;
  ClientOptions client_;
  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::map<std::string, std::shared_ptr<Session>> sessions_;  // guarded by mutex_, as below
  std::map<std::string, std::shared_ptr<Fill>> fills_;        // by repository and digest
};

}  // namespace hull::registry
