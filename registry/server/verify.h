// Checks a registry's folder: every content against its digest, every tag, manifest and blob for
// what it needs. Reads only; may run beside a server. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "registry/server/repositories.h"

namespace hull::registry {

struct VerifyReport {
  uint64_t contents = 0;
  uint64_t bytes = 0;
  uint64_t manifests = 0;
  uint64_t tags = 0;
  uint64_t problems = 0;
};

struct VerifyOptions {
  bool quick = false;    // contents are not read
  bool partial = false;  // of a cache: manifests may need what has not been asked for yet
};

// `problem` gets one line per problem, naming the object.
VerifyReport verifyStore(const RepositoryStore& store, const VerifyOptions& options,
                         const std::function<void(const std::string&)>& problem);

}  // namespace hull::registry
