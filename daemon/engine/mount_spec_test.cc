#include "daemon/engine/mount_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace hull::engine {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

MountRequests requests(const char* host, const char* config = "{}") {
  return readMounts(json::parse(config), json::parse(host));
}

std::string refusal(const std::function<void()>& work,
                    ErrorKind kind = ErrorKind::kInvalidArgument) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    return error.what();
  }
  return "accepted";
}
std::string refusedBind(const std::string& text) {
  return refusal([&] { parseBind(text); });
}
std::string refusedMount(const std::string& mount, ErrorKind kind = ErrorKind::kInvalidArgument) {
  return refusal([&] { requests(("{\"Mounts\":[" + mount + "]}").c_str()); }, kind);
}

TEST(MountSpecTest, PathsAreCleaned) {
  EXPECT_EQ(cleanPath("/a//b/./c/"), "/a/b/c");
  EXPECT_EQ(cleanPath("/a/../../b"), "/b");
  EXPECT_EQ(cleanPath("/.."), "/");
}

TEST(MountSpecTest, ABindNamesAPathAVolumeAName) {
  const MountRequest bind = parseBind("/host//dir:/inside/:ro,rslave");
  EXPECT_EQ(bind.type, MountType::kBind);
  EXPECT_EQ(bind.source, "/host/dir");
  EXPECT_EQ(bind.destination, "/inside");
  EXPECT_TRUE(bind.read_only);
  EXPECT_TRUE(bind.create_source);
  EXPECT_EQ(bind.propagation, "rslave");
  EXPECT_EQ(bind.mode, "ro,rslave");
  const MountRequest volume = parseBind("data:/data:nocopy");
  EXPECT_EQ(volume.type, MountType::kVolume);
  EXPECT_EQ(volume.source, "data");
  EXPECT_FALSE(volume.copy);
  EXPECT_FALSE(volume.read_only);
  const MountRequest own = parseBind("/data");
  EXPECT_EQ(own.type, MountType::kVolume);
  EXPECT_EQ(own.source, "");
  EXPECT_EQ(parseBind("/a:/b").propagation, "rprivate");
}

TEST(MountSpecTest, BadBindsAreRefusedInDockersWords) {
  EXPECT_EQ(refusedBind("a:b:c:d"), "invalid volume specification: 'a:b:c:d'");
  EXPECT_EQ(refusedBind(":/b"), "invalid volume specification: ':/b'");
  EXPECT_THAT(refusedBind("/a:b"),
              HasSubstr("invalid mount path: 'b' mount path must be absolute"));
  EXPECT_THAT(refusedBind("/a:/"), HasSubstr("destination can't be '/'"));
  EXPECT_THAT(refusedBind("/a:/b/.."), HasSubstr("destination can't be '/'"));
  for (const char* mode : {"x", "ro,rw", "ro,ro", "nocopy", "z,Z", "", "rslave,private"}) {
    EXPECT_EQ(refusedBind("/a:/b:" + std::string(mode)), "invalid mode: " + std::string(mode));
  }
  EXPECT_EQ(refusedBind("v:/b:rslave"), "invalid mode: rslave");
  EXPECT_THAT(refusal([] { parseBind("/a:/b:rshared"); }, ErrorKind::kNotSupported),
              HasSubstr("rslave"));
}

TEST(MountSpecTest, AMountsOptionsArrive) {
  const MountRequests read = requests(R"({"Mounts":[
    {"Type":"bind","Source":"/h","Target":"/b","ReadOnly":true,
     "BindOptions":{"NonRecursive":true,"ReadOnlyNonRecursive":true,"CreateMountpoint":true}},
    {"Type":"volume","Source":"v","Target":"/v","VolumeOptions":{"NoCopy":true,"Subpath":"a/b",
     "Labels":{"k":"v"},"DriverConfig":{"Name":"disk","Options":{"size":"1g"}}}},
    {"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":1048576,"Mode":1016}}]})");
  ASSERT_EQ(read.mounts.size(), 3u);
  EXPECT_FALSE(read.mounts[0].recursive);
  EXPECT_FALSE(read.mounts[0].recursive_read_only);
  EXPECT_TRUE(read.mounts[0].create_source);
  EXPECT_EQ(read.mounts[1].subpath, "a/b");
  EXPECT_EQ(read.mounts[1].driver, "disk");
  EXPECT_EQ(read.mounts[1].options.at("size"), "1g");
  EXPECT_EQ(read.mounts[1].labels.at("k"), "v");
  EXPECT_FALSE(read.mounts[1].copy);
  EXPECT_EQ(read.tmpfs.at("/t"), "size=1048576,mode=1770");
}

TEST(MountSpecTest, BadMountsAreRefusedInDockersWords) {
  EXPECT_EQ(refusedMount(R"({"Type":"bind","Target":"/b"})"),
            "invalid mount config for type \"bind\": field Source must not be empty");
  EXPECT_EQ(refusedMount(R"({"Type":"volume","Source":"v"})"),
            "invalid mount config for type \"volume\": field Target must not be empty");
  EXPECT_EQ(refusedMount(R"({"Type":"bind","Source":"h","Target":"/b"})"),
            "invalid mount config for type \"bind\": invalid mount path: 'h' mount path must be "
            "absolute");
  EXPECT_EQ(refusedMount(R"({"Type":"x","Target":"/b"})"),
            "invalid mount config for type \"x\": mount type unknown");
  EXPECT_EQ(refusedMount(R"({"Type":"tmpfs","Source":"x","Target":"/b"})"),
            "invalid mount config for type \"tmpfs\": field Source must not be specified");
  EXPECT_THAT(refusedMount(R"({"Type":"volume","Target":"/b","BindOptions":{}})"),
              HasSubstr("field BindOptions must not be specified"));
  for (const char* path : {"/a", "..", "a/../b"}) {
    EXPECT_THAT(refusedMount(std::string(R"({"Type":"volume","Target":"/b","VolumeOptions":)") +
                             R"({"Subpath":")" + path + "\"}}"),
                HasSubstr("subpath must be a relative path"));
  }
  EXPECT_THAT(
      refusedMount(R"({"Type":"image","Source":"i","Target":"/b"})", ErrorKind::kNotSupported),
      HasSubstr("not supported"));
}

TEST(MountSpecTest, ADestinationIsUsedOnce) {
  const auto twice = [](const char* host) { return refusal([&] { requests(host); }); };
  EXPECT_EQ(twice(R"({"Binds":["/a:/x","b:/x/"]})"), "Duplicate mount point: /x");
  EXPECT_EQ(twice(R"({"Binds":["/a:/x"],"Tmpfs":{"/x":""}})"), "Duplicate mount point: /x");
  EXPECT_EQ(twice(R"({"Binds":["/a:/x"],"Mounts":[{"Type":"tmpfs","Target":"/x"}]})"),
            "Duplicate mount point: /x");
}

TEST(MountSpecTest, VolumesOfImagesAndOfOthers) {
  const MountRequests read = requests(R"({"VolumesFrom":["a","b:ro"],"VolumeDriver":"disk",
    "Binds":["v:/v"]})",
                                      R"({"Volumes":{"/image":{},"/v":{}}})");
  ASSERT_EQ(read.from.size(), 2u);
  EXPECT_FALSE(read.from[0].read_only);
  EXPECT_TRUE(read.from[1].read_only);
  EXPECT_EQ(read.mounts.at(0).driver, "disk");
  EXPECT_THAT(read.image_volumes, ElementsAre("/image", "/v"));
  EXPECT_EQ(refusal([] { requests(R"({"VolumesFrom":["a:x"]})"); }), "invalid mode: x");
  EXPECT_THAT(refusal([] { requests(R"({"VolumesFrom":[":ro"]})"); }), StartsWith("malformed"));
}

TEST(MountSpecTest, PointsSurviveTheRecord) {
  MountPoint point;
  point.type = MountType::kBind;
  point.source = "/s";
  point.destination = "/d";
  point.mode = "ro";
  point.propagation = "rprivate";
  point.read_only = point.create_source = point.initialise = point.own = true;
  point.recursive = point.recursive_read_only = false;
  point.subpath = "p";
  MountPoint other;
  other.name = "v";
  other.driver = "disk";
  const std::vector<MountPoint> points{point, other};
  EXPECT_EQ(parseMountPoints(toJson(points)), points);
  EXPECT_TRUE(parseMountPoints("").empty());
  EXPECT_THROW(parseMountPoints("{}"), Error);
}

}  // namespace
}  // namespace hull::engine
