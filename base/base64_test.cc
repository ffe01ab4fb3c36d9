#include "base/base64.h"

#include <gtest/gtest.h>

namespace hull {
namespace {

// RFC 4648 section 10.
TEST(Base64, TestVectorsOfTheRfc) {
  const std::pair<const char*, const char*> vectors[] = {
      {"", ""},        {"f", "Zg=="},        {"fo", "Zm8="},
      {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, encoded] : vectors) {
    EXPECT_EQ(base64Encode(plain), encoded);
    EXPECT_EQ(base64Decode(encoded), plain);
  }
}

TEST(Base64, UrlAlphabetAndMissingPaddingAreRead) {
  EXPECT_EQ(base64Encode("\xfb\xff", Base64Alphabet::kUrl), "-_8=");
  EXPECT_EQ(base64Decode("-_8"), "\xfb\xff");
  EXPECT_EQ(base64Decode("+/8="), "\xfb\xff");
}

TEST(Base64, AnythingElseIsRefused) {
  EXPECT_FALSE(base64Decode("a"));
  EXPECT_FALSE(base64Decode("ab c"));
  EXPECT_FALSE(base64Decode("a=bc"));
}

}  // namespace
}  // namespace hull
