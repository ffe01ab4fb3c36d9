#include "registry/http/url.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace hull::registry {
namespace {

TEST(Url, Parts) {
  const Url url = Url::parse("HTTPS://Registry.Example:8443/v2/?a=b#fragment");
  EXPECT_EQ(url.scheme, "https");
  EXPECT_EQ(url.host, "registry.example");
  EXPECT_EQ(url.port, 8443);
  EXPECT_EQ(url.target, "/v2/?a=b");
  EXPECT_EQ(url.text(), "https://registry.example:8443/v2/?a=b");
  EXPECT_EQ(Url::parse("http://[::1]:5000").text(), "http://[::1]:5000/");
  EXPECT_EQ(Url::parse("https://h:443?x").text(), "https://h/?x");
}

TEST(Url, WhatIsRefused) {
  for (const char* text :
       {"", "registry/v2", "ftp://h/", "file:///etc/passwd", "http://", "http://u:p@h/",
        "http://h:0/", "http://h:65536/", "http://h:1x/", "http://h\r\nX: y/", "http://h/ b",
        "http://[::1/", "http://[::1]x/", "http://a_b\\c/", "http://h%00/", "javascript://x"}) {
    EXPECT_THROW(Url::parse(text), Error) << text;
  }
  EXPECT_THROW(Url::parse("http://h/" + std::string(kMaxUrlBytes, 'a')), Error);
}

TEST(Url, SecretsOfTheQueryStayOutOfMessages) {
  try {
    Url::parse("ftp://h/path?signature=secret");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("secret"), std::string::npos);
  }
}

TEST(Url, Locations) {
  const Url base = Url::parse("http://r:5000/v2/a/blobs/uploads/?mount=x");
  EXPECT_EQ(base.resolve("/v2/a/blobs/uploads/1?s=2").text(),
            "http://r:5000/v2/a/blobs/uploads/1?s=2");
  EXPECT_EQ(base.resolve("7").text(), "http://r:5000/v2/a/blobs/uploads/7");
  EXPECT_EQ(base.resolve("?q").text(), "http://r:5000/v2/a/blobs/uploads/?q");
  EXPECT_EQ(base.resolve("//cdn/x").text(), "http://cdn/x");
  EXPECT_EQ(base.resolve("https://cdn/x").text(), "https://cdn/x");
  EXPECT_EQ(base.resolve("/blobs/sha256:ab").text(), "http://r:5000/blobs/sha256:ab");
  EXPECT_THROW(base.resolve("file:///etc/passwd"), Error);
  EXPECT_FALSE(base.sameOrigin(base.resolve("https://r:5000/")));
  EXPECT_FALSE(base.sameOrigin(base.resolve("http://r:5001/")));
  EXPECT_TRUE(base.sameOrigin(base.resolve("http://R:5000/other")));
}

TEST(Url, Encoding) {
  EXPECT_EQ(percentEncode("repository:a/b:pull"), "repository%3Aa%2Fb%3Apull");
  EXPECT_EQ(percentDecode("sha256%3aAB%2F"), "sha256:AB/");
  EXPECT_EQ(percentDecode("%"), std::nullopt);
  EXPECT_EQ(percentDecode("%2"), std::nullopt);
  EXPECT_EQ(percentDecode("%zz"), std::nullopt);
  EXPECT_EQ(percentDecode("a%00b"), std::nullopt);

  const auto query = parseQuery("digest=sha256%3Aab&n=1&&n=2&flag&e=");
  ASSERT_TRUE(query);
  EXPECT_EQ(query->at("digest"), "sha256:ab");
  EXPECT_EQ(query->at("n"), "1");
  EXPECT_EQ(query->at("flag"), "");
  EXPECT_EQ(query->at("e"), "");
  EXPECT_FALSE(parseQuery("a=%g0"));

  std::string target = "/token?x=1";
  addQuery(target, "scope", "a b&c");
  EXPECT_EQ(target, "/token?x=1&scope=a%20b%26c");
}

TEST(Url, Loopback) {
  for (const char* host :
       {"localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]"}) {
    EXPECT_TRUE(isLoopbackHost(host)) << host;
  }
  for (const char* host : {"", "localhost.example", "127.example.org", "127.0.0.1.example", "::2",
                           "10.0.0.1", "mylocalhost"}) {
    EXPECT_FALSE(isLoopbackHost(host)) << host;
  }
}

}  // namespace
}  // namespace hull::registry
