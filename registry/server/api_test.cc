// The distribution API without sockets: requests in, answers out (distribution-spec 1.1).
#include "registry/server/api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"

namespace hull::registry {
namespace {

using image::Digest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

constexpr const char* kManifestType = "application/vnd.oci.image.manifest.v1+json";
constexpr const char* kIndexType = "application/vnd.oci.image.index.v1+json";

// A body whose connection breaks after some bytes.
class BreakingSource final : public Source {
 public:
  explicit BreakingSource(std::string text) : text_(std::move(text)) {}
  size_t read(std::span<std::byte> into) override {
    if (done_) throw Error(ErrorKind::kUnavailable, "the peer closed");
    done_ = true;
    const size_t size = std::min(into.size(), text_.size());
    std::copy_n(asBytes(text_).begin(), size, into.begin());
    return size;
  }

 private:
  std::string text_;
  bool done_ = false;
};

class ApiTest : public ::testing::Test {
 protected:
  struct Answer {
    int status;
    std::map<std::string, std::string> headers;
    std::string body;
    std::string code() const {
      const Json document = Json::parse(body, nullptr, false);
      return document.is_object() ? document["errors"][0]["code"].get<std::string>() : "";
    }
  };

  ApiTest() { open(); }

  void open(const Policy& policy = {}) {
    api_.reset();
    uploads_.reset();
    store_.reset();
    store_ = std::make_unique<RepositoryStore>(folder_.path());
    uploads_ = std::make_unique<Uploads>(*store_);
    policy_ = std::make_unique<PolicyHolder>(std::make_shared<ActivePolicy>(policy, nullptr));
    api_ = std::make_unique<Api>(ApiParts{*store_, *uploads_, *policy_});
  }

  Answer call(const std::string& method, const std::string& target, const std::string& body = {},
              const std::map<std::string, std::string, std::less<>>& headers = {}) {
    StringSource source(body);
    return callFrom(method, target, source, body.size(), headers);
  }

  Answer callFrom(const std::string& method, const std::string& target, Source& source,
                  std::optional<uint64_t> length,
                  const std::map<std::string, std::string, std::less<>>& headers = {}) {
    Request request;
    request.method = method;
    request.target = target;
    request.headers = headers;
    request.content_length = length;
    request.body = &source;
    const Response response = api_->handle(request);
    Answer answer{
        response.status, {response.headers.begin(), response.headers.end()}, response.body};
    if (response.file) {
      answer.body.resize(response.file->length);
      preadFull(response.file->fd.get(),
                std::as_writable_bytes(std::span(answer.body.data(), answer.body.size())),
                response.file->offset);
    }
    return answer;
  }

  Digest pushBlob(const std::string& repository, const std::string& content) {
    const Digest digest = Digest::of(content);
    const Answer answer =
        call("POST", "/v2/" + repository + "/blobs/uploads/?digest=" + digest.text(), content);
    EXPECT_EQ(answer.status, 201) << answer.body;
    return digest;
  }

  // A manifest with one blob; `extra` is spliced into the JSON.
  std::string manifestOf(const Digest& blob, const std::string& extra = {}) {
    return R"({"schemaVersion":2,"mediaType":")" + std::string(kManifestType) +
           R"(","config":{"mediaType":"application/vnd.test+json","digest":")" + blob.text() +
           R"(","size":1},"layers":[])" + extra + "}";
  }

  Answer pushManifest(const std::string& repository, const std::string& reference,
                      const std::string& text) {
    return call("PUT", "/v2/" + repository + "/manifests/" + reference, text,
                {{"content-type", kManifestType}});
  }

  TemporaryDirectory folder_{"hull-registry-api"};
  std::unique_ptr<RepositoryStore> store_;
  std::unique_ptr<Uploads> uploads_;
  std::unique_ptr<PolicyHolder> policy_;
  std::unique_ptr<Api> api_;
};

TEST_F(ApiTest, Base) {
  EXPECT_EQ(call("GET", "/v2/").status, 200);
  EXPECT_EQ(call("GET", "/v2").status, 200);
  EXPECT_EQ(call("GET", "/").status, 404);
  EXPECT_EQ(call("DELETE", "/v2/").status, 405);
  EXPECT_EQ(call("BREW", "/v2/a/blobs/uploads/").status, 405);
}

TEST_F(ApiTest, BlobsAndRanges) {
  const Digest digest = pushBlob("a/b", "0123456789");
  const std::string url = "/v2/a/b/blobs/" + digest.text();
  const Answer whole = call("GET", url);
  EXPECT_EQ(whole.status, 200);
  EXPECT_EQ(whole.body, "0123456789");
  EXPECT_EQ(whole.headers.at("Docker-Content-Digest"), digest.text());
  EXPECT_EQ(call("HEAD", url).status, 200);

  const auto range = [&](const std::string& text) {
    return call("GET", url, "", {{"range", text}});
  };
  EXPECT_EQ(range("bytes=2-4").body, "234");
  EXPECT_EQ(range("bytes=2-4").headers.at("Content-Range"), "bytes 2-4/10");
  EXPECT_EQ(range("bytes=7-").body, "789");
  EXPECT_EQ(range("bytes=-3").body, "789");
  EXPECT_EQ(range("bytes=-30").body, "0123456789");
  EXPECT_EQ(range("bytes=5-500").body, "56789");
  EXPECT_EQ(range("bytes=10-").status, 416);
  EXPECT_EQ(range("bytes=-0").status, 416);
  for (const char* ignored : {"bytes=5-4", "bytes=x-y", "bytes=-", "items=0-1", "bytes=0-1,3-4",
                              "bytes=99999999999999999999-", "bytes=1-x"}) {
    EXPECT_EQ(range(ignored).status, 200) << ignored;
  }
  EXPECT_EQ(call("GET", url, "", {{"if-none-match", "\"" + digest.text() + "\""}}).status, 304);
}

TEST_F(ApiTest, BlobsAreSeenWhereTheyWerePushedOnly) {
  const Digest digest = pushBlob("private", "secret");
  EXPECT_EQ(call("GET", "/v2/public/blobs/" + digest.text()).status, 404);
  pushBlob("public", "other");
  EXPECT_EQ(call("GET", "/v2/public/blobs/" + digest.text()).code(), "BLOB_UNKNOWN");
  // A mount names the repository it is from, and the blob must be there.
  const std::string mount = "/v2/public/blobs/uploads/?mount=" + digest.text();
  EXPECT_EQ(call("POST", mount).status, 202);
  EXPECT_EQ(call("POST", mount + "&from=public").status, 202);
  EXPECT_EQ(call("POST", mount + "&from=../private").status, 202);
  EXPECT_EQ(call("GET", "/v2/public/blobs/" + digest.text()).status, 404);
  const Answer mounted = call("POST", mount + "&from=private");
  EXPECT_EQ(mounted.status, 201);
  EXPECT_EQ(mounted.headers.at("Location"), "/v2/public/blobs/" + digest.text());
  EXPECT_EQ(call("GET", "/v2/public/blobs/" + digest.text()).body, "secret");

  // Removed from one, it stays in the other; removed from both, its content goes.
  EXPECT_EQ(call("DELETE", "/v2/private/blobs/" + digest.text()).status, 202);
  EXPECT_EQ(call("GET", "/v2/public/blobs/" + digest.text()).status, 200);
  EXPECT_EQ(call("DELETE", "/v2/public/blobs/" + digest.text()).status, 202);
  EXPECT_EQ(call("DELETE", "/v2/public/blobs/" + digest.text()).status, 404);
  EXPECT_FALSE(store_->blobs().has(digest));
}

TEST_F(ApiTest, ChunksInOrder) {
  const Answer started = call("POST", "/v2/a/blobs/uploads/");
  ASSERT_EQ(started.status, 202);
  const std::string url = started.headers.at("Location");
  EXPECT_EQ(call("GET", url).status, 204);
  const Answer first = call("PATCH", url, "0123", {{"content-range", "0-3"}});
  EXPECT_EQ(first.status, 202);
  EXPECT_EQ(first.headers.at("Range"), "0-3");
  const Answer again = call("PATCH", url, "0123", {{"content-range", "0-3"}});
  EXPECT_EQ(again.status, 416);
  EXPECT_EQ(again.headers.at("Range"), "0-3");
  EXPECT_EQ(call("PATCH", url, "9", {{"content-range", "9-9"}}).status, 416);
  EXPECT_EQ(call("PATCH", url, "45", {{"content-range", "4-9"}}).code(), "SIZE_INVALID");
  EXPECT_EQ(call("PATCH", url, "45", {{"content-range", "bytes 4-5"}}).status, 400);
  EXPECT_EQ(call("PATCH", url, "45", {{"content-range", "5-4"}}).status, 400);
  EXPECT_EQ(call("PATCH", url, "45", {{"content-range", "4-5"}}).status, 202);
  EXPECT_EQ(call("GET", url).headers.at("Range"), "0-5");
  EXPECT_EQ(call("GET", "/v2/other" + url.substr(5)).status, 404);  // not of that repository

  const Digest digest = Digest::of("01234567");
  EXPECT_EQ(call("PUT", url).code(), "DIGEST_INVALID");
  EXPECT_EQ(call("PUT", url + "?digest=sha256:xyz").code(), "DIGEST_INVALID");
  const Answer done =
      call("PUT", url + "?digest=" + digest.text(), "67", {{"content-range", "6-7"}});
  EXPECT_EQ(done.status, 201);
  EXPECT_EQ(call("GET", "/v2/a/blobs/" + digest.text()).body, "01234567");
  EXPECT_EQ(call("GET", url).code(), "BLOB_UPLOAD_UNKNOWN");
}

TEST_F(ApiTest, UploadsSurviveABrokenConnectionAndARestart) {
  const std::string url = call("POST", "/v2/a/blobs/uploads/").headers.at("Location");
  BreakingSource broken("0123");
  EXPECT_GE(callFrom("PATCH", url, broken, 8).status, 400);
  EXPECT_EQ(call("GET", url).headers.at("Range"), "0-3");
  open();
  EXPECT_EQ(call("GET", url).headers.at("Range"), "0-3");
  EXPECT_EQ(call("PATCH", url, "4567", {{"content-range", "4-7"}}).status, 202);
  EXPECT_EQ(call("PUT", url + "?digest=" + Digest::of("01234567").text()).status, 201);
  EXPECT_EQ(uploads_->sweep(std::chrono::seconds(0)), 0u);
}

TEST_F(ApiTest, AbandonedUploadsGo) {
  const std::string url = call("POST", "/v2/a/blobs/uploads/").headers.at("Location");
  EXPECT_EQ(uploads_->sweep(), 0u);
  EXPECT_EQ(uploads_->sweep(std::chrono::seconds(-1)), 1u);
  EXPECT_EQ(call("GET", url).status, 404);
  const std::string other = call("POST", "/v2/a/blobs/uploads/").headers.at("Location");
  EXPECT_EQ(call("DELETE", other).status, 204);
  EXPECT_EQ(call("DELETE", other).status, 404);
  EXPECT_EQ(call("GET", "/v2/a/blobs/uploads/..%2f..%2fetc").status, 404);
}

TEST_F(ApiTest, WrongDigestPublishesNothing) {
  const Digest wanted = Digest::of("what was promised");
  const Answer answer = call("POST", "/v2/a/blobs/uploads/?digest=" + wanted.text(), "else");
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.code(), "DIGEST_INVALID");
  EXPECT_FALSE(store_->blobs().has(wanted));
  EXPECT_FALSE(store_->blobs().has(Digest::of("else")));
  EXPECT_EQ(uploads_->sweep(std::chrono::seconds(-1)), 0u);
}

TEST_F(ApiTest, Sha512) {
  Hasher hasher(HashAlgorithm::kSha512);
  hasher.update("content");
  const std::string digest = "sha512:" + hasher.finishHex();
  EXPECT_EQ(call("POST", "/v2/a/blobs/uploads/?digest=" + digest, "content").status, 201);
  EXPECT_EQ(call("GET", "/v2/a/blobs/" + digest).body, "content");
  const std::string url = call("POST", "/v2/b/blobs/uploads/").headers.at("Location");
  call("PATCH", url, "cont");
  EXPECT_EQ(call("PUT", url + "?digest=" + digest, "ent").status, 201);
  EXPECT_EQ(call("GET", "/v2/b/blobs/" + digest).body, "content");
}

TEST_F(ApiTest, ManifestsByTagAndDigest) {
  const Digest blob = pushBlob("a", "config");
  const std::string text = manifestOf(blob);
  const Digest digest = Digest::of(text);
  const Answer put = pushManifest("a", "v1", text);
  ASSERT_EQ(put.status, 201) << put.body;
  EXPECT_EQ(put.headers.at("Docker-Content-Digest"), digest.text());
  EXPECT_EQ(put.headers.at("Location"), "/v2/a/manifests/" + digest.text());
  for (const std::string& reference : {std::string("v1"), digest.text()}) {
    const Answer got = call("GET", "/v2/a/manifests/" + reference);
    EXPECT_EQ(got.status, 200);
    EXPECT_EQ(got.body, text);  // byte for byte
    EXPECT_EQ(got.headers.at("Content-Type"), kManifestType);
    EXPECT_EQ(call("HEAD", "/v2/a/manifests/" + reference).status, 200);
  }
  EXPECT_EQ(pushManifest("a", Digest::of("x").text(), text).code(), "DIGEST_INVALID");
  EXPECT_EQ(pushManifest("a", digest.text(), text).status, 201);
  EXPECT_EQ(call("GET", "/v2/a/manifests/v2").code(), "MANIFEST_UNKNOWN");
  EXPECT_EQ(call("GET", "/v2/none/manifests/v1").code(), "NAME_UNKNOWN");
  EXPECT_EQ(call("GET", "/v2/a/manifests/sha256:zz").code(), "DIGEST_INVALID");
  // A manifest is no blob of the repository.
  EXPECT_EQ(call("GET", "/v2/a/blobs/" + digest.text()).status, 404);

  pushManifest("a", "v2", text);
  EXPECT_EQ(call("DELETE", "/v2/a/manifests/v2").status, 202);
  EXPECT_EQ(call("GET", "/v2/a/manifests/v1").status, 200);
  EXPECT_EQ(call("DELETE", "/v2/a/manifests/" + digest.text()).status, 202);
  EXPECT_EQ(call("GET", "/v2/a/manifests/v1").status, 404);
  EXPECT_EQ(Json::parse(call("GET", "/v2/a/tags/list").body)["tags"], Json::array());
  EXPECT_EQ(call("DELETE", "/v2/a/manifests/" + digest.text()).status, 404);
}

TEST_F(ApiTest, HostileManifests) {
  const Digest blob = pushBlob("a", "config");
  const auto refused = [&](const std::string& text) {
    const Answer answer = pushManifest("a", "x", text);
    return answer.status == 400 ? answer.code() : std::to_string(answer.status);
  };
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("7"), std::string("null"),
        std::string(R"({"schemaVersion":1})"), std::string(R"({"schemaVersion":"2"})"),
        std::string(R"({"schemaVersion":2,"mediaType":"text/plain"})"),
        std::string(R"({"schemaVersion":2,"config":{}})"),
        std::string(R"({"schemaVersion":2,"config":{"digest":"../../etc"}})"),
        std::string(R"({"schemaVersion":2,"layers":{}})"),
        std::string(R"({"schemaVersion":2,"layers":[1]})"),
        std::string(R"({"schemaVersion":2,"layers":[],"manifests":[]})"),
        std::string(R"({"schemaVersion":2,"subject":{"digest":7}})"), std::string(100000, '[')}) {
    EXPECT_EQ(refused(text), "MANIFEST_INVALID") << text.substr(0, 80);
  }
  EXPECT_EQ(pushManifest("a", "x", manifestOf(Digest::of("missing"))).code(),
            "MANIFEST_BLOB_UNKNOWN");
  EXPECT_EQ(pushManifest("a", "-x", manifestOf(blob)).status, 400);
  EXPECT_EQ(pushManifest("a", std::string(129, 'x'), manifestOf(blob)).status, 400);

  // Exactly 4 MiB is taken, one byte more is not, told or not.
  std::string large = manifestOf(blob, R"(,"annotations":{"a":""})");
  large.insert(large.size() - 3, kMaxServedManifestBytes - large.size(), 'x');
  EXPECT_EQ(pushManifest("a", "large", large).status, 201);
  large.insert(large.size() - 3, 1, 'x');
  EXPECT_EQ(pushManifest("a", "large", large).status, 413);
  StringSource source(large);
  EXPECT_EQ(callFrom("PUT", "/v2/a/manifests/large", source, std::nullopt).status, 413);
}

TEST_F(ApiTest, IndexesNeedTheirManifests) {
  const Digest blob = pushBlob("a", "config");
  const std::string manifest = manifestOf(blob);
  const std::string index = R"({"schemaVersion":2,"manifests":[{"mediaType":")" +
                            std::string(kManifestType) + R"(","size":1,"digest":")" +
                            Digest::of(manifest).text() + "\"}]}";
  const auto put = [&] {
    return call("PUT", "/v2/a/manifests/multi", index, {{"content-type", kIndexType}});
  };
  EXPECT_EQ(put().code(), "MANIFEST_BLOB_UNKNOWN");
  pushManifest("a", Digest::of(manifest).text(), manifest);
  EXPECT_EQ(put().status, 201);
  EXPECT_EQ(call("GET", "/v2/a/manifests/multi").headers.at("Content-Type"), kIndexType);
}

TEST_F(ApiTest, Referrers) {
  const Digest blob = pushBlob("a", "config");
  const Digest subject = Digest::of("not there yet");
  const std::string with_subject =
      R"(,"subject":{"mediaType":"x/y","size":1,"digest":")" + subject.text() + "\"}";
  const std::string plain = manifestOf(blob, with_subject);
  const std::string typed =
      manifestOf(blob, with_subject + R"(,"artifactType":"a/sig","annotations":{"k":"v"})");
  const Answer put = pushManifest("a", Digest::of(plain).text(), plain);
  EXPECT_EQ(put.status, 201);
  EXPECT_EQ(put.headers.at("OCI-Subject"), subject.text());
  pushManifest("a", "sig", typed);

  const std::string url = "/v2/a/referrers/" + subject.text();
  const Answer all = call("GET", url);
  EXPECT_EQ(all.headers.at("Content-Type"), kIndexType);
  EXPECT_EQ(Json::parse(all.body)["manifests"].size(), 2u);
  const Answer some = call("GET", url + "?artifactType=a/sig");
  EXPECT_EQ(some.headers.at("OCI-Filters-Applied"), "artifactType");
  const Json found = Json::parse(some.body)["manifests"];
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0]["digest"], Digest::of(typed).text());
  EXPECT_EQ(found[0]["annotations"]["k"], "v");
  const Json by_config =
      Json::parse(call("GET", url + "?artifactType=application/vnd.test%2Bjson").body)["manifests"];
  EXPECT_EQ(by_config.size(), 1u);

  EXPECT_EQ(call("DELETE", "/v2/a/manifests/" + Digest::of(plain).text()).status, 202);
  EXPECT_EQ(Json::parse(call("GET", url).body)["manifests"].size(), 1u);
  EXPECT_EQ(call("GET", "/v2/nobody/referrers/" + subject.text()).status, 200);
  EXPECT_EQ(call("GET", "/v2/a/referrers/sha256:zz").status, 400);
}

TEST_F(ApiTest, TagsInPages) {
  EXPECT_EQ(call("GET", "/v2/a/tags/list").code(), "NAME_UNKNOWN");
  const std::string text = manifestOf(pushBlob("a", "config"));
  for (const char* tag : {"c", "a", "b", "B", "1.0"}) pushManifest("a", tag, text);
  const auto page = [&](const std::string& query) {
    return Json::parse(call("GET", "/v2/a/tags/list" + query).body)["tags"]
        .get<std::vector<std::string>>();
  };
  EXPECT_THAT(page(""), ElementsAre("1.0", "B", "a", "b", "c"));
  EXPECT_THAT(page("?n=2"), ElementsAre("1.0", "B"));
  EXPECT_THAT(page("?n=2&last=B"), ElementsAre("a", "b"));
  EXPECT_THAT(page("?last=aa"), ElementsAre("b", "c"));  // need not exist
  EXPECT_THAT(page("?n=0"), IsEmpty());
  EXPECT_THAT(page("?n=99999999999999999999999"), ElementsAre("1.0", "B", "a", "b", "c"));
  EXPECT_EQ(call("GET", "/v2/a/tags/list?n=2").headers.at("Link"),
            "</v2/a/tags/list?last=B&n=2>; rel=\"next\"");
  EXPECT_FALSE(call("GET", "/v2/a/tags/list?n=0").headers.contains("Link"));
  EXPECT_FALSE(call("GET", "/v2/a/tags/list?n=5").headers.contains("Link"));
  EXPECT_EQ(call("GET", "/v2/a/tags/list?n=-1").status, 400);
  EXPECT_EQ(call("GET", "/v2/a/tags/list?n=x").status, 400);
}

TEST_F(ApiTest, Catalog) {
  for (const char* name : {"b", "a/b", "a", "a-b/c"}) {
    pushManifest(name, "t", manifestOf(pushBlob(name, "config")));
  }
  EXPECT_EQ(Json::parse(call("GET", "/v2/_catalog").body)["repositories"],
            Json({"a", "a-b/c", "a/b", "b"}));
  const Answer page = call("GET", "/v2/_catalog?n=2");
  EXPECT_EQ(page.headers.at("Link"), "</v2/_catalog?last=a-b%2Fc&n=2>; rel=\"next\"");
}

TEST_F(ApiTest, WhatIsDisabledIs405) {
  const Digest blob = pushBlob("a", "config");
  pushManifest("a", "t", manifestOf(blob));
  Policy policy;
  policy.allow_delete = false;
  open(policy);
  EXPECT_EQ(call("DELETE", "/v2/a/manifests/t").status, 405);
  EXPECT_EQ(call("DELETE", "/v2/a/blobs/" + blob.text()).code(), "UNSUPPORTED");
  const std::string url = call("POST", "/v2/a/blobs/uploads/").headers.at("Location");
  EXPECT_EQ(call("DELETE", url).status, 204);  // giving up an upload is no deletion
  policy.allow_delete = true;
  policy.read_only = true;
  open(policy);
  EXPECT_EQ(call("POST", "/v2/a/blobs/uploads/").status, 405);
  EXPECT_EQ(pushManifest("a", "u", manifestOf(blob)).status, 405);
  EXPECT_EQ(call("GET", "/v2/a/manifests/t").status, 200);
}

TEST_F(ApiTest, OneServerPerFolder) {
  try {
    const RepositoryStore second(folder_.path());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kConflict);
    EXPECT_THAT(error.what(), HasSubstr("another hull-registry"));
  }
}

TEST(Route, Names) {
  for (const char* name : {"a", "0", "a/b/c", "a.b", "a_b", "a__b", "a-b", "a---b", "a/blobs/b"}) {
    EXPECT_TRUE(isRepositoryName(name)) << name;
  }
  for (const char* name : {"", "A", "a/", "/a", "a//b", "..", "a/../b", ".a", "a.", "a..b", "_a",
                           "a___b", "a._b", "-a", "a-", "a b", "a%2fb", "a\n"}) {
    EXPECT_FALSE(isRepositoryName(name)) << name;
  }
  EXPECT_TRUE(isRepositoryName(std::string(255, 'a')));
  EXPECT_FALSE(isRepositoryName(std::string(256, 'a')));
  EXPECT_TRUE(isTag("_x.Y-1"));
  for (const char* tag : {"", ".x", "-x", "a/b", "a:b", "a b"}) EXPECT_FALSE(isTag(tag)) << tag;
}

TEST(Route, Endpoints) {
  const Route upload = parseRoute("/v2/a/b/blobs/uploads/?mount=x&from=c%2Fd");
  EXPECT_EQ(upload.endpoint, Endpoint::kUploads);
  EXPECT_EQ(upload.repository, "a/b");
  EXPECT_EQ(upload.query.at("from"), "c/d");
  const Route odd = parseRoute("/v2/a/blobs/uploads/manifests/v1");
  EXPECT_EQ(odd.endpoint, Endpoint::kManifest);
  EXPECT_EQ(odd.repository, "a/blobs/uploads");
  EXPECT_EQ(parseRoute("/v2/a/tags/list?n=1").endpoint, Endpoint::kTags);
  EXPECT_EQ(parseRoute("/v2/a/blobs/sha256%3Aab").reference, "sha256:ab");
  for (const char* target : {"/v2/a", "/v2/a/b", "/v1/", "/v2/manifests/x", "", "/v2/a/b/c"}) {
    EXPECT_THROW(parseRoute(target), ApiError) << target;
  }
  const auto status = [](const std::string& target) {
    try {
      parseRoute(target);
    } catch (const ApiError& error) {
      return error.status();
    }
    return 200;
  };
  EXPECT_EQ(status("/v2/../manifests/x"), 400);
  EXPECT_EQ(status("/v2/%2e%2e/manifests/x"), 400);
  EXPECT_EQ(status("/v2/A/manifests/x"), 400);
  EXPECT_EQ(status("/v2/a/manifests/%00"), 400);
  EXPECT_EQ(status("/v2/a/blobs/uploads/nohex"), 404);
}

}  // namespace
}  // namespace hull::registry
