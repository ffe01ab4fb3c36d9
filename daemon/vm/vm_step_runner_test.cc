// RUN steps against a stand-in VMM (testing/fake_vmm.cc).
#include "daemon/vm/vm_step_runner.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/stream.h"
#include "daemon/vm/guest_files.h"

namespace hull::engine {
namespace {

using testing::HasSubstr;
using testing::Not;

class StepRunnerTest : public testing::Test {
 protected:
  StepRunnerTest() {
    VmResources resources;
    resources.vmm_program = HULL_FAKE_VMM;
    resources.kernel = root_.path() + "/kernel";
    resources.initramfs = resources.kernel;
    resources.template_disk = root_.path() + "/template";
    writeFull(openFile(resources.kernel, O_WRONLY | O_CREAT).get(), "serve");
    VmStepRunner::Options options;
    options.work_directory = root_.path() + "/work";
    options.writable_bytes = 64 << 20;
    options.cache_directory = root_.path() + "/caches";
    options.cache_bytes = 64 << 20;
    runner_ = std::make_unique<VmStepRunner>(
        resources, nullptr,
        [this](const std::vector<image::Digest>&) {
          image::RootDisk disk;
          disk.disk_bytes = 512;
          disk.segments = {};
          ++disks_;
          return disk;
        },
        options);
  }
  static build::RunStep step(std::vector<std::string> arguments) {
    build::RunStep made;
    made.arguments = std::move(arguments);
    return made;
  }

  TemporaryDirectory root_{"hull-step-test"};
  std::unique_ptr<VmStepRunner> runner_;
  int disks_ = 0;
};

TEST_F(StepRunnerTest, StepsOfAStageShareAVmAndTellOutputAndExit) {
  const auto session = runner_->open({}, {});
  std::string out, err;
  const build::OutputFunction collect = [&](build::OutputStream stream, std::string_view bytes) {
    (stream == build::OutputStream::kStdout ? out : err) += bytes;
  };
  EXPECT_EQ(session->run(step({"print", "hello\n", "careful\n", "0"}), collect).exit_code, 0);
  EXPECT_EQ(session->run(step({"print", "again\n", "", "3"}), collect).exit_code, 3);
  EXPECT_EQ(out, "hello\nagain\n");
  EXPECT_EQ(err, "careful\n");
  EXPECT_EQ(disks_, 1);
}

TEST_F(StepRunnerTest, LayersAreReadAndApplied) {
  const auto session = runner_->open({}, {});
  StringSink tar;
  session->readLayer(tar);
  EXPECT_EQ(tar.text, "layer 1");
  StringSource layer("a layer made on the host");
  EXPECT_NO_THROW(session->applyLayer(layer));
}

TEST_F(StepRunnerTest, ProgramThatDoesNotExistIsNotFound) {
  const auto session = runner_->open({}, {});
  try {
    session->run(step({"missing"}), [](build::OutputStream, std::string_view) {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
  }
}

TEST_F(StepRunnerTest, InputIsFedEvenWhenNobodyReadsIt) {
  const auto session = runner_->open({}, {});
  build::RunStep made = step({"print", "", "", "0"});
  made.stdin_text = std::string(4 << 20, 'i');
  EXPECT_EQ(session->run(made, [](build::OutputStream, std::string_view) {}).exit_code, 0);
}

TEST_F(StepRunnerTest, CancelEndsARunningStep) {
  const auto session = runner_->open({}, {});
  std::thread canceller([&] { session->cancel(); });
  EXPECT_EQ(session->run(step({"sleep"}), [](build::OutputStream, std::string_view) {}).exit_code,
            137);
  canceller.join();
  EXPECT_EQ(session->run(step({"print", "", "", "0"}), [](build::OutputStream, std::string_view) {})
                .exit_code,
            137);
}

TEST_F(StepRunnerTest, VmThatEndsInAStepIsAnErrorAndLeavesNothing) {
  {
    const auto session = runner_->open({}, {});
    EXPECT_THROW(session->run(step({"die"}), [](build::OutputStream, std::string_view) {}), Error);
  }
  EXPECT_TRUE(std::filesystem::is_empty(root_.path() + "/work"));
}

TEST_F(StepRunnerTest, MountsBecomeTreesDisksAndFiles) {
  build::SessionOptions options;
  options.caches = {{"apt", false}, {"npm", false}};
  const auto session = runner_->open({}, options);
  build::RunMount tree, cache, secret;
  tree.kind = build::RunMount::Kind::kTree;
  tree.target = "/src";
  tree.read_only = true;
  tree.tree_key = "k";
  int streamed = 0;
  tree.tree = [&](Sink& tar) {
    ++streamed;
    tar.write("a tar");
  };
  cache.kind = build::RunMount::Kind::kCache;
  cache.target = "/cache";
  cache.cache = {"npm", false};
  secret.kind = build::RunMount::Kind::kFile;
  secret.target = "/s";
  secret.content = "hush";
  build::RunStep made = step({"mounts", "", "", "0"});
  made.mounts = {tree, cache, secret};
  for (int i = 0; i < 2; ++i) {
    std::string out;
    session->run(made, [&](build::OutputStream, std::string_view bytes) { out += bytes; });
    EXPECT_EQ(out, "1 tree-1 /src ro\n2 /dev/vdd /cache\n3 hush /s\n");
  }
  EXPECT_EQ(streamed, 1);
}

TEST_F(StepRunnerTest, ACacheGetsItsInitialContentsOnceAndAPrivateOneItsOwn) {
  int streamed = 0;
  build::RunMount cache;
  cache.kind = build::RunMount::Kind::kCache;
  cache.target = "/cache";
  cache.tree = [&](Sink& tar) {
    ++streamed;
    tar.write("a tar");
  };
  const auto use = [&](build::StageSession& session, const build::MountCache& which) {
    cache.cache = which;
    build::RunStep made = step({"mounts", "", "", "0"});
    made.mounts = {cache};
    session.run(made, [](build::OutputStream, std::string_view) {});
  };
  build::SessionOptions options;
  options.caches = {{"c", false}};
  const auto first = runner_->open({}, options);
  use(*first, {"c", false});
  use(*first, {"c", false});
  EXPECT_EQ(streamed, 1);
  build::SessionOptions of_its_own;
  of_its_own.caches = {{"c", true}};
  const auto second = runner_->open({}, of_its_own);
  use(*second, {"c", true});
  use(*second, {"c", true});
  EXPECT_EQ(streamed, 2);
}

TEST_F(StepRunnerTest, ACacheIsUsedByOneSessionAtATimeAndCanBeRemovedAfterwards) {
  build::SessionOptions options;
  options.caches = {{"c", false}};
  auto first = runner_->open({}, options);
  EXPECT_FALSE(first->contended());
  EXPECT_EQ(runner_->removeMountCache("c"), 0u);
  std::promise<void> waiting;
  bool told = false;
  options.check = [&] {
    if (!std::exchange(told, true)) waiting.set_value();
  };
  std::unique_ptr<build::StageSession> second;
  std::thread other([&] { second = runner_->open({}, options); });
  waiting.get_future().wait();
  first.reset();
  other.join();
  ASSERT_TRUE(second);
  build::SessionOptions of_its_own;
  of_its_own.caches = {{"c", true}};
  EXPECT_TRUE(runner_->open({}, of_its_own));  // does not wait
  second.reset();
  ASSERT_EQ(runner_->mountCaches().size(), 1u);
  EXPECT_EQ(runner_->mountCaches()[0].id, "c");
  EXPECT_GT(runner_->removeMountCache("c"), 0u);
  EXPECT_TRUE(runner_->mountCaches().empty());
}

TEST_F(StepRunnerTest, WaitingForACacheCanBeCancelled) {
  build::SessionOptions options;
  options.caches = {{"c", false}};
  const auto first = runner_->open({}, options);
  options.check = [] { throw Error(ErrorKind::kCancelled, "build cancelled"); };
  EXPECT_THROW(runner_->open({}, options), Error);
}

TEST(GuestFiles, HostsAreDockers) {
  const std::string text = hostsFile(
      "box", "172.17.0.2", "172.17.0.1",
      {"db:10.0.0.9", "host.docker.internal:host-gateway", "six:fe80::1", "seven=[2001:db8::1]"});
  EXPECT_THAT(text, HasSubstr("127.0.0.1\tlocalhost\n"));
  EXPECT_THAT(text, HasSubstr("172.17.0.2\tbox\n"));
  EXPECT_THAT(text, HasSubstr("10.0.0.9\tdb\n"));
  EXPECT_THAT(text, HasSubstr("172.17.0.1\thost.docker.internal\n"));
  EXPECT_THAT(text, HasSubstr("fe80::1\tsix\n"));
  EXPECT_THAT(text, HasSubstr("2001:db8::1\tseven\n"));
  EXPECT_THAT(hostsFile("box", "", "", {"gw:host-gateway"}), Not(HasSubstr("gw")));
}

TEST(GuestFiles, NoValueAddsLines) {
  for (const char* bad :
       {"", "db", ":1.2.3.4", "db:", "db:1.2.3", "a\nb:1.2.3.4", "db:1.2.3.4\n6.6.6.6 bank"}) {
    EXPECT_THROW(hostsFile("box", "", "", {bad}), Error) << bad;
  }
  EXPECT_THROW(resolvConf({.servers = {"9.9.9.9\nnameserver 6.6.6.6"}}), Error);
  EXPECT_EQ(resolvConf({.servers = {"9.9.9.9"}, .search = {"a.org", "b\nnameserver 6.6.6.6"}}),
            "nameserver 9.9.9.9\nsearch a.org\n");
}

TEST(GuestFiles, WithoutAServerTheImagesResolverStays) {
  EXPECT_EQ(resolvConf({.search = {"a.org"}}), "");
}

}  // namespace
}  // namespace hull::engine
