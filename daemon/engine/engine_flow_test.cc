// The whole engine below its API, over machines of local processes: runs, exits, restarts of the
// engine, crashes, removals.
#include <array>
#include <chrono>
#include <thread>

#include "daemon/testing/engine_flow.h"
#include "image/store/database.h"

namespace hull::engine {
namespace {

using ::testing::HasSubstr;

using EngineFlowTest = testing::EngineFlow;

TEST_F(EngineFlowTest, RunsAndRecordsTheEnd) {
  const auto container = create("echo out; exit 7");
  EXPECT_TRUE(containers().start(container));
  EXPECT_EQ(exitOf(container), 7);
  EXPECT_EQ(logOf(*container), "out\n");
  EXPECT_EQ(container->state().status, Status::kExited);
  EXPECT_TRUE(containers().start(container));  // once more, the log goes on
  EXPECT_EQ(exitOf(container), 7);
  EXPECT_EQ(logOf(*container), "out\nout\n");
  containers().remove(container, false);
  EXPECT_THROW(box(), Error);
  EXPECT_FALSE(fileExists(container->folder()));
}

TEST_F(EngineFlowTest, AutoRemoveAndWaitForIt) {
  const auto container = create("true", R"(,"HostConfig":{"AutoRemove":true})");
  const auto removed = container->wait(Container::WaitCondition::kRemoved);
  containers().start(container);
  const auto result = removed->getFor(std::chrono::minutes(1));
  ASSERT_TRUE(result);
  EXPECT_EQ(result->exit_code, 0);
  EXPECT_THROW(box(), Error);
}

TEST_F(EngineFlowTest, MissingProgramIsToldAndLeavesNothingRunning) {
  const auto container = create("", R"(,"Entrypoint":["/no/such"])");
  EXPECT_THAT(refusal(ErrorKind::kInvalidArgument, [&] { containers().start(container); }),
              HasSubstr("no such file or directory"));
  EXPECT_EQ(container->state().status, Status::kCreated);
  EXPECT_EQ(container->state().exit_code, 127);
  EXPECT_FALSE(engine_->parts().adopt_vm(container->vmFolder()));
  containers().remove(container, false);
}

TEST_F(EngineFlowTest, StopSendsTheSignalThenKills) {
  const auto polite = create("trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
  containers().start(polite);
  while (logOf(*polite).empty()) std::this_thread::yield();
  EXPECT_TRUE(containers().stop(polite, {}));
  EXPECT_EQ(polite->state().exit_code, 5);
  EXPECT_FALSE(containers().stop(polite, {}));
  const auto stubborn =
      create("trap '' TERM; echo ready; while :; do sleep 0.05; done", "", "mule");
  containers().start(stubborn);
  while (logOf(*stubborn).empty()) std::this_thread::yield();
  EXPECT_TRUE(containers().stop(stubborn, {std::nullopt, 0}));
  EXPECT_EQ(stubborn->state().exit_code, 137);
}

TEST_F(EngineFlowTest, RunningContainersOutliveTheEngine) {
  containers().start(
      create("echo one; while [ ! -e stop ]; do sleep 0.05; done; echo two; exit 9"));
  while (logOf(*box()).empty()) std::this_thread::yield();
  reboot();
  EXPECT_EQ(box()->state().status, Status::kRunning);
  writeFileAtomic(box()->vmFolder() + "/rootfs/stop", "");
  EXPECT_EQ(exitOf(box()), 9);
  EXPECT_EQ(logOf(*box()), "one\ntwo\n");
}

TEST_F(EngineFlowTest, AnEndWhileNoEngineRanIsNotLost) {
  containers().start(create("while [ ! -e stop ]; do sleep 0.05; done; echo late; exit 4"));
  const auto container = box();
  engine_.reset();
  writeFileAtomic(container->vmFolder() + "/rootfs/stop", "");
  boot();
  EXPECT_EQ(exitOf(box()), 4);
  EXPECT_EQ(logOf(*box()), "late\n");
}

TEST_F(EngineFlowTest, AMachineThatEndedMeanwhileIsFinished) {
  containers().start(create("sleep 1000", R"(,"HostConfig":{"RestartPolicy":{"Name":"no"}})"));
  const std::string folder = box()->vmFolder();
  engine_.reset();
  host_.crash(folder);
  boot();
  EXPECT_EQ(box()->state().status, Status::kExited);
  EXPECT_EQ(box()->state().exit_code, 137);
  EXPECT_TRUE(containers().start(box()));
  containers().remove(box(), true);
}

TEST_F(EngineFlowTest, AMachineThatEndsUnderTheEngineIs137) {
  const auto container = create("sleep 1000");
  containers().start(container);
  host_.crash(container->vmFolder());
  EXPECT_EQ(exitOf(container), 137);
}

TEST_F(EngineFlowTest, StraysAreSwept) {
  // A folder that no record names, as a kill in the middle of create or remove leaves it.
  makeDirectories(options_.root + "/containers/0123/vm");
  makeDirectories(buildFolder(options_) + "/build-x");
  // A machine whose container is not running by the record: a start cut short.
  const auto container = create("sleep 1000");
  VmSpec spec;
  spec.directory = container->vmFolder();
  engine_->parts().start_vm(std::move(spec))->abandon();
  const std::string folder = container->vmFolder();
  reboot();
  EXPECT_FALSE(fileExists(options_.root + "/containers/0123"));
  EXPECT_FALSE(fileExists(buildFolder(options_) + "/build-x"));
  EXPECT_FALSE(engine_->parts().adopt_vm(folder));
  EXPECT_EQ(box()->state().status, Status::kCreated);
}

TEST_F(EngineFlowTest, RestartPoliciesAndTheirEnd) {
  const auto failing =
      create("echo try; exit 1",
             R"(,"HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":2}})");
  containers().start(failing);
  while (failing->state().status != Status::kExited) std::this_thread::yield();
  EXPECT_EQ(failing->state().exit_code, 1);
  EXPECT_EQ(logOf(*failing), "try\ntry\ntry\n");
  EXPECT_EQ(failing->state().restarts, 2);
  const auto always =
      create("exit 0", R"(,"HostConfig":{"RestartPolicy":{"Name":"always"}})", "al");
  containers().start(always);
  while (always->state().restarts < 2) std::this_thread::yield();
  containers().stop(always, {std::nullopt, 0});
  EXPECT_EQ(exitOf(always), 0);
  containers().remove(always, true);
}

TEST_F(EngineFlowTest, NamesAndConflicts) {
  const auto container = create("sleep 1000");
  EXPECT_THAT(refusal(ErrorKind::kConflict, [&] { create("true"); }),
              HasSubstr("is already in use by container"));
  EXPECT_THAT(
      refusal(ErrorKind::kNotFound, [&] { containers().create(R"({"Image":"no"})", "", ""); }),
      HasSubstr("No such image: no:latest"));
  containers().rename(container, "other");
  EXPECT_EQ(containers().get("other")->id(), container->id());
  EXPECT_EQ(containers().get(container->id().substr(0, 6))->id(), container->id());
  containers().start(container);
  EXPECT_FALSE(containers().start(container));
  EXPECT_THAT(refusal(ErrorKind::kConflict, [&] { containers().remove(container, false); }),
              HasSubstr("container is running"));
  containers().pause(container);
  EXPECT_EQ(container->state().status, Status::kPaused);
  refusal(ErrorKind::kConflict, [&] { containers().withGuest(container, [](Vm&) {}); });
  containers().unpause(container);
  containers().remove(container, true);
  EXPECT_TRUE(containers().list().empty());
}

TEST_F(EngineFlowTest, PortConflictUndoesTheStart) {
  const std::string ports = R"(,"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"80"}]}})";
  containers().start(create("sleep 1000", ports));
  const auto second = create("sleep 1000", ports, "second");
  EXPECT_THAT(refusal(ErrorKind::kConflict, [&] { containers().start(second); }),
              HasSubstr("port is already allocated"));
  EXPECT_FALSE(engine_->parts().adopt_vm(second->vmFolder()));
  containers().remove(box(), true);
  EXPECT_TRUE(containers().start(second));
  containers().remove(second, true);
}

TEST_F(EngineFlowTest, ExecsRunAndEndWithTheirContainer) {
  const auto container = create("sleep 1000");
  containers().start(container);
  ExecSpec spec;
  spec.arguments = {"sh", "-c", "exit 6"};
  const auto exec = engine_->execs().create(container, spec);
  engine_->execs().start(exec);
  EXPECT_TRUE(exec->awaitExit([] { return false; }));
  EXPECT_EQ(exec->state().exit_code, 6);
  refusal(ErrorKind::kConflict, [&] { engine_->execs().start(exec); });
  spec.arguments = {"no-such-program"};
  const auto missing = engine_->execs().create(container, spec);
  EXPECT_THAT(refusal(ErrorKind::kInvalidArgument, [&] { engine_->execs().start(missing); }),
              HasSubstr("executable file not found"));
  EXPECT_EQ(missing->state().exit_code, 127);
  spec.arguments = {"sleep", "1000"};
  const auto lasting = engine_->execs().create(container, spec);
  engine_->execs().start(lasting);
  containers().remove(container, true);
  EXPECT_TRUE(lasting->awaitExit([] { return false; }));
  EXPECT_EQ(lasting->state().exit_code, 137);
}

TEST_F(EngineFlowTest, ASecondEngineIsRefused) {
  EXPECT_THAT(refusal(ErrorKind::kConflict, [&] { EngineLock second(options_.root); }),
              HasSubstr("another engine (process " + std::to_string(getpid())));
}

TEST_F(EngineFlowTest, ANewerDatabaseIsRefused) {
  engine_.reset();
  const auto version = [&](const char* text) {
    std::array<const char*, 1> none{"SELECT 1"};
    image::Database database(options_.root + "/other.db", none);
    database.execute(text);
  };
  version("PRAGMA user_version = 99");
  std::filesystem::rename(options_.root + "/other.db", options_.root + "/engine.db");
  refusal(ErrorKind::kNotSupported, [&] { StateDb db(options_.root + "/engine.db"); });
  std::filesystem::remove(options_.root + "/engine.db");
}

TEST_F(EngineFlowTest, StopContainersAtTheEnd) {
  containers().start(create("sleep 1000", R"(,"StopSignal":"KILL")"));
  options_.stop_containers = true;
  reboot();
  options_.stop_containers = false;
  EXPECT_EQ(box()->state().status, Status::kRunning);  // the first engine had not been told
  reboot();
  EXPECT_EQ(box()->state().status, Status::kExited);
}

// --- networks ---

constexpr const char* kLoop = "while :; do sleep 0.05; done";

std::vector<std::string> networksOf(const Container& container) {
  std::vector<std::string> found;
  for (const Endpoint& endpoint : container.state().endpoints) {
    found.push_back(endpoint.network + " " + endpoint.address);
  }
  return found;
}

TEST_F(EngineFlowTest, NetworksAreRecordedAndComeBack) {
  Networks& networks = engine_->networks();
  const NetworkRecord made = networks.create(
      R"({"Name":"app","Internal":true,"Labels":{"l":"v"},"Options":{"com.docker.network.driver.mtu":"1400"},
          "IPAM":{"Config":[{"Subnet":"10.9.0.0/24","Gateway":"10.9.0.254"}]}})");
  EXPECT_EQ(networks.get("app").id, made.id);
  EXPECT_EQ(networks.get(made.id.substr(0, 12)).name, "app");
  EXPECT_EQ(refusal(ErrorKind::kConflict, [&] { networks.create(R"({"Name":"app"})"); }),
            "network with name app already exists");
  EXPECT_EQ(refusal(ErrorKind::kNotFound, [&] { networks.get("none-such"); }),
            "network none-such not found");
  EXPECT_THAT(refusal(ErrorKind::kForbidden, [&] { networks.remove(networks.get("bridge")); }),
              HasSubstr("pre-defined"));
  reboot();
  const NetworkRecord again = engine_->networks().get("app");
  EXPECT_EQ(formatSubnet(*again.spec.subnet), "10.9.0.0/24");
  EXPECT_EQ(formatAddress(again.spec.gateway), "10.9.0.254");
  EXPECT_EQ(again.spec.mtu, 1400);
  EXPECT_TRUE(again.spec.internal);
  EXPECT_EQ(again.labels.at("l"), "v");
  engine_->networks().remove(again);
  EXPECT_FALSE(engine_->networks().find("app"));
  reboot();
  EXPECT_FALSE(engine_->networks().find("app"));
}

TEST_F(EngineFlowTest, BadNetworkRequestsAreNamed) {
  const auto refused = [&](ErrorKind kind, const std::string& body) {
    return refusal(kind, [&] { engine_->networks().create(body); });
  };
  const auto kInvalid = ErrorKind::kInvalidArgument;
  EXPECT_THAT(refused(kInvalid, "{}"), HasSubstr("name"));
  EXPECT_THAT(refused(kInvalid, R"({"Name":"a b"})"), HasSubstr("a b"));
  EXPECT_THAT(refused(ErrorKind::kNotSupported, R"({"Name":"n","Driver":"overlay"})"),
              HasSubstr("overlay"));
  EXPECT_THAT(refused(kInvalid, R"({"Name":"n","IPAM":{"Config":[{"Subnet":"10.0.0.1/8"}]}})"),
              HasSubstr("10.0.0.1/8"));
  EXPECT_THAT(refused(kInvalid, R"({"Name":"n","IPAM":{"Config":[{"Gateway":"10.0.0.1"}]}})"),
              HasSubstr("subnet"));
  EXPECT_THAT(
      refused(kInvalid, R"({"Name":"n","Options":{"com.docker.network.driver.mtu":"big"}})"),
      HasSubstr("big"));
  EXPECT_THAT(refused(ErrorKind::kConflict,
                      R"({"Name":"n","IPAM":{"Config":[{"Subnet":"172.17.128.0/24"}]}})"),
              HasSubstr("overlaps"));
}

TEST_F(EngineFlowTest, AContainerIsInTheNetworksItAsksForAndMovesWhileItRuns) {
  Networks& networks = engine_->networks();
  const NetworkRecord app =
      networks.create(R"({"Name":"app","IPAM":{"Config":[{"Subnet":"10.9.0.0/24"}]}})");
  const NetworkRecord more =
      networks.create(R"({"Name":"more","IPAM":{"Config":[{"Subnet":"10.8.0.0/24"}]}})");
  const auto container = create(kLoop, R"(,"HostConfig":{"NetworkMode":"app"},"NetworkingConfig":
      {"EndpointsConfig":{"app":{"Aliases":["www"],"IPAMConfig":{"IPv4Address":"10.9.0.77"}}}})");
  EXPECT_THAT(networksOf(*container), ::testing::ElementsAre(app.id + " "));
  containers().start(container);
  EXPECT_THAT(networksOf(*container), ::testing::ElementsAre(app.id + " 10.9.0.77"));
  EXPECT_THAT(dnsNamesOf(*container, container->state().endpoints[0]),
              ::testing::IsSupersetOf({"box", "www"}));
  EXPECT_THAT(refusal(ErrorKind::kForbidden, [&] { networks.remove(app); }),
              HasSubstr("active endpoints"));

  containers().connect(container, more, parseEndpoint(more.spec.id, ""));
  EXPECT_THAT(networksOf(*container),
              ::testing::ElementsAre(app.id + " 10.9.0.77", more.id + " 10.8.0.2"));
  refusal(ErrorKind::kForbidden,
          [&] { containers().connect(container, more, parseEndpoint(more.spec.id, "")); });
  refusal(ErrorKind::kConflict, [&] {
    containers().connect(container, networks.get("bridge"), parseEndpoint(kDefaultNetwork, ""));
  });
  containers().disconnect(container, app);
  EXPECT_THAT(networksOf(*container), ::testing::ElementsAre(more.id + " 10.8.0.2"));
  refusal(ErrorKind::kForbidden, [&] { containers().disconnect(container, app); });
  networks.remove(app);

  containers().stop(container, {});
  EXPECT_THAT(networksOf(*container), ::testing::ElementsAre(more.id + " "));
  // The address is given back after the end is known.
  const auto given = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  for (bool removed = false; !removed;) {
    try {
      networks.remove(more);
      removed = true;
    } catch (const Error&) {
      if (std::chrono::steady_clock::now() > given) throw;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  EXPECT_THAT(refusal(ErrorKind::kNotFound, [&] { containers().start(container); }),
              HasSubstr("not found"));
}

TEST_F(EngineFlowTest, AnUnknownNetworkIsNoMissingImage) {
  EXPECT_EQ(refusal(ErrorKind::kInvalidArgument,
                    [&] { create("true", R"(,"HostConfig":{"NetworkMode":"mine"})"); }),
            "network mine not found");
}

TEST_F(EngineFlowTest, ContainersOfAnEarlierSchemaAreInTheDefaultNetwork) {
  const auto container = create("true");
  engine_.reset();
  {
    std::array<const char*, 3> same{"SELECT 1", "SELECT 1", "SELECT 1"};
    image::Database database(root_.path() + "/engine.db", same);
    const auto lock = database.lock();
    database.execute("UPDATE containers SET state = json_remove(state, '$.endpoints')");
    database.execute("DROP TABLE volumes");
    database.execute("PRAGMA user_version = 1");
  }
  boot();
  EXPECT_THAT(networksOf(*box()), ::testing::ElementsAre("bridge "));
}

}  // namespace
}  // namespace hull::engine
