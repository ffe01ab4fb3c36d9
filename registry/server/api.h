// The distribution API (OCI distribution-spec 1.1) as a function from request to answer. Any
// thread.
#pragma once

#include <memory>
#include <string>

#include "image/types/digest.h"
#include "registry/server/message.h"
#include "registry/server/policy.h"
#include "registry/server/pull_through.h"
#include "registry/server/rate_limit.h"
#include "registry/server/repositories.h"
#include "registry/server/route.h"
#include "registry/server/uploads.h"
#include "registry/server/webhooks.h"

namespace hull::registry {

inline constexpr size_t kMaxServedManifestBytes = size_t{4} << 20;  // the specification's minimum
inline constexpr size_t kMaxPageEntries = 10000;                    // of tags, repositories
inline constexpr size_t kMaxReferrersPageBytes = size_t{3} << 20;   // answers stay below 4 MiB

// What the API works on; all outlive it.
struct ApiParts {
  RepositoryStore& store;
  Uploads& uploads;
  PolicyHolder& policy;
  Webhooks* webhooks = nullptr;  // null: nobody is told
  PullThrough* cache = nullptr;  // null: this registry has its own content
};

class Api {
 public:
  explicit Api(const ApiParts& parts)
      : store_(parts.store),
        uploads_(parts.uploads),
        policy_(parts.policy),
        webhooks_(parts.webhooks),
        cache_(parts.cache) {}

  // Never throws: what goes wrong is in the answer. The body is read by uploads only. Sets the
  // request's user.
  Response handle(Request& request);

 private:
  // One request while it is handled.
  struct Call {
    Request& request;
    Route route;
    Principal principal;
    std::shared_ptr<const ActivePolicy> policy;
    bool allows(std::string_view repository, Action action) const {
      return policy->access.allows(principal, repository, action);
    }
  };

  Response dispatch(Request& request);
  Response answer(Call& call);
  void authorize(const Call& call) const;
  void checkMethod(const Call& call) const;

  Response blob(Call& call);
  Response getBlob(Call& call, const image::Digest& digest);
  Response startUpload(Call& call);
  Response upload(Call& call);
  Response patchUpload(Call& call);
  Response putUpload(Call& call);
  // Appends the body within what policy and quotas allow.
  uint64_t append(Call& call, const std::string& id, std::optional<uint64_t> offset);
  // Bytes the repository may still grow by; UINT64_MAX without a quota.
  uint64_t quotaLeft(const Call& call) const;
  // False when the blob must be uploaded instead.
  bool mount(const Call& call, const std::string& from, const image::Digest& digest);

  Response manifest(Call& call);
  std::optional<StoredManifest> findManifest(Call& call);
  Response getManifest(Call& call);
  Response putManifest(Call& call);
  Response deleteManifest(Call& call);
  void refuseImmutable(const Call& call, const std::string& tag, const image::Digest& next) const;
  // Without what an immutable tag leads to, the tag would stay and could not be pulled.
  void refuseNeeded(const Call& call, const image::Digest& digest) const;
  void publish(const Call& call, const char* action, const StoredManifest& manifest, uint64_t size);

  Response tags(Call& call);
  Response catalog(Call& call);
  Response referrers(Call& call);

  RepositoryStore& store_;
  Uploads& uploads_;
  PolicyHolder& policy_;
  Webhooks* webhooks_;
  PullThrough* cache_;
  RateLimit rate_;
};

// A digest in a request: ApiError 400 when malformed.
image::Digest requestedDigest(std::string_view text);
ApiError quotaUsedUp(const std::string& repository);
// {"errors": […]} with the code.
Response errorResponse(int status, const char* error_code, const std::string& message,
                       HeaderList headers = {});

}  // namespace hull::registry
