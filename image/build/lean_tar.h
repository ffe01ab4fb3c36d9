// A lean tar: a tar in which contents may be named by their digests instead of being there. So the
// context of a build travels to a remote engine: what the engine has kept of an earlier one is
// named, the rest is as it always was, and the engine reads the very tar that was meant.
//
// It is a sequence of records, numbers little-endian, of these kinds:
//   'r' u32 length, bytes          the tar's bytes as they are, 1 to kMaxRawBytes of them
//   'n' SHA-256 (32), u64 size     in their place, `size` bytes with this digest
//   'e'                            the end; nothing follows
// The engine takes it plain or compressed (gzip, zstd). Shared by both ends; one object, one
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/hash.h"
#include "base/stream.h"

namespace hull::build {

inline constexpr const char* kLeanTarType = "application/vnd.hull.lean-tar";  // Content-Type
inline constexpr size_t kMaxRawBytes = 1 << 20;                               // of one record
inline constexpr size_t kMaxNamedContents = 1'000'000;                        // of one context
inline constexpr uint64_t kMinNamedBytes = 256;  // smaller contents are sent: names cost, too

class LeanTarWriter final : public Sink {
 public:
  explicit LeanTarWriter(Sink& out) : out_(out) {}
  using Sink::write;
  void write(std::span<const std::byte> bytes) override;  // of the tar
  void name(const Sha256& digest, uint64_t size);         // instead of so many bytes of the tar
  void finish();

 private:
  void flush();
  Sink& out_;
  std::string raw_;  // not written yet
};

// The tar that a lean tar means. `open` gives the bytes of a digest and throws when it cannot. Of
// untrusted input: throws kCorrupt (malformed, cut off, contents of another size), kTooLarge.
class LeanTarSource final : public Source {
 public:
  using OpenFunction = std::function<std::unique_ptr<Source>(const Sha256& digest, uint64_t size)>;
  LeanTarSource(Source& in, OpenFunction open);
  size_t read(std::span<std::byte> into) override;
  const std::vector<Sha256>& named() const { return named_; }  // so far, in order

 private:
  enum class State { kBetween, kRaw, kContent, kEnded };
  bool fill();
  void take(std::span<std::byte> into);
  void beginRecord();
  size_t readRaw(std::span<std::byte> into);
  size_t readContent(std::span<std::byte> into);

  Source& in_;
  OpenFunction open_;
  std::vector<std::byte> buffer_;
  size_t begin_ = 0, end_ = 0;  // unread part of the buffer
  State state_ = State::kBetween;
  uint64_t left_ = 0;  // of the record
  std::unique_ptr<Source> content_;
  std::vector<Sha256> named_;
};

}  // namespace hull::build
