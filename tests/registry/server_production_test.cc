// hull-registry as it is run: tokens, rules, quotas, immutable tags, webhooks, a cache in front of
// another registry, certificates that change; through Hull's client or plain requests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/base64.h"
#include "base/file.h"
#include "base/random.h"
#include "base/subprocess.h"
#include "image/store/image_store.h"
#include "image/store/testing/image_fixture.h"
#include "registry/client/client.h"
#include "registry/client/tags.h"
#include "registry/client/transfer.h"
#include "registry/server/server.h"
#include "registry/server/webhooks.h"
#include "tests/registry/scripted_server.h"

namespace hull::registry {
namespace {

using image::Digest;
using image::ImageStore;
using image::Platform;
using image::Reference;
using image::testing::MemoryBlobs;
using image::testing::TarBuilder;
using testing::answer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ScriptedServer;
using testing::SeenRequest;

constexpr const char* kHtpasswd =
    "ann:$2y$04$u7lQWPQSk2fIFUntYl/E9.qmvcmdyeI0wgkD0r7XgHYeVKYpn0gTS\n"
    "bob:$2y$04$u7lQWPQSk2fIFUntYl/E9.qmvcmdyeI0wgkD0r7XgHYeVKYpn0gTS\n";  // "secret"
const Credentials kAnn{"ann", "secret", ""};
const Credentials kBob{"bob", "secret", ""};

class Production : public ::testing::Test {
 protected:
  std::string file(const std::string& name) const { return folder_.path() + "/" + name; }

  // A server with this configuration, its root below the test's folder.
  std::unique_ptr<Server> serve(const std::string& root, const std::string& configuration = "{}") {
    writeFileAtomic(file("htpasswd"), kHtpasswd);
    writeFileAtomic(file(root + ".json"), configuration);
    ServerOptions options;
    options.listen = "127.0.0.1:0";
    options.root = file(root);
    options.access_log = "none";
    return std::make_unique<Server>(options, file(root + ".json"));
  }

  std::string access(const std::string& more) const {
    return R"({"access": {"htpasswd": ")" + file("htpasswd") + "\"" + more + "}}";
  }

  static Reference at(const Server& server, const std::string& name) {
    return Reference::parse("localhost:" + std::to_string(server.port()) + "/" + name);
  }

  image::Image make(ImageStore& store, const Reference& as) {
    MemoryBlobs blobs;
    const auto made =
        image::testing::makeImage(blobs, {TarBuilder().file("data", randomHex(300000)).end()});
    return store.add(made.manifest_text, blobs, {as});
  }

  std::unique_ptr<Transfer> call(const Server& server, const std::string& method,
                                 const std::string& target, const std::string& body = {},
                                 std::vector<std::string> headers = {}) {
    TransferRequest request;
    request.method = method;
    request.url = Url::parse("http://" + server.address() + target);
    request.body = body;
    request.headers = std::move(headers);
    return std::make_unique<Transfer>(request, options_);
  }

  int pushBlob(const Server& server, const std::string& repository, const std::string& content) {
    return call(server, "POST",
                "/v2/" + repository + "/blobs/uploads/?digest=" + Digest::of(content).text(),
                content)
        ->head()
        .status;
  }

  static std::string manifest(const std::string& config, const std::string& extra = {}) {
    return R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",)"
           R"("config":{"mediaType":"a/b","size":1,"digest":")" +
           Digest::of(config).text() + R"("},"layers":[])" + extra + "}";
  }

  std::unique_ptr<Transfer> pushManifest(const Server& server, const std::string& at,
                                         const std::string& text) {
    return call(server, "PUT", "/v2/" + at, text,
                {"Content-Type: application/vnd.oci.image.manifest.v1+json"});
  }

  TemporaryDirectory folder_{"hull-production"};
  ClientOptions options_;
};

TEST_F(Production, TokensAnonymousPullAndRulesWorkWithOurClient) {
  const auto server = serve("r", access(R"(, "token": {}, "rules": [
      {"repository": "public/*", "users": ["anonymous"], "actions": ["pull"]},
      {"repository": "**", "users": ["ann"], "actions": ["pull", "push", "delete"]},
      {"repository": "bob/*", "users": ["bob"], "actions": ["pull", "push"]}])"));
  ImageStore store(file("mine"));
  const auto image = make(store, at(*server, "public/app"));
  store.tag(image.id, at(*server, "private/app"));
  store.tag(image.id, at(*server, "bob/app"));
  EXPECT_EQ(login(at(*server, "x").registry, kAnn, options_), "");
  EXPECT_THROW(login(at(*server, "x").registry, {"ann", "wrong", ""}, options_), Error);
  EXPECT_THROW(push(store, at(*server, "public/app"), {}, options_, {}), Error);
  EXPECT_THROW(push(store, at(*server, "public/app"), kBob, options_, {}), Error);
  push(store, at(*server, "public/app"), kAnn, options_, {});
  push(store, at(*server, "private/app"), kAnn, options_, {});

  ImageStore other(file("other"));
  EXPECT_EQ(pull(other, at(*server, "public/app"), Platform{}, {}, options_, {}).image.id,
            image.id);
  EXPECT_THROW(pull(other, at(*server, "private/app"), Platform{}, {}, options_, {}), Error);
  EXPECT_THROW(pull(other, at(*server, "private/app"), Platform{}, kBob, options_, {}), Error);
  pull(other, at(*server, "private/app"), Platform{}, kAnn, options_, {});

  // Mounting needs permission on the source: what bob may not pull he cannot take over either.
  const std::string blob = image.layer_blobs[0].digest.text();
  const std::string bob = "Authorization: Basic " + base64Encode("bob:secret");
  EXPECT_EQ(
      call(*server, "POST", "/v2/bob/app/blobs/uploads/?from=private/app&mount=" + blob, {}, {bob})
          ->head()
          .status,
      202);
  EXPECT_EQ(
      call(*server, "POST", "/v2/bob/app/blobs/uploads/?from=public/app&mount=" + blob, {}, {bob})
          ->head()
          .status,
      201);
  push(store, at(*server, "bob/app"), kBob, options_, {});
}

TEST_F(Production, ChangedPasswordsAndRulesCountAfterAReload) {
  const auto server = serve("r", access(""));
  EXPECT_EQ(login(at(*server, "x").registry, kAnn, options_), "");
  writeFileAtomic(file("htpasswd"),
                  std::string(kHtpasswd).substr(std::string(kHtpasswd).find("bob")));
  server->reload();
  EXPECT_THROW(login(at(*server, "x").registry, kAnn, options_), Error);
  login(at(*server, "x").registry, kBob, options_);
  // What is wrong is not taken.
  writeFileAtomic(file("r.json"), R"({"acess": {}})");
  server->reload();
  EXPECT_EQ(call(*server, "GET", "/v2/")->head().status, 401);
  writeFileAtomic(file("r.json"), access(R"(, "anonymous_pull": true)"));
  server->reload();
  EXPECT_EQ(call(*server, "GET", "/v2/")->head().status, 200);
}

TEST_F(Production, CertificatesChangeWithoutARestart) {
  const auto certificate = [&](const std::string& name) {
    checkCommand({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                  "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext",
                  "subjectAltName=DNS:localhost", "-keyout", file(name + ".key"), "-out",
                  file(name + ".pem")});
  };
  certificate("first");
  certificate("second");
  const auto use = [&](const std::string& name) {
    writeFileAtomic(file("key.pem"), readFile(file(name + ".key")));
    writeFileAtomic(file("cert.pem"), readFile(file(name + ".pem")));
  };
  use("first");
  const auto server = serve("r", R"({"tls": {"certificate": ")" + file("cert.pem") +
                                     R"(", "key": ")" + file("key.pem") + "\"}}");
  const std::string registry = at(*server, "x").registry;
  options_.ca_bundle = file("first.pem");
  login(registry, {}, options_);
  use("second");
  server->reload();
  EXPECT_THROW(login(registry, {}, options_), Error);
  options_.ca_bundle = file("second.pem");
  login(registry, {}, options_);
  writeFileAtomic(file("cert.pem"), "broken");
  server->reload();
  login(registry, {}, options_);  // the last good one

  // As an insecure registry it needs no CA; with the CA in a folder of its own neither.
  options_.ca_bundle.clear();
  EXPECT_THROW(login(registry, {}, options_), Error);
  makeDirectories(file("certs.d/" + registry));
  writeFileAtomic(file("certs.d/" + registry + "/ca.crt"), readFile(file("second.pem")));
  setenv("HULL_CERTS_D", file("certs.d").c_str(), 1);
  login(registry, {}, options_);
  unsetenv("HULL_CERTS_D");
  options_.insecure_registries = {registry};
  login(registry, {}, options_);
}

TEST_F(Production, ImmutableTagsStayWhatTheyAre) {
  const auto server = serve("r", R"({"immutable_tags": ["prod/*:v*"]})");
  for (const char* repository : {"prod/app", "dev/app"}) {
    ASSERT_EQ(pushBlob(*server, repository, "config"), 201);
    const std::string path = std::string(repository) + "/manifests/";
    const int change = std::string(repository) == "prod/app" ? 403 : 201;
    const int removal = change == 403 ? 403 : 202;
    EXPECT_EQ(pushManifest(*server, path + "v1", manifest("config"))->head().status, 201);
    EXPECT_EQ(pushManifest(*server, path + "v1", manifest("config"))->head().status, 201)
        << "the same";
    EXPECT_EQ(pushManifest(*server, path + "v1", manifest("config", R"(,"x":1)"))->head().status,
              change);
    EXPECT_EQ(
        pushManifest(*server, path + "latest", manifest("config", R"(,"x":1)"))->head().status,
        201);
    EXPECT_EQ(call(*server, "DELETE", "/v2/" + path + "v1")->head().status, removal);
    if (change == 403) {
      EXPECT_EQ(call(*server, "DELETE", "/v2/" + path + Digest::of(manifest("config")).text())
                    ->head()
                    .status,
                403);
    }
    EXPECT_EQ(call(*server, "DELETE", "/v2/" + path + "latest")->head().status, 202);
  }
}

TEST_F(Production, WhatAnImmutableTagNeedsStays) {
  const auto server = serve("r", R"({"immutable_tags": ["prod/*:v*"]})");
  const std::string inner = manifest("config");
  const std::string index =
      R"({"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[)"
      R"({"mediaType":"application/vnd.oci.image.manifest.v1+json","size":1,"digest":")" +
      Digest::of(inner).text() + "\"}]}";
  const auto remove = [&](const std::string& what) {
    return call(*server, "DELETE", "/v2/prod/app/" + what);
  };
  const std::string config = "blobs/" + Digest::of("config").text();
  const std::string platform = "manifests/" + Digest::of(inner).text();
  ASSERT_EQ(pushBlob(*server, "prod/app", "config"), 201);
  ASSERT_EQ(pushBlob(*server, "prod/app", "other"), 201);
  ASSERT_EQ(pushManifest(*server, "prod/app/" + platform, inner)->head().status, 201);
  ASSERT_EQ(call(*server, "PUT", "/v2/prod/app/manifests/v1", index,
                 {"Content-Type: application/vnd.oci.image.index.v1+json"})
                ->head()
                .status,
            201);
  const auto refused = remove(config);
  EXPECT_EQ(refused->head().status, 403);
  EXPECT_THAT(refused->text(1000, "error"), HasSubstr("tag v1 of prod/app is immutable and needs " +
                                                      Digest::of("config").text()));
  EXPECT_EQ(remove(platform)->head().status, 403);
  EXPECT_EQ(remove("manifests/" + Digest::of(index).text())->head().status, 403);
  EXPECT_EQ(remove("blobs/" + Digest::of("other").text())->head().status, 202);

  // It is the tag that protects: in a repository without one it may go.
  ASSERT_EQ(pushBlob(*server, "dev/app", "config"), 201);
  ASSERT_EQ(pushManifest(*server, "dev/app/manifests/v1", inner)->head().status, 201);
  EXPECT_EQ(call(*server, "DELETE", "/v2/dev/app/" + platform)->head().status, 202);
  EXPECT_EQ(call(*server, "DELETE", "/v2/dev/app/" + config)->head().status, 202);
  EXPECT_EQ(call(*server, "GET", "/v2/prod/app/" + config)->head().status, 200);
}

TEST_F(Production, QuotasAndTheLargestBlobAreKept) {
  const auto server = serve("r", R"({"quotas": [{"repository": "team/**", "bytes": 1000}],
                                     "limits": {"blob_bytes": 600}})");
  EXPECT_EQ(pushBlob(*server, "team/a", std::string(601, 'a')), 413);
  EXPECT_EQ(pushBlob(*server, "team/a", std::string(600, 'a')), 201);
  EXPECT_EQ(pushBlob(*server, "team/b", std::string(401, 'b')), 403);
  EXPECT_EQ(pushBlob(*server, "team/b", std::string(390, 'b')), 201);
  EXPECT_EQ(pushBlob(*server, "elsewhere", std::string(401, 'b')), 201);
  // A blob of elsewhere counts as one that is uploaded; one that is here already costs nothing.
  const auto mount = [&](char filler, size_t size) {
    return call(*server, "POST",
                "/v2/team/b/blobs/uploads/?from=elsewhere&mount=" +
                    Digest::of(std::string(size, filler)).text())
        ->head()
        .status;
  };
  ASSERT_EQ(pushBlob(*server, "elsewhere", std::string(10, 'c')), 201);
  ASSERT_EQ(pushBlob(*server, "elsewhere", std::string(390, 'b')), 201);
  EXPECT_EQ(mount('b', 401), 403);
  EXPECT_EQ(mount('c', 10), 201);
  EXPECT_EQ(mount('b', 390), 201);
  EXPECT_EQ(mount('d', 5), 202) << "not there: to be uploaded";
  EXPECT_EQ(
      pushManifest(*server, "team/b/manifests/x", manifest(std::string(390, 'b')))->head().status,
      403);
  // Without a length told beforehand, what arrives is counted.
  const auto started = call(*server, "POST", "/v2/elsewhere/blobs/uploads/");
  const std::string url = started->head().header("location");
  EXPECT_EQ(call(*server, "PATCH", url, std::string(500, 'x'))->head().status, 202);
  EXPECT_EQ(call(*server, "PATCH", url, std::string(200, 'x'))->head().status, 413);
  EXPECT_EQ(call(*server, "GET", url)->head().status, 404) << "the upload is over";
  EXPECT_EQ(call(*server, "DELETE", "/v2/team/a/blobs/" + Digest::of(std::string(600, 'a')).text())
                ->head()
                .status,
            202);
  EXPECT_EQ(
      pushManifest(*server, "team/b/manifests/x", manifest(std::string(390, 'b')))->head().status,
      201);
}

TEST_F(Production, WebhooksHearOfPushesAndDeletions) {
  std::atomic<int> refused = 0;
  ScriptedServer hook([&](const SeenRequest&) { return answer(++refused == 1 ? 500 : 200); });
  {
    const auto server = serve("r", R"({"webhooks": [{"url": ")" + hook.url() +
                                       R"(/hear", "repository": "team/*", "secret": "s3"}]})");
    ASSERT_EQ(pushBlob(*server, "team/app", "config"), 201);
    ASSERT_EQ(pushBlob(*server, "other", "config"), 201);
    pushManifest(*server, "other/manifests/v1", manifest("config"));
    pushManifest(*server, "team/app/manifests/v1", manifest("config"));
    call(*server, "DELETE", "/v2/team/app/manifests/v1");
    for (int i = 0; i < 600 && hook.requests().size() < 3; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }
  const auto heard = hook.requests();
  ASSERT_EQ(heard.size(), 3u) << "one was sent again";
  EXPECT_EQ(heard[0].body, heard[1].body);
  const auto event = nlohmann::json::parse(heard[1].body)["events"][0];
  EXPECT_EQ(event["action"], "push");
  EXPECT_EQ(event["target"]["repository"], "team/app");
  EXPECT_EQ(event["target"]["tag"], "v1");
  EXPECT_EQ(event["target"]["digest"], Digest::of(manifest("config")).text());
  EXPECT_EQ(nlohmann::json::parse(heard[2].body)["events"][0]["action"], "delete");
  EXPECT_EQ(heard[1].header("x-hull-signature-256"), "sha256=" + hmacSha256("s3", heard[1].body));
  // RFC 4231 test case 2.
  EXPECT_EQ(hmacSha256("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST_F(Production, MetricsCount) {
  writeFileAtomic(file("m.json"), R"({"metrics_listen": "127.0.0.1:0"})");
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.root = file("m");
  const Server server(options, file("m.json"));
  EXPECT_EQ(call(server, "GET", "/healthz")->text(100, "x"), "ok\n");
  EXPECT_EQ(call(server, "GET", "/metrics")->head().status, 404) << "not for everybody";
  pushBlob(server, "a", "12345");
  const auto metrics = [&](const std::string& path) {
    TransferRequest request;
    request.url = Url::parse("http://" + server.metricsAddress() + path);
    return Transfer(request, options_).text(1 << 20, "metrics");
  };
  EXPECT_EQ(metrics("/healthz"), "ok\n");
  const std::string text = metrics("/metrics");
  EXPECT_THAT(
      text,
      HasSubstr(
          "hull_registry_requests_total{method=\"POST\",endpoint=\"upload\",code=\"201\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("hull_registry_stored_bytes 5\n"));
  EXPECT_THAT(text, HasSubstr("hull_registry_received_bytes_total 5\n"));
  EXPECT_THAT(
      text, HasSubstr("hull_registry_request_seconds_bucket{endpoint=\"upload\",le=\"+Inf\"} 1\n"));
}

TEST_F(Production, CacheServesWhatItFetchedWhenTheOtherIsAway) {
  auto origin = serve("origin");
  ImageStore store(file("mine"));
  const auto image = make(store, at(*origin, "team/app:1"));
  push(store, at(*origin, "team/app:1"), {}, options_, {});
  const auto cache = serve("cache", R"({"cache": {"upstream": "http://)" + origin->address() +
                                        R"(", "revalidate": 0}})");
  ImageStore first(file("first"));
  EXPECT_EQ(pull(first, at(*cache, "team/app:1"), Platform{}, {}, options_, {}).image.id, image.id);
  EXPECT_THAT(call(*cache, "GET", "/v2/team/app/tags/list")->text(1000, "tags"),
              HasSubstr(R"("tags":["1"])"));
  EXPECT_EQ(call(*cache, "GET", "/v2/team/app/manifests/none")->head().status, 404);
  EXPECT_EQ(call(*cache, "GET", "/v2/team/app/blobs/" + Digest::of("none").text())->head().status,
            404);
  EXPECT_EQ(call(*cache, "POST", "/v2/team/app/blobs/uploads/")->head().status, 405);

  // A tag that moves is noticed.
  const auto newer = make(store, at(*origin, "team/app:1"));
  push(store, at(*origin, "team/app:1"), {}, options_, {});
  ImageStore second(file("second"));
  EXPECT_EQ(pull(second, at(*cache, "team/app:1"), Platform{}, {}, options_, {}).image.id,
            newer.id);

  origin.reset();
  ImageStore third(file("third"));
  EXPECT_EQ(pull(third, at(*cache, "team/app:1"), Platform{}, {}, options_, {}).image.id, newer.id);
  EXPECT_EQ(call(*cache, "GET", "/v2/team/app/manifests/other")->head().status, 502);
}

TEST_F(Production, CacheFetchesABlobOnceAndGivesNobodyAWrongOne) {
  const std::string content = randomHex(1 << 20);
  const std::string good = "/v2/a/blobs/" + Digest::of(content).text();
  const std::string bad = "/v2/a/blobs/" + Digest::of("something else").text();
  ScriptedServer upstream([&](const SeenRequest& request) {
    if (request.target == "/v2/") return answer(200, "{}");
    std::this_thread::sleep_for(std::chrono::milliseconds(200));  // so that requests meet
    return answer(200, content);
  });
  const auto cache = serve("cache", R"({"cache": {"upstream": ")" + upstream.url() + "\"}}");
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back(
        [&] { right += call(*cache, "GET", good)->text(2 << 20, "blob") == content; });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 4);
  EXPECT_EQ(upstream.count("GET", good), 1u);
  const auto part = call(*cache, "GET", good, {}, {"Range: bytes=10-19"});
  EXPECT_EQ(part->head().status, 206);
  EXPECT_EQ(part->text(100, "blob"), content.substr(10, 10));
  // The answer has begun, so it breaks off: it must not look complete.
  EXPECT_THROW(call(*cache, "GET", bad)->text(2 << 20, "blob"), Error);
  EXPECT_FALSE(
      fileExists(file("cache/blobs/sha256/" + std::string(Digest::of("something else").hex()))));
}

// Mirrors get none of the registry's credentials; what fails is passed over.
TEST_F(Production, MirrorsComeFirst) {
  const auto mirror = serve("mirror");
  ImageStore store(file("mine"));
  const auto image = make(store, at(*mirror, "library/app"));
  push(store, at(*mirror, "library/app"), {}, options_, {});
  ScriptedServer broken([](const SeenRequest&) { return answer(404); });
  makeDirectories(file("certs.d/docker.io"));
  writeFileAtomic(file("certs.d/docker.io/mirrors"), "# ours\n" + broken.url() + "\n\nhttp://" +
                                                         mirror->address() + "  # the good one\n");
  setenv("HULL_CERTS_D", file("certs.d").c_str(), 1);
  ImageStore other(file("other"));
  const Reference hub = Reference::parse("app");
  EXPECT_EQ(pull(other, hub, Platform{}, kAnn, options_, {}).image.id, image.id);
  unsetenv("HULL_CERTS_D");
  EXPECT_EQ(other.get("app").id, image.id);
  EXPECT_FALSE(broken.requests().empty());
  for (const SeenRequest& request : broken.requests())
    EXPECT_EQ(request.header("authorization"), "");
}

TEST_F(Production, TagListsAreFollowed) {
  ScriptedServer server([](const SeenRequest& request) {
    if (request.target == "/v2/a/tags/list") {
      return answer(200, R"({"tags":["c","a"]})", {"Link: </v2/a/tags/list?last=c>; rel=\"next\""});
    }
    if (request.target == "/v2/a/tags/list?last=c") {
      return answer(200, R"({"tags":["b",7,"a"]})",
                    {"Link: </v2/a/tags/list?last=c>; rel=\"next\""});  // a circle
    }
    if (request.target == "/v2/empty/tags/list") return answer(200, R"({"tags":null})");
    return answer(request.target == "/v2/" ? 200 : 404, "{}");
  });
  const auto tags = [&](const std::string& name) {
    return listTags(Reference::parse(server.registry() + "/" + name), {}, options_);
  };
  EXPECT_THAT(tags("a"), ElementsAre("a", "b", "c"));
  EXPECT_THAT(tags("empty"), ElementsAre());
  EXPECT_THROW(tags("none"), Error);
}

}  // namespace
}  // namespace hull::registry
