// Message digests (OpenSSL EVP), streamed. One object, one thread. Target hull_crypto.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/stream.h"

namespace hull {

enum class HashAlgorithm { kSha256, kSha512 };

using Sha256 = std::array<std::byte, 32>;

class Hasher {
 public:
  explicit Hasher(HashAlgorithm algorithm = HashAlgorithm::kSha256);
  Hasher(Hasher&&) noexcept;
  ~Hasher();
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  std::string finishHex();  // lower-case hex; the object is spent afterwards
  Sha256 finishSha256();    // as finishHex, of kSha256 only

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string sha256Hex(std::string_view text);

// Passes bytes on to `inner` and digests them.
class HashingSink final : public Sink {
 public:
  explicit HashingSink(Sink& inner, HashAlgorithm algorithm = HashAlgorithm::kSha256)
      : inner_(inner), hasher_(algorithm) {}
  using Sink::write;
  void write(std::span<const std::byte> bytes) override {
    hasher_.update(bytes);
    size_ += bytes.size();
    inner_.write(bytes);
  }
  uint64_t size() const { return size_; }
  std::string finishHex() { return hasher_.finishHex(); }

 private:
  Sink& inner_;
  Hasher hasher_;
  uint64_t size_ = 0;
};

// Reads from `inner` and digests what passes.
class HashingSource final : public Source {
 public:
  explicit HashingSource(Source& inner, HashAlgorithm algorithm = HashAlgorithm::kSha256)
      : inner_(inner), hasher_(algorithm) {}
  size_t read(std::span<std::byte> into) override {
    const size_t got = inner_.read(into);
    hasher_.update(into.first(got));
    size_ += got;
    return got;
  }
  uint64_t size() const { return size_; }
  std::string finishHex() { return hasher_.finishHex(); }

 private:
  Source& inner_;
  Hasher hasher_;
  uint64_t size_ = 0;
};

}  // namespace hull
