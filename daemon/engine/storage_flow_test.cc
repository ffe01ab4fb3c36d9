// Containers and their mounts through the whole engine, over machines of local processes.
#include "daemon/testing/engine_flow.h"

namespace hull::engine::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class StorageFlow : public EngineFlow {
 protected:
  Volumes& volumes() { return containers().volumes(); }
  std::vector<std::string> names() {
    std::vector<std::string> all;
    for (const VolumeRecord& volume : volumes().list()) all.push_back(volume.name);
    return all;
  }
};

TEST_F(StorageFlow, AContainersVolumesAreMadeWithItAndKept) {
  const auto container = create("true", R"(,"Volumes":{"/own":{}},
    "HostConfig":{"Binds":["data:/data:ro"]})");
  ASSERT_THAT(container->mounts(), SizeIs(2));
  const MountPoint data = container->mounts()[0], own = container->mounts()[1];
  EXPECT_EQ(data.name, "data");
  EXPECT_TRUE(data.read_only);
  EXPECT_EQ(data.mode, "ro");
  EXPECT_FALSE(data.own);
  EXPECT_TRUE(own.own);
  EXPECT_THAT(volumes().usersOf("data"), ElementsAre(container->id()));
  reboot();
  EXPECT_EQ(box()->mounts(), (std::vector<MountPoint>{data, own}));
  refusal(ErrorKind::kConflict, [&] { volumes().remove("data"); });
  containers().remove(box(), false, true);
  EXPECT_THAT(names(), ElementsAre("data"));
}

TEST_F(StorageFlow, WithoutAskingForItsVolumesTheyStay) {
  create("true", R"(,"Volumes":{"/own":{}})");
  containers().remove(box(), false);
  EXPECT_THAT(names(), SizeIs(1));
  EXPECT_THAT(volumes().usersOf(names()[0]), IsEmpty());
}

TEST_F(StorageFlow, OneThatIsRemovedAtItsEndTakesItsOwnAlong) {
  const auto container =
      create("true", R"(,"Volumes":{"/own":{}},"HostConfig":{"AutoRemove":true})");
  const auto removed = container->wait(Container::WaitCondition::kRemoved);
  containers().start(container);
  ASSERT_TRUE(removed->getFor(std::chrono::minutes(1)));
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(StorageFlow, AFailedCreationLeavesNoVolumeOfItsOwn) {
  refusal(ErrorKind::kInvalidArgument, [&] {
    create("true", R"(,"Volumes":{"/own":{}},"HostConfig":{"Mounts":[
      {"Type":"volume","Target":"/fresh"},
      {"Type":"bind","Source":"/no/such/folder","Target":"/x"}]})");
  });
  EXPECT_THAT(names(), IsEmpty());
  create("true", "", "taken");
  refusal(ErrorKind::kConflict, [&] { create("true", R"(,"Volumes":{"/own":{}})", "taken"); });
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(StorageFlow, AMissingSourceIsMadeForBindsAndNamedForMounts) {
  const std::string path = root_.path() + "/made/by/bind";
  create("true", R"(,"HostConfig":{"Binds":[")" + path + R"(:/x"]})");
  EXPECT_TRUE(std::filesystem::is_directory(path));
  EXPECT_EQ(refusal(ErrorKind::kInvalidArgument,
                    [&] {
                      create("true", R"(,"HostConfig":{"Mounts":[{"Type":"bind","Source":"/no/such",
                        "Target":"/x"}]})",
                             "other");
                    }),
            "invalid mount config for type \"bind\": bind source path does not exist: /no/such");
}

TEST_F(StorageFlow, VolumesFromTakesWhatTheOtherHas) {
  create("true", R"(,"Volumes":{"/own":{}},"HostConfig":{"Binds":["data:/data","/tmp:/t"],
    "Tmpfs":{"/scratch":""}})");
  const auto other = create("true", R"(,"HostConfig":{"VolumesFrom":["box:ro"],
    "Binds":["mine:/t"]})",
                            "other");
  const auto mounts = other->mounts();
  ASSERT_THAT(mounts, SizeIs(3));
  EXPECT_EQ(mounts[0].name, "data");
  EXPECT_TRUE(mounts[0].read_only);
  EXPECT_FALSE(mounts[0].initialise);
  EXPECT_EQ(mounts[1].name, "mine") << "what is asked for replaces what is taken over";
  EXPECT_TRUE(mounts[2].own);
  EXPECT_THAT(volumes().usersOf("data"), SizeIs(2));
  containers().remove(box(), false, true);
  EXPECT_THAT(names(), SizeIs(3)) << "the other uses it still";
  refusal(ErrorKind::kNotFound,
          [&] { create("true", R"(,"HostConfig":{"VolumesFrom":["nobody"]})", "third"); });
}

TEST_F(StorageFlow, ADiskVolumeIsInOneRunningContainer) {
  const std::string mount =
      R"(,"HostConfig":{"Mounts":[{"Type":"volume","Source":"db","Target":"/d",
    "VolumeOptions":{"DriverConfig":{"Name":"disk","Options":{"size":"32m"}}}}]})";
  const auto first = create("sleep 1000", mount), second = create("true", mount, "second");
  containers().start(first);
  EXPECT_THAT(refusal(ErrorKind::kConflict, [&] { containers().start(second); }),
              HasSubstr("a disk volume can be in one running container at a time"));
  reboot();
  refusal(ErrorKind::kConflict, [&] { containers().start(containers().get("second")); });
  containers().kill(box(), "KILL");
  containers().start(containers().get("second"));
  EXPECT_EQ(exitOf(containers().get("second")), 0);
}

}  // namespace
}  // namespace hull::engine::testing
