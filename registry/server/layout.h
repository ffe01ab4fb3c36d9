// The root as an OCI image layout (image-spec image-layout.md), so that skopeo, umoci and others
// read what the registry holds without it: `oci-layout`, and an `index.json` that names every tag
// as "<repository>:<tag>" (org.opencontainers.image.ref.name) and every untagged manifest without a
// name. Both are derived from the repositories and made anew after changes; other tools must not
// write here. One thread.
#pragma once

#include <cstdint>
#include <optional>

#include "registry/server/repositories.h"

namespace hull::registry {

class LayoutIndex {
 public:
  explicit LayoutIndex(const RepositoryStore& store) : store_(store) {}

  // Writes what changed since the last call; true when it wrote.
  bool update();

 private:
  void write() const;

  const RepositoryStore& store_;
  std::optional<uint64_t> written_;  // the store's generation
};

}  // namespace hull::registry
