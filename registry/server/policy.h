// The policy in force: requests take a snapshot, a changed configuration puts a new one in its
// place. Any thread.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include "registry/server/access.h"
#include "registry/server/configuration.h"

namespace hull::registry {

struct ActivePolicy {
  // Reads the files that `policy` names; throws.
  ActivePolicy(Policy policy, const TokenSigner* signer)
      : settings(std::move(policy)), access(settings.access, signer) {}
  const Policy settings;
  const AccessControl access;
};

class PolicyHolder {
 public:
  explicit PolicyHolder(std::shared_ptr<const ActivePolicy> policy) : policy_(std::move(policy)) {}
  std::shared_ptr<const ActivePolicy> get() const {
    const std::lock_guard lock(mutex_);
    return policy_;
  }
  void set(std::shared_ptr<const ActivePolicy> policy) {
    const std::lock_guard lock(mutex_);
    policy_ = std::move(policy);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const ActivePolicy> policy_;  // guarded by mutex_, never null
};

}  // namespace hull::registry
