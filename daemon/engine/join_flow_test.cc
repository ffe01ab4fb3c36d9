// Containers in another one's machine through the whole engine, over machines of local processes.
#include "daemon/testing/engine_flow.h"
#include "daemon/vm/seat.h"

namespace hull::engine {
namespace {

using testing::EngineFlow;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class JoinFlowTest : public EngineFlow {
 protected:
  std::shared_ptr<Container> join(const std::string& script, const std::string& name = "side",
                                  const std::string& host_config = "",
                                  const std::string& whom = "box") {
    return create(script,
                  R"(,"HostConfig":{"NetworkMode":"container:)" + whom + "\"" + host_config + "}",
                  name);
  }
  // One that runs until it is stopped, in the machine of "box".
  std::shared_ptr<Container> startJoined(const std::string& name = "side",
                                         const std::string& host_config = "") {
    const auto joined = join("sleep 1000", name, host_config);
    containers().start(joined);
    return joined;
  }
  void startBox(const std::string& more = "") {
    containers().start(create("sleep 1000", R"(,"StopSignal":"KILL")" + more));
  }
  std::shared_ptr<Container> side() { return containers().get("side"); }
  void awaitEnd(const std::shared_ptr<Container>& container) {
    while (container->state().running()) std::this_thread::yield();
    const auto settled = container->operation();  // its end has been dealt with
  }
};

TEST_F(JoinFlowTest, ItRunsInTheOtherOnesMachineAndEndsAlone) {
  startBox();
  const auto joined = join("echo hello; exit 3");
  EXPECT_THAT(joined->record().documents.host_config,
              HasSubstr("\"container:" + box()->id() + "\""));
  containers().start(joined);
  EXPECT_EQ(exitOf(joined), 3);
  EXPECT_EQ(logOf(*joined), "hello\n");
  awaitEnd(joined);
  EXPECT_TRUE(box()->state().running());
  EXPECT_EQ(host_.addedDisks(box()->vmFolder()), 0u);
  containers().start(joined);  // once more
  EXPECT_EQ(exitOf(joined), 3);
  containers().remove(box(), true);
}

TEST_F(JoinFlowTest, ItHasItsMachinesNameAndSizeAndNoNetworkOfItsOwn) {
  startBox(R"(,"Hostname":"front")");
  const auto joined = startJoined();
  EXPECT_EQ(joined->hostname(), "front");
  EXPECT_EQ(joined->state().vm_memory_mib, box()->state().vm_memory_mib);
  EXPECT_EQ(joined->state().pid, box()->state().pid);
  EXPECT_TRUE(joined->state().endpoints.empty());
  EXPECT_EQ(host_.addedDisks(box()->vmFolder()), 1u);
  containers().remove(box(), true);
}

TEST_F(JoinFlowTest, StoppingItLeavesTheMachineRunning) {
  startBox();
  const auto joined = startJoined("side", R"(,"RestartPolicy":{"Name":"unless-stopped"})");
  containers().stop(joined, {});
  awaitEnd(joined);
  EXPECT_EQ(joined->state().status, Status::kExited);
  EXPECT_TRUE(box()->state().running());
  EXPECT_EQ(host_.addedDisks(box()->vmFolder()), 0u);
  containers().remove(joined, false);
  containers().remove(box(), true);
}

TEST_F(JoinFlowTest, ItEndsWithTheMachine) {
  startBox();
  const auto joined = startJoined();
  containers().stop(box(), {});
  EXPECT_EQ(exitOf(joined), 137);
  awaitEnd(joined);
  EXPECT_FALSE(seatHost(joined->vmFolder()));
}

TEST_F(JoinFlowTest, WhoStartsTheMachineAgainFindsItEnded) {
  startBox();
  const auto joined = startJoined();
  for (int round = 0; round < 5; ++round) {
    containers().restart(box(), {});
    EXPECT_FALSE(joined->run());
    EXPECT_TRUE(containers().start(joined));
  }
  containers().remove(box(), true);
}

TEST_F(JoinFlowTest, TheMachinesCrashEndsBoth) {
  startBox();
  const auto joined = startJoined();
  host_.crash(box()->vmFolder());
  EXPECT_EQ(exitOf(joined), 137);
  EXPECT_EQ(exitOf(box()), 137);
}

TEST_F(JoinFlowTest, RemovalByForceTakesItOutOfTheMachine) {
  startBox();
  containers().remove(startJoined(), true);
  EXPECT_EQ(host_.addedDisks(box()->vmFolder()), 0u);
  EXPECT_TRUE(box()->state().running());
  containers().remove(box(), true);
}

TEST_F(JoinFlowTest, PausingItFreezesItAlone) {
  startBox();
  const auto joined = startJoined();
  containers().pause(joined);
  EXPECT_EQ(joined->state().status, Status::kPaused);
  EXPECT_EQ(box()->state().status, Status::kRunning);
  containers().unpause(joined);
  EXPECT_EQ(joined->state().status, Status::kRunning);
  containers().pause(box());
  EXPECT_THAT(refusal(ErrorKind::kConflict, [&] { containers().start(join("true", "late")); }),
              HasSubstr("it is paused"));
  containers().unpause(box());
  containers().remove(box(), true);
}

TEST_F(JoinFlowTest, WhoJoinsWhatDoesNotRunIsTold) {
  const auto owner = create("sleep 1000");
  const auto joined = join("true");
  EXPECT_EQ(refusal(ErrorKind::kConflict, [&] { containers().start(joined); }),
            "cannot join network of a non running container: " + owner->id());
  EXPECT_EQ(refusal([&] { join("true", "lost", "", "nobody"); }),
            "joining network namespace of container: No such container: nobody");
  containers().remove(owner, false);
  EXPECT_EQ(refusal([&] { containers().start(joined); }),
            "joining network namespace of container: No such container: " + owner->id());
}

TEST_F(JoinFlowTest, ItIsInNoOtherNetwork) {
  startBox();
  const auto joined = startJoined();
  EXPECT_THAT(refusal(ErrorKind::kConflict,
                      [&] { containers().connect(joined, engine_->networks().get("bridge"), {}); }),
              HasSubstr("container sharing network namespace with another container or host"));
  containers().remove(box(), true);
}

TEST_F(JoinFlowTest, OneWhoJoinsAJoinedOneOutlivesIt) {
  startBox();
  const auto middle = startJoined("middle");
  const auto last = join("sleep 1000", "last", "", "middle");
  containers().start(last);
  EXPECT_EQ(seatHost(last->vmFolder()), box()->id());
  EXPECT_EQ(host_.addedDisks(box()->vmFolder()), 2u);
  containers().remove(middle, true);
  EXPECT_TRUE(last->state().running());
  containers().stop(box(), {});
  EXPECT_EQ(exitOf(last), 137);
}

TEST_F(JoinFlowTest, TheNextEngineTakesBothOver) {
  startBox();
  startJoined();
  reboot();
  EXPECT_TRUE(box()->state().running());
  ASSERT_TRUE(side()->state().running());
  ASSERT_TRUE(side()->run());
  EXPECT_EQ(side()->hostname(), box()->hostname());
  containers().stop(side(), {});
  awaitEnd(side());
  EXPECT_EQ(host_.addedDisks(box()->vmFolder()), 0u);
  EXPECT_TRUE(box()->state().running());
  containers().remove(box(), true);
}

TEST_F(JoinFlowTest, AnEndThatNoEngineSawIsNoticedByTheNext) {
  startBox();
  startJoined();
  const auto ending = join("while ! test -e go; do sleep 0.01; done; exit 4", "ending");
  containers().start(ending);
  const std::string go = box()->vmFolder() + "/seats/" + ending->id() + "/rootfs/go";
  engine_.reset();
  writeFileAtomic(go, "");
  boot();
  EXPECT_EQ(exitOf(containers().get("ending")), 4);
  EXPECT_TRUE(side()->state().running());
  const std::string machine = box()->vmFolder();
  engine_.reset();
  host_.crash(machine);
  boot();
  EXPECT_EQ(exitOf(side()), 137);
  EXPECT_EQ(side()->state().status, Status::kExited);
}

TEST_F(JoinFlowTest, ItsRestartPolicyWaitsForTheMachine) {
  startBox();
  const auto joined = startJoined("side", R"(,"RestartPolicy":{"Name":"always"})");
  containers().stop(box(), {});
  while (joined->state().restarts < 2) std::this_thread::yield();  // in vain
  EXPECT_FALSE(joined->state().running());
  containers().start(box());
  while (!joined->state().running()) std::this_thread::yield();
  containers().remove(box(), true);
  containers().remove(joined, true);
}

TEST_F(JoinFlowTest, ItsVolumesAreDisks) {
  startBox();
  const auto joined = create("true",
                             R"(,"Volumes":{"/own":{}},"HostConfig":{)"
                             R"("NetworkMode":"container:box","Binds":["data:/data"]})",
                             "side");
  ASSERT_THAT(joined->mounts(), SizeIs(2));
  for (const MountPoint& mount : joined->mounts()) EXPECT_EQ(mount.driver, kDiskDriver);
  containers().start(joined);
  EXPECT_EQ(exitOf(joined), 0);
  const auto refused = [&](const std::string& bind) {
    return refusal(ErrorKind::kNotSupported,
                   [&] { join("true", "other", R"(,"Binds":[")" + bind + "\"]"); });
  };
  EXPECT_THAT(refused("/:/host"), HasSubstr("shared folders are fixed"));
  containers().volumes().create({"folder", "local", {}, {}});
  EXPECT_THAT(refused("folder:/x"), HasSubstr("mount volume folder at /x"));
  EXPECT_THROW(containers().get("other"), Error);
  const auto asks = join("true", "asks", R"(,"Binds":["/var/run/docker.sock:/run/engine"])");
  EXPECT_TRUE(asks->mounts().at(0).engine);  // no folder
  containers().remove(box(), true);
}

TEST_F(JoinFlowTest, WhatBelongsToTheMachineIsRefused) {
  startBox();
  for (const char* option :
       {R"(,"CpusetCpus":"0")", R"(,"BlkioDeviceReadBps":[{"Path":"/dev/sda","Rate":1048576}])"}) {
    EXPECT_THAT(refusal(ErrorKind::kNotSupported, [&] { join("true", "side", option); }),
                HasSubstr("both run in one virtual machine"))
        << option;
  }
  containers().remove(box(), true);
}

}  // namespace
}  // namespace hull::engine
