#include "registry/client/trust.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"

namespace hull::registry {
namespace {

TEST(Insecure, NamesPortsAndNetworks) {
  ClientOptions options;
  options.insecure_registries = {"reg.example:5000", "other.example", "10.0.0.0/8",
                                 "fd00::/16",        "1.2.3.4/40",    "bad/8"};
  const auto insecure = [&](const char* url) { return isInsecure(options, Url::parse(url)); };
  EXPECT_TRUE(insecure("http://reg.example:5000"));
  EXPECT_FALSE(insecure("http://reg.example:5001"));
  EXPECT_FALSE(insecure("http://reg.example"));
  EXPECT_TRUE(insecure("https://other.example:7000"));
  EXPECT_TRUE(insecure("http://10.200.3.4:5000"));
  EXPECT_FALSE(insecure("http://11.0.0.1"));
  EXPECT_TRUE(insecure("http://[fd00::1]:5000"));
  EXPECT_FALSE(insecure("http://[fd01::1]"));
  EXPECT_FALSE(insecure("http://1.2.3.4"));
  EXPECT_FALSE(insecure("http://10.example")) << "a name is no address";
}

TEST(Certificates, FoundAsDockerHasThem) {
  const TemporaryDirectory folder("hull-certs");
  const auto put = [&](const std::string& path) {
    makeDirectories(folder.path() + "/" + path.substr(0, path.rfind('/')));
    writeFileAtomic(folder.path() + "/" + path, "x");
  };
  put("second/reg.example:5000/ca.crt");
  put("first/reg.example:5000/b.crt");
  put("first/reg.example:5000/a.crt");
  put("first/reg.example:5000/client.cert");
  put("first/reg.example:5000/client.key");
  put("first/reg.example:5000/alone.cert");
  put("second/plain.example/ca.crt");
  const std::vector<std::string> folders = {folder.path() + "/none", folder.path() + "/first",
                                            folder.path() + "/second"};
  const auto found = certificatesFor(folders, Url::parse("https://reg.example:5000"));
  ASSERT_EQ(found.authorities.size(), 2u);
  EXPECT_TRUE(found.authorities[0].ends_with("first/reg.example:5000/a.crt"));
  EXPECT_TRUE(found.certificate.ends_with("client.cert"));
  EXPECT_TRUE(found.key.ends_with("client.key"));
  EXPECT_EQ(certificatesFor(folders, Url::parse("https://plain.example")).authorities.size(), 1u);
  EXPECT_TRUE(certificatesFor(folders, Url::parse("https://reg.example")).authorities.empty());
}

TEST(Mirrors, AreTheLinesOfAFile) {
  const TemporaryDirectory folder("hull-mirrors");
  const std::vector<std::string> folders = {folder.path()};
  EXPECT_TRUE(mirrorsOf(folders, "docker.io").empty());
  makeDirectories(folder.path() + "/docker.io");
  const auto write = [&](const std::string& text) {
    writeFileAtomic(folder.path() + "/docker.io/mirrors", text);
  };
  write("# first ours\nhttps://one.example\n\n  http://two:5000/ # plain\r\n");
  EXPECT_EQ(mirrorsOf(folders, "docker.io"),
            (std::vector<std::string>{"https://one.example", "http://two:5000/"}));
  EXPECT_TRUE(mirrorsOf(folders, "quay.io").empty());
  write("https://one.example/path\n");
  EXPECT_THROW(mirrorsOf(folders, "docker.io"), Error);
  write("one.example\n");
  EXPECT_THROW(mirrorsOf(folders, "docker.io"), Error);
}

}  // namespace
}  // namespace hull::registry
