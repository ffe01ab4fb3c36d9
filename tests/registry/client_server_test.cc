// The registry client against hull-registry's server in this process, over loopback.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "base/file.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/subprocess.h"
#include "image/store/image_store.h"
#include "image/store/testing/image_fixture.h"
#include "registry/client/client.h"
#include "registry/client/transfer.h"
#include "registry/server/server.h"

namespace hull::registry {
namespace {

using image::Digest;
using image::ImageStore;
using image::Platform;
using image::Reference;
using image::testing::MemoryBlobs;
using image::testing::TarBuilder;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

// bcrypt of "secret", cost 4.
constexpr const char* kHtpasswd =
    "ann:$2y$04$u7lQWPQSk2fIFUntYl/E9.qmvcmdyeI0wgkD0r7XgHYeVKYpn0gTS\n";

class ClientServer : public ::testing::Test {
 protected:
  void serve(ServerOptions options = {}) {
    options.listen = "127.0.0.1:0";
    options.root = folder_.path() + "/registry";
    server_ = std::make_unique<Server>(options);
  }

  Reference name(const std::string& repository) const {
    return Reference::parse("localhost:" + std::to_string(server_->port()) + "/" + repository);
  }

  // An image of `layers` random layers in `store`, named `as`.
  image::Image make(ImageStore& store, const Reference& as, int layers = 2) {
    MemoryBlobs blobs;
    std::vector<std::string> tars;
    for (int i = 0; i < layers; ++i) {
      tars.push_back(TarBuilder().file("file" + std::to_string(i), randomHex(200000)).end());
    }
    const auto made = image::testing::makeImage(blobs, tars);
    return store.add(made.manifest_text, blobs, {as});
  }

  std::unique_ptr<Transfer> call(const std::string& method, const std::string& target,
                                 const std::string& body = {},
                                 std::vector<std::string> headers = {}) {
    TransferRequest request;
    request.method = method;
    request.url = Url::parse("http://" + server_->address() + target);
    request.body = body;
    request.headers = std::move(headers);
    return std::make_unique<Transfer>(request, options_);
  }

  TemporaryDirectory folder_{"hull-registry-test"};
  std::unique_ptr<Server> server_;
  ClientOptions options_;
};

TEST_F(ClientServer, PushedImageComesBackTheSame) {
  serve();
  ImageStore mine(folder_.path() + "/mine");
  const Reference tag = name("team/app:1.0");
  const auto image = make(mine, tag);

  std::mutex mutex;
  std::vector<std::string> statuses;
  const auto progress = [&](const image::LayerProgress& step) {
    const std::lock_guard lock(mutex);
    statuses.push_back(step.status);
  };
  const PushResult pushed = push(mine, tag, {}, options_, progress);
  EXPECT_EQ(pushed.manifest, image.manifest);
  EXPECT_THAT(statuses, Contains("Preparing"));
  EXPECT_THAT(statuses, Contains("Pushing"));
  EXPECT_THAT(statuses, Contains("Pushed"));
  EXPECT_EQ(mine.get(tag.text()).digests.size(), 1u);

  statuses.clear();
  push(mine, tag, {}, options_, progress);
  EXPECT_THAT(statuses, Contains("Layer already exists"));
  EXPECT_THAT(statuses, Not(Contains("Pushed")));

  ImageStore other(folder_.path() + "/other");
  statuses.clear();
  const PullResult pulled = pull(other, tag, Platform{}, {}, options_, progress);
  EXPECT_EQ(pulled.image.id, image.id);
  EXPECT_EQ(pulled.image.manifest, image.manifest);
  EXPECT_FALSE(pulled.up_to_date);
  EXPECT_THAT(statuses, Contains("Pull complete"));
  EXPECT_EQ(other.get(tag.text()).id, image.id);
  EXPECT_TRUE(pull(other, tag, Platform{}, {}, options_, {}).up_to_date);

  const auto found = resolve(tag, {}, options_);
  EXPECT_EQ(found.digest, image.manifest);
  EXPECT_EQ(found.size, pushed.manifest_bytes);

  ImageStore third(folder_.path() + "/third");
  Reference by_digest = tag;
  by_digest.tag.clear();
  by_digest.digest = image.manifest;
  EXPECT_EQ(pull(third, by_digest, Platform{}, {}, options_, {}).image.id, image.id);
}

TEST_F(ClientServer, LayersKnownElsewhereAreMounted) {
  serve();
  ImageStore store(folder_.path() + "/mine");
  const auto image = make(store, name("base"));
  push(store, name("base"), {}, options_, {});
  store.tag(image.id, name("derived"));
  std::mutex mutex;
  std::vector<std::string> statuses;
  push(store, name("derived"), {}, options_, [&](const image::LayerProgress& step) {
    const std::lock_guard lock(mutex);
    statuses.push_back(step.status);
  });
  EXPECT_THAT(statuses, Contains("Mounted from base"));
  EXPECT_THAT(statuses, Not(Contains("Pushed")));
  ImageStore other(folder_.path() + "/other");
  EXPECT_EQ(pull(other, name("derived"), Platform{}, {}, options_, {}).image.id, image.id);
}

TEST_F(ClientServer, SeveralPushesAtATime) {
  serve();
  ImageStore store(folder_.path() + "/mine");
  constexpr int kPushes = 4;
  std::vector<image::Image> images;
  for (int i = 0; i < kPushes; ++i) images.push_back(make(store, name("p" + std::to_string(i)), 3));
  std::vector<std::thread> threads;
  for (int i = 0; i < kPushes; ++i) {
    threads.emplace_back([&, i] { push(store, name("p" + std::to_string(i)), {}, options_, {}); });
    threads.emplace_back([&] {
      try {  // the same image from two sides
        push(store, name("p0"), {}, options_, {});
      } catch (const Error& error) {
        ADD_FAILURE() << error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ImageStore other(folder_.path() + "/other");
  for (int i = 0; i < kPushes; ++i) {
    EXPECT_EQ(pull(other, name("p" + std::to_string(i)), Platform{}, {}, options_, {}).image.id,
              images[static_cast<size_t>(i)].id);
  }
}

TEST_F(ClientServer, DamagedBlobIsRefusedAndLeavesNothing) {
  serve();
  ImageStore mine(folder_.path() + "/mine");
  const Reference tag = name("app");
  const auto image = make(mine, tag, 1);
  push(mine, tag, {}, options_, {});
  const Digest layer = image.layer_blobs[0].digest;
  const std::string path = folder_.path() + "/registry/blobs/sha256/" + std::string(layer.hex());
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-3, std::ios::end);
  file.put('x');
  file.close();

  ImageStore other(folder_.path() + "/other");
  try {
    pull(other, tag, Platform{}, {}, options_, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCorrupt) << error.what();
    EXPECT_THAT(error.what(), HasSubstr("pull localhost:"));
  }
  EXPECT_FALSE(other.find(tag.text()));
  EXPECT_FALSE(other.blobs().has(layer));
}

TEST_F(ClientServer, WhatIsNotThere) {
  serve();
  ImageStore store(folder_.path() + "/mine");
  try {
    pull(store, name("nothing:here"), Platform{}, {}, options_, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("manifest for localhost:"));
    EXPECT_THAT(error.what(), HasSubstr("nothing:here not found: "));
  }
  try {
    push(store, name("nothing"), {}, options_, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr("does not exist locally"));
  }
  const Reference gone = name("x");
  server_.reset();
  try {
    pull(store, gone, Platform{}, {}, options_, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnavailable);
    EXPECT_EQ(error.what(), "pull " + gone.familiar() + ": connect to " + gone.registry +
                                ": Connection refused (is the registry running?)");
  }
}

TEST_F(ClientServer, PasswordsAreAskedFor) {
  writeFileAtomic(folder_.path() + "/htpasswd", kHtpasswd);
  ServerOptions options;
  options.policy.access.htpasswd = folder_.path() + "/htpasswd";
  serve(options);
  ImageStore store(folder_.path() + "/mine");
  make(store, name("app"));
  const Credentials ann{"ann", "secret", ""};
  const Credentials wrong{"ann", "guess", ""};
  EXPECT_EQ(call("GET", "/v2/")->head().status, 401);
  try {
    push(store, name("app"), {}, options_, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnauthorized);
    EXPECT_THAT(error.what(), HasSubstr("may require 'hull login'"));
  }
  try {
    login(name("app").registry, wrong, options_);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnauthorized);
    EXPECT_THAT(error.what(), Not(HasSubstr("guess")));
  }
  EXPECT_EQ(login(name("app").registry, ann, options_), "");
  push(store, name("app"), ann, options_, {});
  ImageStore other(folder_.path() + "/other");
  EXPECT_THROW(pull(other, name("app"), Platform{}, wrong, options_, {}), Error);
  pull(other, name("app"), Platform{}, ann, options_, {});
}

TEST_F(ClientServer, LoopbackAddressReplacesTheNameOnly) {
  serve();
  ImageStore store(folder_.path() + "/mine");
  const Reference tag = name("app");
  make(store, tag);
  options_.loopback_address = "127.0.0.1";
  push(store, tag, {}, options_, {});
  options_.loopback_address = "127.0.0.3";  // nobody listens there
  EXPECT_THROW(push(store, tag, {}, options_, {}), Error);
}

TEST_F(ClientServer, TlsNeedsATrustedCertificate) {
  const std::string key = folder_.path() + "/key.pem";
  const std::string certificate = folder_.path() + "/certificate.pem";
  checkCommand({"openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext",
                "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate});
  ServerOptions options;
  options.tls_certificate = certificate;
  options.tls_key = key;
  serve(options);
  ImageStore store(folder_.path() + "/mine");
  const Reference tag = name("app");
  const auto image = make(store, tag);
  try {
    push(store, tag, {}, options_, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnavailable);
    EXPECT_THAT(error.what(), HasSubstr("verify the certificate of localhost:"));
    EXPECT_THAT(error.what(), HasSubstr("to trust its CA"));
  }
  options_.ca_bundle = certificate;
  push(store, tag, {}, options_, {});
  ImageStore other(folder_.path() + "/other");
  EXPECT_EQ(pull(other, tag, Platform{}, {}, options_, {}).image.id, image.id);
}

TEST_F(ClientServer, StartErrorsSayWhatIsWrong) {
  serve();
  const auto error_of = [&](ServerOptions options) -> std::string {
    options.root = folder_.path() + "/second";
    try {
      const Server second(options);
      return "none";
    } catch (const Error& error) {
      return error.what();
    }
  };
  ServerOptions options;
  options.listen = server_->address();
  EXPECT_THAT(error_of(options), HasSubstr("Address already in use (stop what uses it"));
  options.listen = "5000";
  EXPECT_THAT(error_of(options), HasSubstr("expected ADDRESS:PORT"));
  options.listen = "127.0.0.1:0";
  options.tls_certificate = "/nonexistent";
  EXPECT_THAT(error_of(options), HasSubstr("both a certificate and a key"));
  options.tls_key = "/nonexistent";
  EXPECT_THAT(error_of(options), HasSubstr("read certificate /nonexistent"));
}

TEST_F(ClientServer, BodiesThatNobodyReadsEndTheConnection) {
  serve();
  // Refused before the body is read: the answer arrives all the same.
  EXPECT_EQ(call("PUT", "/v2/UPPER/manifests/x", std::string(4 << 20, 'x'))->head().status, 400);
  EXPECT_EQ(call("PUT", "/v2/a/manifests/x", std::string(5 << 20, 'x'))->head().status, 413);
}

TEST_F(ClientServer, MalformedRequestsAreAnswered400) {
  serve();
  EXPECT_EQ(call("GET", "/v2/%zz/tags/list")->head().status, 400);
  EXPECT_EQ(call("GET", "/v2/a/tags/list", {}, {"X: " + std::string(80 << 10, 'x')})->head().status,
            431);
}

TEST_F(ClientServer, CancelledPullStops) {
  serve();
  ImageStore store(folder_.path() + "/mine");
  make(store, name("app"));
  push(store, name("app"), {}, options_, {});
  ImageStore other(folder_.path() + "/other");
  options_.cancelled = [] { return true; };
  try {
    pull(other, name("app"), Platform{}, {}, options_, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kCancelled);
  }
}

}  // namespace
}  // namespace hull::registry
