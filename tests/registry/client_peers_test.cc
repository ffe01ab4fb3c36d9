// The registry client against servers that lie, break off, redirect and ask for tokens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "base/base64.h"
#include "base/file.h"
#include "base/random.h"
#include "image/store/image_store.h"
#include "image/store/testing/image_fixture.h"
#include "registry/client/client.h"
#include "registry/client/session.h"
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
using ::testing::HasSubstr;
using ::testing::Not;
using testing::ScriptedServer;
using testing::SeenRequest;

// A registry that serves one image; tests put something in front of it.
class Peers : public ::testing::Test {
 protected:
  Peers() {
    // Random, so that the compressed layer is large enough to be cut.
    made_ =
        image::testing::makeImage(blobs_, {TarBuilder().file("data", randomHex(1 << 20)).end()});
  }

  std::string honest(const SeenRequest& request) const {
    const std::string path = request.target.substr(0, request.target.find('?'));
    if (path == "/v2/") return answer(200, "{}");
    if (path == "/v2/app/manifests/latest") {
      return answer(200, made_.manifest_text,
                    {std::string("Content-Type: ") + image::media_type::kDockerManifest});
    }
    if (path.starts_with("/v2/app/blobs/")) {
      const auto it = blobs_.blobs.find(Digest::parse(path.substr(14)));
      if (it != blobs_.blobs.end()) return answer(200, it->second);
    }
    return answer(404, R"({"errors":[{"code":"MANIFEST_UNKNOWN","message":"no\u001b[31m such"}]})");
  }

  bool isLayer(const SeenRequest& request) const {
    return request.target == "/v2/app/blobs/" + made_.manifest.layers[0].digest.text();
  }
  const std::string& layer() const { return blobs_.blobs.at(made_.manifest.layers[0].digest); }

  PullResult pullFrom(const ScriptedServer& server, const Credentials& credentials = {}) {
    return pull(store_, Reference::parse(server.registry() + "/app"), Platform{}, credentials,
                options_, {});
  }

  MemoryBlobs blobs_;
  image::testing::TestImage made_;
  TemporaryDirectory folder_{"hull-registry-test"};
  ImageStore store_{folder_.path() + "/store"};
  ClientOptions options_;
};

TEST_F(Peers, HonestServer) {
  ScriptedServer server([&](const SeenRequest& request) { return honest(request); });
  EXPECT_EQ(pullFrom(server).image.id, made_.id);
}

TEST_F(Peers, BrokenBlobIsContinuedWithARange) {
  std::atomic<int> asked = 0;
  ScriptedServer server([&](const SeenRequest& request) {
    if (!isLayer(request)) return honest(request);
    const std::string range = request.header("range");
    size_t from = 0;
    if (!range.empty()) from = std::stoul(range.substr(6));
    const size_t total = layer().size();
    const std::string head =
        (from == 0 ? std::string("HTTP/1.1 200 OK\r\n")
                   : "HTTP/1.1 206 Partial\r\nContent-Range: bytes " + std::to_string(from) + "-" +
                         std::to_string(total - 1) + "/" + std::to_string(total) + "\r\n") +
        "Content-Length: " + std::to_string(total - from) + "\r\n\r\n";
    // Twice only a third arrives.
    const size_t part = ++asked <= 2 ? total / 3 : total - from;
    return head + layer().substr(from, part);
  });
  EXPECT_EQ(pullFrom(server).image.id, made_.id);
  EXPECT_EQ(asked, 3);
}

TEST_F(Peers, ServerWithoutRangesIsReadAgain) {
  std::atomic<int> asked = 0;
  ScriptedServer server([&](const SeenRequest& request) {
    if (!isLayer(request)) return honest(request);
    const std::string whole = answer(200, layer());
    return ++asked == 1 ? whole.substr(0, whole.size() / 2) : whole;
  });
  EXPECT_EQ(pullFrom(server).image.id, made_.id);
  EXPECT_EQ(asked, 2);
}

TEST_F(Peers, WrongContentIsRefused) {
  ScriptedServer server([&](const SeenRequest& request) {
    if (!isLayer(request)) return honest(request);
    std::string other = layer();
    other[other.size() / 2] = static_cast<char>(other[other.size() / 2] ^ 1);
    return answer(200, other);
  });
  try {
    pullFrom(server);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << error.what();
  }
  EXPECT_TRUE(store_.list().empty());
}

TEST_F(Peers, ManifestMustMatchItsDigestHeader) {
  ScriptedServer server([&](const SeenRequest& request) {
    if (request.target != "/v2/app/manifests/latest") return honest(request);
    return answer(200, made_.manifest_text,
                  {"Docker-Content-Digest: " + Digest::of("something else").text()});
  });
  try {
    pullFrom(server);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(error.what(), HasSubstr("digest mismatch"));
  }
}

TEST_F(Peers, OverlongManifestIsCutOff) {
  ScriptedServer server([&](const SeenRequest& request) {
    if (request.target != "/v2/app/manifests/latest") return honest(request);
    return answer(200, std::string(image::kMaxManifestBytes + 1, ' '));
  });
  try {
    pullFrom(server);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kTooLarge);
  }
}

TEST_F(Peers, BusyServerIsAskedAgain) {
  std::atomic<int> refused = 0;
  ScriptedServer server([&](const SeenRequest& request) {
    if (request.target == "/v2/app/manifests/latest" && refused < 2) {
      return answer(++refused == 1 ? 429 : 503, "", {"Retry-After: 0"});
    }
    return honest(request);
  });
  EXPECT_EQ(pullFrom(server).image.id, made_.id);
  EXPECT_EQ(server.count("GET", "/v2/app/manifests/latest"), 3u);
}

TEST_F(Peers, NotForeverThough) {
  ScriptedServer server([&](const SeenRequest& request) {
    return request.target == "/v2/" ? honest(request) : answer(503);
  });
  EXPECT_THROW(pullFrom(server), Error);
  EXPECT_EQ(server.count("GET", "/v2/app/manifests/latest"), static_cast<size_t>(kMaxAttempts));
}

TEST_F(Peers, ErrorTextOfAServerIsCleaned) {
  ScriptedServer server([&](const SeenRequest& request) {
    return request.target == "/v2/app/manifests/latest"
               ? answer(404, R"({"errors":[{"code":)"
                             R"("MANIFEST_UNKNOWN",)"
                             R"("message":"a\u001b[1mb"}]})")
               : honest(request);
  });
  try {
    pullFrom(server);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
    EXPECT_EQ(error.what(), "manifest for " + server.registry() +
                                "/app:latest not found: manifest unknown: a [1mb");
  }
}

// A token server and a registry that wants its tokens.
class Tokens : public Peers {
 protected:
  Tokens()
      : token_server_([this](const SeenRequest& request) { return token(request); }),
        registry_([this](const SeenRequest& request) { return guarded(request); }) {}

  std::string token(const SeenRequest& request) {
    const bool ann = request.header("authorization") == "Basic " + base64Encode("ann:secret") ||
                     request.body.find("refresh_token=identity") != std::string::npos;
    if (!ann) return answer(401, R"({"details":"incorrect username or password"})");
    const std::string refresh =
        request.target.find("offline_token=true") == std::string::npos ? "" : "identity";
    return answer(200, R"({"access_token":"t)" + std::to_string(++issued_) +
                           R"(","expires_in":300,"refresh_token":")" + refresh + "\"}");
  }

  std::string guarded(const SeenRequest& request) {
    const std::string wanted = "Bearer t" + std::to_string(valid_.load());
    if (request.header("authorization") != wanted && !open_to_all_) {
      valid_ = issued_ + 1;  // only a token fetched from now on is good
      return answer(
          401, "",
          {"WWW-Authenticate: Basic realm=\"x, y\", Bearer realm=\"" + token_server_.url() +
           "/token\",service=\"the service\"," + "scope=\"repository:app:pull,push\""});
    }
    if (expire_after_manifest_ && request.target.find("/manifests/") != std::string::npos) {
      valid_ = issued_ + 1;
    }
    return honest(request);
  }

  std::atomic<int> issued_ = 0;
  std::atomic<int> valid_ = 1;
  std::atomic<bool> open_to_all_ = false;
  std::atomic<bool> expire_after_manifest_ = false;
  ScriptedServer token_server_;
  ScriptedServer registry_;
};

TEST_F(Tokens, AreFetchedOnceAndUsedForAll) {
  EXPECT_EQ(pullFrom(registry_, {"ann", "secret", ""}).image.id, made_.id);
  const auto asked = token_server_.requests();
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0].target,
            "/token?service=the%20service&scope=repository%3Aapp%3Apull&account=ann");
}

TEST_F(Tokens, AreRenewedInTheMiddleOfAPull) {
  expire_after_manifest_ = true;
  EXPECT_EQ(pullFrom(registry_, {"ann", "secret", ""}).image.id, made_.id);
  EXPECT_GE(token_server_.requests().size(), 2u);
}

TEST_F(Tokens, IdentityTokensArePosted) {
  EXPECT_EQ(pullFrom(registry_, {"", "", "identity"}).image.id, made_.id);
  const auto asked = token_server_.requests();
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0].method, "POST");
  EXPECT_THAT(asked[0].body, HasSubstr("grant_type=refresh_token"));
  EXPECT_EQ(asked[0].target, "/token");
}

TEST_F(Tokens, LoginGivesTheIdentityToken) {
  EXPECT_EQ(login(registry_.registry(), {"ann", "secret", ""}, options_), "identity");
}

TEST_F(Tokens, WrongPasswordIsSaidAndNotShown) {
  try {
    pullFrom(registry_, {"ann", "guessed", ""});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnauthorized);
    EXPECT_THAT(error.what(), HasSubstr("incorrect username or password"));
    EXPECT_THAT(error.what(), Not(HasSubstr("guessed")));
  }
}

TEST_F(Tokens, CredentialsDoNotFollowARedirect) {
  ScriptedServer storage([&](const SeenRequest&) { return answer(200, layer()); });
  ScriptedServer front([&](const SeenRequest& request) {
    if (request.target.starts_with("/v2/") && request.header("authorization").empty()) {
      return answer(401, "", {"WWW-Authenticate: Basic realm=\"r\""});
    }
    if (isLayer(request)) {
      return answer(307, "", {"Location: " + storage.url() + "/signed?key=1"});
    }
    return honest(request);
  });
  EXPECT_EQ(pullFrom(front, {"ann", "secret", ""}).image.id, made_.id);
  const auto seen = storage.requests();
  ASSERT_EQ(seen.size(), 1u);
  EXPECT_EQ(seen[0].target, "/signed?key=1");
  EXPECT_EQ(seen[0].header("authorization"), "");
}

TEST_F(Peers, EndlessRedirectsEnd) {
  ScriptedServer server([&](const SeenRequest& request) {
    return request.target == "/v2/" ? honest(request)
                                    : answer(302, "", {"Location: " + request.target});
  });
  EXPECT_THROW(pullFrom(server), Error);
  EXPECT_LE(server.requests().size(), static_cast<size_t>(kMaxRedirects) + 2);
}

TEST_F(Peers, RedirectsToOtherSchemesAreRefused) {
  ScriptedServer server([&](const SeenRequest& request) {
    return request.target == "/v2/" ? honest(request)
                                    : answer(302, "", {"Location: file:///etc/passwd"});
  });
  EXPECT_THROW(pullFrom(server), Error);
}

TEST_F(Peers, IndexGivesThePlatformsManifest) {
  image::Index index;
  index.media_type = image::media_type::kDockerList;
  index.manifests.push_back({image::media_type::kDockerManifest,
                             Digest::of("arm"),
                             3,
                             Platform{"linux", "arm64", "v8"},
                             {}});
  index.manifests.push_back({image::media_type::kDockerManifest,
                             Digest::of(made_.manifest_text),
                             made_.manifest_text.size(),
                             Platform{},
                             {}});
  const std::string text = image::toJson(index);
  ScriptedServer server([&](const SeenRequest& request) {
    if (request.target == "/v2/app/manifests/latest") {
      return answer(200, text, {"Content-Type: " + index.media_type});
    }
    if (request.target == "/v2/app/manifests/" + Digest::of(made_.manifest_text).text()) {
      return answer(200, made_.manifest_text);
    }
    return honest(request);
  });
  const PullResult pulled = pullFrom(server);
  EXPECT_EQ(pulled.image.id, made_.id);
  ASSERT_EQ(pulled.image.digests.size(), 1u);
  EXPECT_EQ(pulled.image.digests[0].digest, Digest::of(text));
  EXPECT_TRUE(pullFrom(server).up_to_date);
  try {
    pull(store_, Reference::parse(server.registry() + "/app"), Platform{"linux", "s390x", ""}, {},
         options_, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("linux/s390x"));
  }
}

TEST_F(Peers, PushBeginsANewUploadAfterAFailure) {
  std::atomic<int> puts = 0;
  std::atomic<int> started = 0;
  ScriptedServer server([&](const SeenRequest& request) {
    if (request.target == "/v2/") return honest(request);
    if (request.method == "HEAD") return answer(404);
    if (request.method == "POST") {
      return answer(202, "", {"Location: /upload/" + std::to_string(++started) + "?state=x"});
    }
    if (request.target.starts_with("/upload/")) return answer(++puts == 1 ? 502 : 201);
    return answer(201);
  });
  const Reference tag = Reference::parse(server.registry() + "/app");
  const auto image = store_.add(made_.manifest_text, blobs_, {tag});
  EXPECT_EQ(push(store_, tag, {}, options_, {}).manifest, image.manifest);
  EXPECT_EQ(started, 3);  // the layer twice, the configuration once
  for (const SeenRequest& request : server.requests()) {
    if (request.target.starts_with("/upload/")) {
      EXPECT_THAT(request.target, HasSubstr("?state=x&digest=sha256%3A"));
    }
    if (request.target == "/v2/app/manifests/latest") {
      EXPECT_EQ(request.body, made_.manifest_text);
    }
  }
}

TEST(RegistryError, HostileBodies) {
  EXPECT_EQ(parseError("", 500).text, "status 500");
  EXPECT_EQ(parseError("<html>", 502).text, "status 502");
  EXPECT_EQ(parseError("[]", 500).text, "status 500");
  EXPECT_EQ(parseError(R"({"errors":[]})", 500).text, "status 500");
  EXPECT_EQ(parseError(R"({"errors":{"code":1}})", 500).text, "status 500");
  EXPECT_EQ(parseError(R"({"errors":[7]})", 500).text, "status 500");
  EXPECT_EQ(parseError(R"({"errors":[{"code":1,"message":[]}]})", 500).text, ": ");
  EXPECT_EQ(parseError(R"({"errors":[{"code":"NAME_UNKNOWN","message":"x\ny"}]})", 404).text,
            "name unknown: x y");
  EXPECT_LE(
      parseError(R"({"errors":[{"message":")" + std::string(100000, 'a') + "\"}]}", 1).text.size(),
      600u);
}

TEST(AuthHeader, DockersForms) {
  const auto parse = [](const std::string& json) {
    return parseAuthHeader(base64Encode(json, Base64Alphabet::kUrl));
  };
  EXPECT_TRUE(parseAuthHeader("").empty());
  EXPECT_TRUE(parse("{}").empty());
  EXPECT_TRUE(parse("null").empty());
  EXPECT_EQ(parse(R"({"username":"ann","password":"p:w"})").password, "p:w");
  EXPECT_EQ(parse(R"({"identitytoken":"t"})").identity_token, "t");
  EXPECT_EQ(parse(R"({"auth":")" + base64Encode("ann:p:w") + "\"}").username, "ann");
  EXPECT_EQ(parse(R"({"auth":")" + base64Encode("ann:p:w") + "\"}").password, "p:w");
}

TEST(AuthHeader, HostileForms) {
  for (const std::string& header :
       {std::string("!!!"), base64Encode("not json"), base64Encode("[]"),
        base64Encode(R"({"username":7})"), base64Encode(R"({"auth":"!"})"),
        base64Encode(R"({"auth":"YW5u"})"), std::string(1 << 20, 'A')}) {
    EXPECT_THROW(parseAuthHeader(header), Error) << header.substr(0, 40);
  }
}

}  // namespace
}  // namespace hull::registry
