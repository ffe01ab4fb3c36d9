#include "image/types/reference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace hull::image {
namespace {

const std::string kDigest = "sha256:" + std::string(64, 'b');

struct Case {
  std::string written, text, familiar;
};

class ValidReference : public testing::TestWithParam<Case> {};

TEST_P(ValidReference, IsNormalised) {
  const auto& [written, text, familiar] = GetParam();
  const Reference reference = Reference::parse(written);
  EXPECT_EQ(reference.text(), text);
  EXPECT_EQ(reference.familiar(), familiar);
  EXPECT_EQ(Reference::parse(reference.text()), reference);
  EXPECT_EQ(Reference::parse(reference.familiar()), reference);
}

INSTANTIATE_TEST_SUITE_P(
    All, ValidReference,
    testing::Values(
        Case{"debian", "docker.io/library/debian:latest", "debian:latest"},
        Case{"debian:12", "docker.io/library/debian:12", "debian:12"},
        Case{"user/app", "docker.io/user/app:latest", "user/app:latest"},
        Case{"docker.io/debian", "docker.io/library/debian:latest", "debian:latest"},
        Case{"index.docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"},
        Case{"localhost/hello", "localhost/hello:latest", "localhost/hello:latest"},
        Case{"localhost:5000/hello", "localhost:5000/hello:latest", "localhost:5000/hello:latest"},
        Case{"ghcr.io/a/b/c:v1.0", "ghcr.io/a/b/c:v1.0", "ghcr.io/a/b/c:v1.0"},
        Case{"REG/hello", "REG/hello:latest", "REG/hello:latest"},
        Case{"[fe80::1]:5000/x", "[fe80::1]:5000/x:latest", "[fe80::1]:5000/x:latest"},
        Case{"debian@" + kDigest, "docker.io/library/debian@" + kDigest, "debian@" + kDigest},
        Case{"debian:12@" + kDigest, "docker.io/library/debian:12@" + kDigest,
             "debian:12@" + kDigest},
        Case{"docker.io/my.org/x", "docker.io/my.org/x:latest", "docker.io/my.org/x:latest"},
        Case{"docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"},
        Case{"a__b/c---d.e", "docker.io/a__b/c---d.e:latest", "a__b/c---d.e:latest"},
        Case{"x:" + std::string(128, 'T'), "docker.io/library/x:" + std::string(128, 'T'),
             "x:" + std::string(128, 'T')}));

TEST(Reference, ErrorsSayWhatIsWrong) {
  const auto message = [](const std::string& text) -> std::string {
    try {
      Reference::parse(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
      return error.what();
    }
    return "accepted";
  };
  using testing::HasSubstr;
  EXPECT_THAT(message("Debian"), HasSubstr("must be lowercase"));
  EXPECT_THAT(message("debian:"), HasSubstr("no valid tag"));
  EXPECT_THAT(message("debian:-x"), HasSubstr("no valid tag"));
  EXPECT_THAT(message("debian:" + std::string(129, 'a')), HasSubstr("no valid tag"));
  EXPECT_THAT(message("debian@sha256:12"), HasSubstr("digest"));
  EXPECT_THAT(message(std::string(256, 'a')), HasSubstr("255"));
  EXPECT_THAT(message(std::string(64, 'a')), HasSubstr("image id"));
  EXPECT_THAT(message(""), HasSubstr("empty"));
  EXPECT_THAT(message("a.b:x/y"), HasSubstr("no valid registry"));
}

TEST(Reference, HostileTextIsRefused) {
  for (const char* text :
       {"../x",   "a//b", "/a",   "a/",          "a/../b", "a/./b", "a b", "a\nb", "a:b:c",
        "-a",     "a-",   "a..b", "a___b",       "_a",     "a@b",   "@",   ":x",   "host:80:90/x",
        "[::1/x", "[]/x", "a/b/", "https://a/b", "a;rm",   "a%2fb", "\xff"}) {
    EXPECT_THROW(Reference::parse(text), Error) << text;
  }
}

}  // namespace
}  // namespace hull::image
