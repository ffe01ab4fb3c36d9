// Hull's client against Debian's docker-registry, where it is installed.
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "base/file.h"
#include "base/random.h"
#include "base/subprocess.h"
#include "image/store/image_store.h"
#include "image/store/testing/image_fixture.h"
#include "registry/client/client.h"
#include "tests/registry/scripted_server.h"

namespace hull::registry {
namespace {

using image::ImageStore;
using image::Reference;

constexpr const char* kProgram = "/usr/bin/docker-registry";
constexpr int kStartAttempts = 100;

TEST(DockerRegistry, PushAndPull) {
  if (!fileExists(kProgram)) GTEST_SKIP() << kProgram << " is not installed";
  const TemporaryDirectory folder("hull-docker-registry");
  // A port that was free a moment ago.
  const std::string address =
      testing::ScriptedServer([](const testing::SeenRequest&) { return ""; }).registry();
  const std::string config = folder.path() + "/config.yml";
  writeFileAtomic(config, "version: 0.1\nstorage: {filesystem: {rootdirectory: " + folder.path() +
                              "/data}}\nhttp: {addr: \"" + address + "\"}\n");
  SubprocessOptions options;
  options.arguments = {kProgram, "serve", config};
  Subprocess server(options);

  ImageStore mine(folder.path() + "/mine");
  const Reference tag = Reference::parse(address + "/team/app:1");
  image::testing::MemoryBlobs blobs;
  const auto made = image::testing::makeImage(
      blobs, {image::testing::TarBuilder().file("data", randomHex(1 << 20)).end()});
  const auto image = mine.add(made.manifest_text, blobs, {tag});
  for (int attempt = 0;; ++attempt) {
    try {
      login(tag.registry, {}, {});
      break;
    } catch (const Error&) {
      ASSERT_LT(attempt, kStartAttempts) << "docker-registry does not answer";
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
  EXPECT_EQ(push(mine, tag, {}, {}, {}).manifest, image.manifest);
  ImageStore other(folder.path() + "/other");
  EXPECT_EQ(pull(other, tag, image::Platform{}, {}, {}, {}).image.id, image.id);
  EXPECT_EQ(resolve(tag, {}, {}).digest, image.manifest);

  // Into another repository of it, by a mount.
  const Reference second = Reference::parse(address + "/team/second:1");
  mine.tag(image.id, second);
  push(mine, second, {}, {}, {});
  EXPECT_EQ(pull(other, second, image::Platform{}, {}, {}, {}).image.id, image.id);
  server.kill(SIGTERM);
  server.wait();
}

}  // namespace
}  // namespace hull::registry
