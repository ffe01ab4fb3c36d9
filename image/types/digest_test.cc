#include "image/types/digest.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace hull::image {
namespace {

TEST(Digest, OfKnownContent) {
  const Digest digest = Digest::of("abc");
  EXPECT_EQ(digest.text(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest.algorithmName(), "sha256");
  EXPECT_EQ(digest.algorithm(), HashAlgorithm::kSha256);
  EXPECT_EQ(digest.shortHex(), "ba7816bf8f01");
  EXPECT_EQ(Digest::parse(digest.text()), digest);
}

TEST(Digest, Sha512IsKnown) {
  const Digest digest = Digest::parse("sha512:" + std::string(128, 'a'));
  EXPECT_EQ(digest.algorithm(), HashAlgorithm::kSha512);
  EXPECT_EQ(digest.hex().size(), 128u);
}

TEST(Digest, EmptyIsNoDigest) {
  EXPECT_TRUE(Digest().empty());
  EXPECT_TRUE(Digest().hex().empty());
}

// CVE-2024-3727: digests that were used as paths without being checked.
TEST(Digest, NothingElseIsAccepted) {
  const std::string hex(64, 'a');
  for (const std::string& text :
       {std::string(), std::string("sha256:"), "sha256:" + hex + "0", "sha256:" + hex.substr(1),
        "SHA256:" + hex, "sha256:" + std::string(64, 'A'), "md5:" + std::string(32, 'a'),
        "sha256:../" + hex.substr(3), "sha256:" + hex.substr(2) + "/x", hex, " sha256:" + hex,
        "sha256:" + hex + "\n", "sha512:" + hex, std::string("sha256:\0", 8) + hex.substr(1)}) {
    EXPECT_THROW(Digest::parse(text), Error) << text;
  }
}

}  // namespace
}  // namespace hull::image
