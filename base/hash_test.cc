#include "base/hash.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/hex.h"

namespace hull {
namespace {

// Vectors from FIPS 180-4's examples.
TEST(Hash, Sha256OfKnownTexts) {
  EXPECT_EQ(sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Hash, BytesAndTextAreTheSameDigest) {
  Hasher hasher;
  hasher.update("abc");
  EXPECT_EQ(toHex(hasher.finishSha256()), sha256Hex("abc"));
  EXPECT_THROW(Hasher(HashAlgorithm::kSha512).finishSha256(), Error);
}

TEST(Hash, StreamedInPiecesIsTheSame) {
  StringSink out;
  HashingSink sink(out);
  sink.write("a");
  sink.write("bc");
  EXPECT_EQ(sink.size(), 3u);
  EXPECT_EQ(sink.finishHex(), sha256Hex("abc"));
  EXPECT_EQ(out.text, "abc");
}

}  // namespace
}  // namespace hull
