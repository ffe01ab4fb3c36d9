// What the engine does by itself for a container's sake: health checks, restarts, logs.
#include "daemon/engine/health.h"
#include "daemon/testing/engine_flow.h"

#include "daemon/vm/log_segments.h"

namespace hull::engine {
namespace {

using testing::EngineFlow;
using ::testing::HasSubstr;

class LifecycleFlowTest : public EngineFlow {
 protected:
  void awaitHealth(const std::shared_ptr<Container>& container, HealthStatus status) {
    while (container->state().health.status != status) std::this_thread::yield();
  }
  // Whether there was such an event or one comes: a state can be seen a synced write before its
  // event is published.
  bool awaitAction(std::string_view action) {
    constexpr int64_t kPatienceNs = 30'000'000'000;
    const int64_t until_ns = nowNs() + kPatienceNs;
    const auto subscription = engine_->events().subscribe(1);
    while (const auto event = subscription->next(until_ns)) {
      if (event->action == action) return true;
    }
    return false;
  }
};

constexpr const char* kProbed =
    R"(,"Healthcheck":{"Test":["CMD-SHELL","echo probed; test -e well"],)"
    R"("Interval":10000000,"Retries":2})";

TEST_F(LifecycleFlowTest, HealthFollowsTheProbesAndOutlivesTheEngine) {
  const auto container = create("sleep 1000", kProbed);
  EXPECT_EQ(container->state().health.status, HealthStatus::kNone);
  containers().start(container);
  awaitHealth(container, HealthStatus::kUnhealthy);
  const HealthState sick = container->state().health;
  EXPECT_GE(sick.failing_streak, 2);
  EXPECT_EQ(sick.probes.back().exit_code, 1);
  EXPECT_EQ(sick.probes.back().output, "probed\n");
  EXPECT_TRUE(awaitAction("health_status: unhealthy"));
  reboot();
  EXPECT_EQ(box()->state().health.status, HealthStatus::kUnhealthy);
  writeFileAtomic(box()->vmFolder() + "/rootfs/well", "");
  awaitHealth(box(), HealthStatus::kHealthy);
  EXPECT_EQ(box()->state().health.failing_streak, 0);
  // Probes leave no execs behind.
  EXPECT_LE(engine_->execs().idsOf(box()->id()).size(), 1u);
  containers().remove(box(), true);
}

TEST_F(LifecycleFlowTest, AProbeThatTakesTooLongFails) {
  const auto container = create(
      "sleep 1000",
      R"(,"Healthcheck":{"Test":["CMD","sleep","1000"],"Interval":1000000,"Timeout":5000000,)"
      R"("Retries":1})");
  containers().start(container);
  awaitHealth(container, HealthStatus::kUnhealthy);
  EXPECT_EQ(container->state().health.probes.back().exit_code, kProbeTimedOut);
  EXPECT_THAT(container->state().health.probes.back().output, HasSubstr("exceeded timeout (5ms)"));
  containers().remove(container, true);
}

TEST_F(LifecycleFlowTest, AProbeThatIsNotThereFails) {
  const auto container = create(
      "sleep 1000", R"(,"Healthcheck":{"Test":["CMD","/no/such"],"Interval":1000000,"Retries":1})");
  containers().start(container);
  awaitHealth(container, HealthStatus::kUnhealthy);
  EXPECT_THAT(container->state().health.probes.back().output,
              HasSubstr("no such file or directory"));
  containers().remove(container, true);
}

TEST_F(LifecycleFlowTest, AStopByHandLastsAsItsPolicySays) {
  for (const char* policy : {"always", "unless-stopped", "on-failure"}) {
    const auto container =
        create("sleep 1000",
               std::string(R"(,"StopSignal":"KILL","HostConfig":{"RestartPolicy":{"Name":")") +
                   policy + "\"}}",
               policy);
    containers().start(container);
    containers().stop(container, {});
    EXPECT_EQ(container->state().status, Status::kExited) << policy;
  }
  reboot();
  while (!containers().get("always")->state().running()) std::this_thread::yield();
  EXPECT_EQ(containers().get("unless-stopped")->state().status, Status::kExited);
  EXPECT_EQ(containers().get("on-failure")->state().status, Status::kExited);
  for (const auto& container : containers().list()) containers().remove(container, true);
}

// What a host's reboot looks like: every machine is gone, and nobody was told.
TEST_F(LifecycleFlowTest, AfterAHostRebootPoliciesApply) {
  for (const char* policy : {"no", "always", "unless-stopped", "on-failure"}) {
    containers().start(create(
        "sleep 1000", std::string(R"(,"HostConfig":{"RestartPolicy":{"Name":")") + policy + "\"}}",
        policy));
  }
  std::vector<std::string> folders;
  for (const auto& container : containers().list()) folders.push_back(container->vmFolder());
  engine_.reset();
  for (const auto& folder : folders) host_.crash(folder);
  boot();
  for (const char* policy : {"always", "unless-stopped", "on-failure"}) {
    while (!containers().get(policy)->state().running()) std::this_thread::yield();
    EXPECT_EQ(containers().get(policy)->state().restarts, 1);
  }
  EXPECT_EQ(containers().get("no")->state().status, Status::kExited);
  EXPECT_EQ(containers().get("no")->state().exit_code, 137);
  for (const auto& container : containers().list()) containers().remove(container, true);
}

TEST_F(LifecycleFlowTest, ARestartThatFailsIsTriedAgainWhenItMayHeal) {
  const auto container = create("echo run; while [ ! -e stop ]; do sleep 0.01; done",
                                R"(,"HostConfig":{"RestartPolicy":{"Name":"always"}})");
  containers().start(container);
  const auto start_vm = engine_->parts().start_vm;
  std::atomic<int> refusals = 0;
  engine_->parts().start_vm = [&](VmSpec spec) {
    if (refusals++ < 2) throw Error(ErrorKind::kUnavailable, "no memory");
    return start_vm(std::move(spec));
  };
  host_.crash(container->vmFolder());
  while (refusals < 3 || !container->state().running()) std::this_thread::yield();
  EXPECT_EQ(container->state().restarts, 3);
  containers().remove(container, true);
}

TEST_F(LifecycleFlowTest, LogsAreRotatedAsAsked) {
  const auto container = create(
      "i=0; while [ $i -lt 30 ]; do echo $i; i=$((i+1)); sleep 0.01; done",
      R"(,"HostConfig":{"LogConfig":{"Type":"json-file","Config":{"max-size":"300b","max-file":"2"}}})");
  containers().start(container);
  EXPECT_EQ(exitOf(container), 0);
  EXPECT_EQ(logSegments(container->logPath()).size(), 2u);
  EXPECT_THAT(logOf(*container), ::testing::EndsWith("28\n29\n"));
  EXPECT_THAT(logOf(*container), ::testing::Not(::testing::StartsWith("0\n")));
}

TEST_F(LifecycleFlowTest, NoLogIsKeptWithoutADriver) {
  const auto container = create("echo secret", R"(,"HostConfig":{"LogConfig":{"Type":"none"}})");
  containers().start(container);
  EXPECT_EQ(exitOf(container), 0);
  EXPECT_EQ(readFile(container->logPath()), "");
}

TEST_F(LifecycleFlowTest, LimitsAndPolicyAreUpdatedAndKept) {
  const auto container =
      create("sleep 1000", R"(,"HostConfig":{"Memory":104857600,"NanoCpus":2000000000})");
  containers().start(container);
  containers().update(container, R"({"Memory":52428800,"NanoCpus":1500000000,"PidsLimit":7,)"
                                 R"("RestartPolicy":{"Name":"always"}})");
  EXPECT_EQ(container->spec().memory_bytes, 52'428'800u);
  EXPECT_EQ(container->spec().limits.cpu_quota_us, 150'000u);
  // What the virtual machine cannot be given.
  EXPECT_THAT(refusal(ErrorKind::kConflict,
                      [&] { containers().update(container, R"({"Memory":1073741824})"); }),
              HasSubstr("stop the container, update it and start it again"));
  EXPECT_THAT(refusal(ErrorKind::kConflict,
                      [&] { containers().update(container, R"({"NanoCpus":3000000000})"); }),
              HasSubstr("has 2 CPUs"));
  refusal(ErrorKind::kInvalidArgument, [&] { containers().update(container, R"({"Memory":1})"); });
  refusal(ErrorKind::kInvalidArgument, [&] { containers().update(container, "[]"); });
  reboot();
  EXPECT_EQ(box()->spec().memory_bytes, 52'428'800u);
  EXPECT_EQ(box()->spec().pids_limit, 7u);
  EXPECT_EQ(box()->spec().restart, RestartPolicy::kAlways);
  containers().stop(box(), {std::nullopt, 0});
  containers().update(box(), R"({"Memory":1073741824})");
  EXPECT_EQ(box()->spec().memory_bytes, uint64_t{1} << 30);
  containers().remove(box(), true);
}

TEST_F(LifecycleFlowTest, DiskLimitsReachTheMachineAndItsUpdates) {
  const auto container = create(
      "sleep 1000", R"(,"HostConfig":{"BlkioDeviceReadBps":[{"Path":"/dev/sda","Rate":5000}]})");
  containers().start(container);
  DiskLimits expected;
  expected.read.bytes.per_second = 5000;
  EXPECT_EQ(host_.diskLimits(container->vmFolder()), expected);
  containers().update(container, R"({"BlkioDeviceWriteIOps":[{"Path":"/dev/sda","Rate":7}]})");
  expected.write.operations.per_second = 7;
  EXPECT_EQ(host_.diskLimits(container->vmFolder()), expected);
  containers().update(container, R"({"PidsLimit":9,"BlkioDeviceReadBps":[]})");
  EXPECT_EQ(host_.diskLimits(container->vmFolder()), expected);
  containers().update(container, R"({"BlkioDeviceReadBps":[{"Path":"/dev/sda","Rate":0}]})");
  expected.read = {};
  EXPECT_EQ(host_.diskLimits(container->vmFolder()), expected);
  refusal(ErrorKind::kInvalidArgument, [&] {
    containers().update(container, R"({"BlkioDeviceReadBps":[{"Path":"sda","Rate":1}]})");
  });
  EXPECT_EQ(container->spec().limits.disks, expected);
  containers().remove(container, true);
}

}  // namespace
}  // namespace hull::engine
