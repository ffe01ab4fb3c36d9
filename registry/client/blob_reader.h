// The bytes of one blob of a registry, not verified; continues with Range after broken connections.
// One thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/stream.h"
#include "registry/client/session.h"

namespace hull::registry {

inline constexpr int kMaxResumes = 8;  // of one blob, without kResumeProgressBytes in between
inline constexpr uint64_t kResumeProgressBytes = 1 << 20;

class BlobReader final : public Source {
 public:
  // `target`: "/v2/…/blobs/<digest>"; `shown` names the blob in messages. Without a size, what the
  // registry says counts. Throws as unexpected() does when there is none.
  BlobReader(Session& session, std::string target, std::string shown,
             std::optional<uint64_t> size = std::nullopt);
  ~BlobReader() override;

  uint64_t size() const { return size_; }
  size_t read(std::span<std::byte> into) override;

 private:
  void openAt();
  void skip(Transfer& answer) const;
  void progressed(size_t bytes);

  Session& session_;
  const std::string target_;
  const std::string shown_;
  std::unique_ptr<Transfer> transfer_;
  uint64_t size_ = 0;
  uint64_t received_ = 0;
  uint64_t resumed_at_ = 0;
  int resumes_ = 0;
};

}  // namespace hull::registry
