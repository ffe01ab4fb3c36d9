// Compression of layers and archives: told by their first bytes, undone as a stream, gzip made
// deterministically. Multi-member gzip (pigz, estargz) and multi-frame zstd with skippable frames
// are whole streams. One object, one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/stream.h"

namespace hull::image {

enum class Compression { kNone, kGzip, kZstd };
inline constexpr size_t kCompressionMagicBytes = 6;

// From at least kCompressionMagicBytes of a stream, or all of a shorter one. Throws kNotSupported
// for a compression that images do not use (xz, bzip2).
Compression detectCompression(std::span<const std::byte> first);

class Decoder {
 public:
  virtual ~Decoder() = default;
  // Takes from the front of `in`, fills `out` from its front; returns how much it filled. Less than
  // all of `out` only when `in` is used up. Throws kCorrupt.
  virtual size_t decode(std::span<const std::byte>& in, std::span<std::byte> out) = 0;
  // Whether the input may end here.
  virtual bool complete() const = 0;
};

std::unique_ptr<Decoder> makeDecoder(Compression compression);

// What a compressed (or plain) stream contains. Throws kCorrupt when it is cut off.
class DecodingSource final : public Source {
 public:
  explicit DecodingSource(Source& inner);
  size_t read(std::span<std::byte> into) override;
  Compression compression() const { return compression_; }

 private:
  Source& inner_;
  std::vector<std::byte> buffer_;
  std::span<const std::byte> rest_;
  Compression compression_ = Compression::kNone;
  std::unique_ptr<Decoder> decoder_;
};

// Writes gzip to `out`: no name, no time, the same bytes for the same input however it is split.
class GzipWriter final : public Sink {
 public:
  explicit GzipWriter(Sink& out);
  ~GzipWriter() override;
  using Sink::write;
  void write(std::span<const std::byte> bytes) override;
  void finish();

 private:
  struct State;
  void compress(bool last);
  Sink& out_;
  std::unique_ptr<State> state_;
};

}  // namespace hull::image
