// Hull's client against Debian's docker-registry, where it is installed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <ctime>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/base64.h"
#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "base/subprocess.h"
#include "image/store/image_store.h"
#include "image/store/testing/image_fixture.h"
#include "registry/client/client.h"
#include "registry/http/url.h"
#include "tests/registry/scripted_server.h"

namespace hull::registry {
namespace {

using image::ImageStore;
using image::Reference;

using testing::answer;
using testing::ScriptedServer;
using testing::SeenRequest;

constexpr const char* kProgram = "/usr/bin/docker-registry";
constexpr int kStartAttempts = 200;
constexpr const char* kHtpasswd =
    "ann:$2y$04$u7lQWPQSk2fIFUntYl/E9.qmvcmdyeI0wgkD0r7XgHYeVKYpn0gTS\n";  // "secret"
const Credentials kAnn{"ann", "secret", ""};

class DockerRegistry : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fileExists(kProgram)) GTEST_SKIP() << kProgram << " is not installed";
  }
  void TearDown() override {
    unsetenv("HULL_CERTS_D");
    if (!server_) return;
    server_->kill(SIGTERM);
    server_->wait();
  }

  std::string file(const std::string& name) const { return folder_.path() + "/" + name; }

  // `http` and `more` are parts of its configuration (YAML).
  void start(const std::string& http = {}, const std::string& more = {}) {
    // A port that was free a moment ago.
    address_ = ScriptedServer([](const SeenRequest&) { return ""; }).registry();
    writeFileAtomic(
        file("config.yml"),
        "version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: " + file("data") +
            "}}\nhttp: {addr: \"" + address_ + "\"" + http + "}\n" + more);
    SubprocessOptions options;
    options.arguments = {kProgram, "serve", file("config.yml")};
    server_ = std::make_unique<Subprocess>(options);
    for (int attempt = 0;; ++attempt) {
      try {
        login(address_, kAnn, options_);
        break;
      } catch (const Error& error) {
        if (error.kind() == ErrorKind::kUnauthorized) break;  // it is there
        ASSERT_LT(attempt, kStartAttempts) << "docker-registry does not answer: " << error.what();
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    }
  }

  // Pushes, pulls, mounts into another repository.
  void exchange(const Credentials& credentials) {
    ImageStore mine(file("mine"));
    const Reference tag = Reference::parse(address_ + "/team/app:1");
    image::testing::MemoryBlobs blobs;
    const auto made = image::testing::makeImage(
        blobs, {image::testing::TarBuilder().file("data", randomHex(1 << 20)).end()});
    const auto image = mine.add(made.manifest_text, blobs, {tag});
    EXPECT_EQ(push(mine, tag, credentials, options_, {}).manifest, image.manifest);
    ImageStore other(file("other"));
    const auto pulled = [&](const Reference& name) {
      return pull(other, name, image::Platform{}, credentials, options_, {}).image.id;
    };
    EXPECT_EQ(pulled(tag), image.id);
    EXPECT_EQ(resolve(tag, credentials, options_).digest, image.manifest);
    const Reference second = Reference::parse(address_ + "/team/second:1");
    mine.tag(image.id, second);
    std::mutex mutex;
    std::vector<std::string> statuses;
    push(mine, second, credentials, options_, [&](const image::LayerProgress& step) {
      const std::lock_guard lock(mutex);
      statuses.push_back(step.status);
    });
    EXPECT_THAT(statuses, ::testing::Contains("Mounted from team/app"));
    EXPECT_EQ(pulled(second), image.id);
  }

  // Makes `name`.key and `name`.pem: a CA, or with `ca` a certificate of that CA for this host.
  void certificate(const std::string& name, const std::string& ca = {}) {
    std::vector<std::string> command = {"openssl",     "req",     "-newkey",
                                        "rsa:2048",    "-nodes",  "-subj",
                                        "/CN=" + name, "-keyout", file(name + ".key")};
    if (ca.empty()) {
      command.insert(command.end(), {"-x509", "-days", "1", "-out", file(name + ".pem")});
      checkCommand(command);
      return;
    }
    command.insert(command.end(), {"-out", file(name + ".csr")});
    checkCommand(command);
    writeFileAtomic(file("san"), "subjectAltName=IP:127.0.0.1\n");
    checkCommand({"openssl", "x509", "-req", "-days", "1", "-in", file(name + ".csr"), "-CA",
                  file(ca + ".pem"), "-CAkey", file(ca + ".key"), "-CAcreateserial", "-extfile",
                  file("san"), "-out", file(name + ".pem")});
  }

  const TemporaryDirectory folder_{"hull-docker-registry"};
  std::string address_;
  ClientOptions options_;
  std::unique_ptr<Subprocess> server_;
};

TEST_F(DockerRegistry, PlainHttp) {
  start();
  exchange({});
}

TEST_F(DockerRegistry, PasswordsOverTlsOfAPrivateCaWithOurCertificate) {
  certificate("ca");
  certificate("server", "ca");
  certificate("client", "ca");
  writeFileAtomic(file("htpasswd"), kHtpasswd);
  const std::string folder = file("certs.d/127.0.0.1");
  makeDirectories(folder);
  writeFileAtomic(folder + "/ca.crt", readFile(file("ca.pem")));
  writeFileAtomic(folder + "/client.cert", readFile(file("client.pem")));
  writeFileAtomic(folder + "/client.key", readFile(file("client.key")));
  setenv("HULL_CERTS_D", file("certs.d").c_str(), 1);
  start(", tls: {certificate: " + file("server.pem") + ", key: " + file("server.key") +
            ", clientcas: [" + file("ca.pem") + "]}",
        "auth: {htpasswd: {realm: r, path: " + file("htpasswd") + "}}\n");
  unsetenv("HULL_CERTS_D");
  ClientOptions stranger;
  EXPECT_THROW(login(address_, kAnn, stranger), Error);
  stranger.ca_bundle = file("ca.pem");  // trusts the server, but shows no certificate
  EXPECT_THROW(login(address_, kAnn, stranger), Error);
  setenv("HULL_CERTS_D", file("certs.d").c_str(), 1);
  EXPECT_EQ(login(address_, kAnn, options_), "");
  EXPECT_THROW(login(address_, {"ann", "wrong", ""}, options_), Error);
  exchange(kAnn);
}

TEST_F(DockerRegistry, TokensOfAnotherServer) {
  certificate("issuer");
  const auto encoded = [](std::string text) {
    text = base64Encode(text, Base64Alphabet::kUrl);
    while (text.ends_with('=')) text.pop_back();
    return text;
  };
  std::string der = readFile(file("issuer.pem"));
  der = der.substr(der.find('\n') + 1);
  der.resize(der.find("-----END"));
  std::erase(der, '\n');
  std::atomic<int> given = 0;
  ScriptedServer tokens([&](const SeenRequest& request) {
    if (request.header("authorization") != "Basic " + base64Encode("ann:secret")) {
      return answer(401, R"({"details":"who are you?"})");
    }
    nlohmann::json access = nlohmann::json::array();
    const std::string query =
        request.target.substr(std::min(request.target.find('?') + 1, request.target.size()));
    for (const std::string& scope : parseAll(query, "scope")) {
      const size_t colon = scope.rfind(':');
      access.push_back({{"type", "repository"},
                        {"name", scope.substr(11, colon - 11)},
                        {"actions", {"pull", "push"}}});
    }
    const nlohmann::json header = {{"alg", "RS256"}, {"typ", "JWT"}, {"x5c", {der}}};
    const int64_t now = std::time(nullptr);
    const nlohmann::json claims = {{"iss", "test"},       {"sub", "ann"},    {"aud", "reg"},
                                   {"nbf", now - 10},     {"iat", now - 10}, {"exp", now + 300},
                                   {"jti", randomHex(8)}, {"access", access}};
    const std::string text = encoded(header.dump()) + "." + encoded(claims.dump());
    const std::string signature =
        checkCommand({"openssl", "dgst", "-sha256", "-sign", file("issuer.key")}, text);
    ++given;
    return answer(200, R"({"token":")" + text + "." + encoded(signature) + "\"}");
  });
  start({}, "auth: {token: {realm: \"" + tokens.url() + "/token\", service: reg, issuer: test, " +
                "rootcertbundle: " + file("issuer.pem") + "}}\n");
  EXPECT_THROW(login(address_, {"ann", "wrong", ""}, options_), Error);
  exchange(kAnn);
  EXPECT_GT(given, 0);
}

}  // namespace
}  // namespace hull::registry
