#include "cli/client/mounts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace hull::cli {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const ClientPaths kPaths{"/home/me/work", "/home/me"};

json mount(const std::string& text) {
  return mountOption(text, kPaths);
}

std::string refusal(const std::string& text) {
  try {
    mount(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(MountOptionTest, SourcesOfTheClientBecomeAbsolute) {
  EXPECT_EQ(absoluteSource(".", kPaths), "/home/me/work");
  EXPECT_EQ(absoluteSource("./data", kPaths), "/home/me/work/data");
  EXPECT_EQ(absoluteSource("../x/", kPaths), "/home/me/x");
  EXPECT_EQ(absoluteSource("~/x", kPaths), "/home/me/x");
  EXPECT_EQ(absoluteSource("~", kPaths), "/home/me");
  EXPECT_EQ(absoluteSource("/a/b", kPaths), "/a/b");
  EXPECT_EQ(absoluteSource("name", kPaths), "name");
}

TEST(MountOptionTest, AVolumeOptionIsABindOrAVolumeOfItsOwn) {
  json config = json::object(), host = json::object();
  addVolumeOption("./a:/b:ro", kPaths, config, host);
  addVolumeOption("data:/data", kPaths, config, host);
  addVolumeOption("/scratch", kPaths, config, host);
  EXPECT_EQ(host, json::parse(R"({"Binds":["/home/me/work/a:/b:ro","data:/data"]})"));
  EXPECT_EQ(config, json::parse(R"({"Volumes":{"/scratch":{}}})"));
}

TEST(MountOptionTest, EveryKeyOfAMountArrives) {
  EXPECT_EQ(mount("type=bind,src=.,dst=/x,ro,bind-propagation=rslave,bind-recursive=disabled"),
            json::parse(R"({"Type":"bind","Source":"/home/me/work","Target":"/x","ReadOnly":true,
              "BindOptions":{"Propagation":"rslave","NonRecursive":true}})"));
  EXPECT_EQ(mount("source=v,target=/x,volume-nocopy,volume-subpath=a/b,volume-label=k=v,"
                  "volume-driver=disk,volume-opt=size=1g"),
            json::parse(R"({"Type":"volume","Source":"v","Target":"/x","VolumeOptions":{
              "NoCopy":true,"Subpath":"a/b","Labels":{"k":"v"},
              "DriverConfig":{"Name":"disk","Options":{"size":"1g"}}}})"));
  EXPECT_EQ(mount("type=tmpfs,destination=/x,tmpfs-size=1m,tmpfs-mode=1770"),
            json::parse(R"({"Type":"tmpfs","Target":"/x",
              "TmpfsOptions":{"SizeBytes":1048576,"Mode":1016}})"));
  EXPECT_EQ(mount("type=bind,src=/a,dst=/x,readonly=false,bind-recursive=writable"),
            json::parse(R"({"Type":"bind","Source":"/a","Target":"/x","ReadOnly":false,
              "BindOptions":{"ReadOnlyNonRecursive":true}})"));
}

TEST(MountOptionTest, AQuotedFieldMayHoldCommas) {
  EXPECT_EQ(mount(R"(source=v,target=/x,"volume-opt=o=bind,ro",volume-opt=device=/a)"),
            json::parse(R"({"Type":"volume","Source":"v","Target":"/x","VolumeOptions":{
              "DriverConfig":{"Options":{"o":"bind,ro","device":"/a"}}}})"));
}

TEST(MountOptionTest, WhatIsWrongIsNamed) {
  EXPECT_THAT(refusal("type=bind,src=/a"), HasSubstr("target is required"));
  EXPECT_THAT(refusal("target=/x,colour=red"),
              HasSubstr("unexpected key 'colour' in 'colour=red'"));
  EXPECT_THAT(refusal("target=/x,source"), HasSubstr("invalid field 'source' must be a key=value"));
  EXPECT_THAT(refusal("target=/x,ro=maybe"), HasSubstr("invalid value for ro: maybe"));
  EXPECT_THAT(refusal("type=bind,src=/a,target=/x,volume-nocopy"),
              HasSubstr("cannot mix 'volume-*' options with mount type 'bind'"));
  EXPECT_THAT(refusal("target=/x,tmpfs-mode=9"), HasSubstr("tmpfs-mode: 9"));
  EXPECT_THAT(refusal("target=/x,\"source=v"), HasSubstr("not closed"));
  EXPECT_THAT(refusal("type=bind,src=/a,target=/x,bind-recursive=no"), HasSubstr("bind-recursive"));
}

}  // namespace
}  // namespace hull::cli
