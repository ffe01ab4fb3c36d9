// Whether a build's context travels lean (image/build/lean_tar.h), and what of it: asks a far
// engine which contents it has kept of earlier contexts. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <set>

#include "cli/client/content_digests.h"
#include "cli/client/context_tar.h"
#include "cli/client/engine_client.h"

namespace hull::cli {

// With less in its files a context is sent as it is.
inline constexpr uint64_t kMinLeanContextBytes = 1 << 20;

class LeanContext {
 public:
  // None when the whole tar is to be sent: the engine is near (there it is quicker), the context
  // small, or the engine does not know the question (Docker's, an older one).
  static std::optional<LeanContext> plan(const EngineClient& engine, const ContextOptions& options);

  // The context, compressed.
  void write(const ContextOptions& options, Sink& out) const;

  uint64_t bytes() const { return bytes_; }      // of its files
  uint64_t held() const { return held_bytes_; }  // of those the engine has

 private:
  LeanContext() = default;
  std::shared_ptr<ContentDigests> digests_;
  std::set<Sha256> held_;
  uint64_t bytes_ = 0, held_bytes_ = 0;
};

}  // namespace hull::cli
