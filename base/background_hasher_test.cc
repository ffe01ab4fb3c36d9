#include "base/background_hasher.h"

#include <gtest/gtest.h>

namespace hull {
namespace {

// Different everywhere, so that a piece that is lost, doubled or out of order shows.
std::vector<std::byte> pattern(size_t bytes) {
  std::vector<std::byte> all(bytes);
  uint32_t state = 1;
  for (std::byte& b : all) b = static_cast<std::byte>((state = state * 1664525 + 1013904223) >> 24);
  return all;
}

std::string digest(std::span<const std::byte> bytes, HashAlgorithm algorithm) {
  Hasher hasher(algorithm);
  hasher.update(bytes);
  return hasher.finishHex();
}

TEST(BackgroundHasher, GivesTheDigestOfWhatItWasGiven) {
  constexpr size_t kLarge = 3 * BackgroundHasher::kInlineBytes;
  const auto all = pattern(kLarge + 17);
  for (const auto algorithm : {HashAlgorithm::kSha256, HashAlgorithm::kSha512}) {
    for (const size_t size : {size_t{0}, size_t{1}, BackgroundHasher::kInlineBytes,
                              BackgroundHasher::kInlineBytes + 1, all.size()}) {
      for (const size_t piece : {size_t{4099}, kStreamChunkBytes, kLarge}) {
        BackgroundHasher hasher(algorithm);
        for (size_t at = 0; at < size; at += piece)
          hasher.update(std::span(all).subspan(at, std::min(piece, size - at)));
        EXPECT_EQ(hasher.finishHex(), digest(std::span(all).first(size), algorithm))
            << size << " in pieces of " << piece;
      }
    }
  }
}

TEST(BackgroundHasher, GoesOnAfterARest) {
  const auto part = pattern(2 * BackgroundHasher::kInlineBytes + 5);
  std::vector<std::byte> all;
  BackgroundHasher hasher;
  for (int i = 0; i < 3; ++i) {
    hasher.update(std::span(part).first(BackgroundHasher::kInlineBytes));
    hasher.update(std::span(part).subspan(BackgroundHasher::kInlineBytes));
    hasher.rest();
    hasher.rest();
    all.insert(all.end(), part.begin(), part.end());
  }
  EXPECT_EQ(hasher.finishHex(), digest(all, HashAlgorithm::kSha256));
}

TEST(BackgroundHasher, MayBeLeftInTheMiddle) {
  const auto part = pattern(BackgroundHasher::kInlineBytes);
  BackgroundHasher hasher;
  for (int i = 0; i < 4; ++i) hasher.update(part);
}

}  // namespace
}  // namespace hull
