#include "cli/client/credentials.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/file.h"

namespace hull::cli {
namespace {

using nlohmann::json;

class Credentials : public ::testing::Test {
 protected:
  Credentials() { setenv("DOCKER_CONFIG", folder_.path().c_str(), 1); }
  ~Credentials() override { unsetenv("DOCKER_CONFIG"); }
  std::string file() const { return folder_.path() + "/config.json"; }
  TemporaryDirectory folder_{"hull-credentials-test"};
};

TEST_F(Credentials, SavedInDockersFormatAndReadBack) {
  EXPECT_TRUE(loadLogin("localhost:5000").empty());
  saveLogin("localhost:5000", {"me", "pa:ss", ""});
  const Login login = loadLogin("localhost:5000");
  EXPECT_EQ(login.username, "me");
  EXPECT_EQ(login.password, "pa:ss");
  const json config = json::parse(readFile(file()));
  EXPECT_EQ(config["auths"]["localhost:5000"]["auth"], base64Encode("me:pa:ss"));
  struct stat info;
  ASSERT_EQ(::stat(file().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(Credentials, OtherSettingsOfTheFileSurvive) {
  writeFileAtomic(file(), R"({"HttpHeaders":{"X":"y"},"auths":{"a":{"auth":"eDp5"}}})");
  saveLogin("b", {"u", "p", ""});
  EXPECT_TRUE(eraseLogin("a"));
  EXPECT_FALSE(eraseLogin("a"));
  const json config = json::parse(readFile(file()));
  EXPECT_EQ(config["HttpHeaders"]["X"], "y");
  EXPECT_TRUE(config["auths"].contains("b"));
}

TEST_F(Credentials, ARegistryIsAHostHoweverItIsTyped) {
  for (const char* typed :
       {"reg.example:5000", "http://reg.example:5000", "https://reg.example:5000/v2/"})
    EXPECT_EQ(registryOf(typed), "reg.example:5000") << typed;
  for (const char* typed : {"", "docker.io", "https://index.docker.io/v1/"})
    EXPECT_EQ(registryOf(typed), "docker.io") << typed;
}

TEST_F(Credentials, WhatHasAnotherTypeCountsAsAbsent) {
  writeFileAtomic(file(), R"({"auths":{"a":5,"b":{"auth":7}},"credHelpers":[1],"credsStore":{}})");
  EXPECT_TRUE(loadLogin("a").empty());
  EXPECT_TRUE(loadLogin("b").empty());
  saveLogin("a", {"u", "p", ""});
  EXPECT_EQ(loadLogin("a").username, "u");
  EXPECT_EQ(*base64Decode(registryConfigHeader()),
            R"({"a":{"identitytoken":"","password":"p","username":"u"}})");
  writeFileAtomic(file(), R"({"auths":3})");
  EXPECT_FALSE(eraseLogin("a"));
  saveLogin("a", {"u", "p", ""});
  EXPECT_TRUE(eraseLogin("a"));
}

TEST_F(Credentials, DockerHubHasItsOldKey) {
  EXPECT_EQ(credentialKey("docker.io"), "https://index.docker.io/v1/");
  saveLogin("docker.io", {"u", "p", ""});
  EXPECT_EQ(loadLogin("docker.io").username, "u");
}

TEST_F(Credentials, ACredentialHelperIsAskedAndTold) {
  const std::string helper = folder_.path() + "/docker-credential-fake";
  writeFileAtomic(
      helper,
      "#!/bin/sh\ncase $1 in\nget) read key; echo "
      "\"{\\\"Username\\\":\\\"u-$key\\\",\\\"Secret\\\":\\\"s\\\"}\";;\nstore) cat > " +
          folder_.path() + "/stored;;\nesac\n",
      0755);
  const std::string path = std::string(getenv("PATH"));
  setenv("PATH", (folder_.path() + ":" + path).c_str(), 1);
  writeFileAtomic(file(), R"({"credHelpers":{"reg.example":"fake"}})");
  EXPECT_EQ(loadLogin("reg.example").username, "u-reg.example");
  saveLogin("reg.example", {"me", "secret", ""});
  EXPECT_EQ(json::parse(readFile(folder_.path() + "/stored"))["Secret"], "secret");
  EXPECT_EQ(readFile(file()).find("secret"), std::string::npos);
  setenv("PATH", path.c_str(), 1);
}

TEST_F(Credentials, AStoreHoldsWhatNoHelperOfTheRegistryDoes) {
  for (const char* name : {"one", "store"}) {
    writeFileAtomic(folder_.path() + "/docker-credential-" + name,
                    std::string("#!/bin/sh\nread key; echo \"$1 $key\" >> ") + folder_.path() +
                        "/" + name + ".log\n[ $1 = get ] && echo '{\"Username\":\"" + name +
                        "\",\"Secret\":\"s\"}' || true\n",
                    0755);
  }
  const std::string path = std::string(getenv("PATH"));
  setenv("PATH", (folder_.path() + ":" + path).c_str(), 1);
  writeFileAtomic(file(), R"({"credsStore":"store","credHelpers":{"reg.example":"one"}})");
  EXPECT_EQ(loadLogin("reg.example").username, "one");
  EXPECT_EQ(loadLogin("other.example").username, "store");
  saveLogin("other.example", {"me", "secret", ""});
  EXPECT_TRUE(eraseLogin("other.example"));
  EXPECT_NE(readFile(folder_.path() + "/store.log").find("erase other.example"), std::string::npos);
  EXPECT_EQ(readFile(folder_.path() + "/one.log"), "get reg.example\n");
  setenv("PATH", path.c_str(), 1);
}

TEST_F(Credentials, TheHeaderIsUrlSafeJson) {
  const json auth = json::parse(*base64Decode(authHeader("r", {"u", "p", ""})));
  EXPECT_EQ(auth["username"], "u");
  EXPECT_EQ(*base64Decode(authHeader("r", {})), "{}");
}

}  // namespace
}  // namespace hull::cli
