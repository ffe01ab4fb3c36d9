#include "image/build/builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "image/build/testing/build_fixture.h"

namespace hull::build {
namespace {

using image::EntryType;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Builder = testing::BuilderTest;

TEST_F(Builder, MetadataEndsUpInTheConfiguration) {
  request_.tags = {image::Reference::parse("meta:1")};
  request_.labels = {{"from", "request"}};
  const auto image = build(
      "FROM scratch\nENV A=1 B=\"two words\"\nENV C $A-x\nLABEL l=$B\nEXPOSE 80 53/udp "
      "8000-8002\nVOLUME /data\n"
      "WORKDIR /w\nWORKDIR sub\nENTRYPOINT [\"/e\"]\nCMD [\"c\"]\nSTOPSIGNAL SIGINT\nUSER "
      "me\nHEALTHCHECK "
      "--interval=5s CMD true\n");
  const auto& config = image.config.config;
  EXPECT_THAT(config.env, ElementsAre(HasSubstr("PATH="), "A=1", "B=two words", "C=1-x"));
  EXPECT_EQ(config.labels.at("l"), "two words");
  EXPECT_EQ(config.labels.at("from"), "request");
  EXPECT_THAT(config.exposed_ports, ::testing::UnorderedElementsAre("80/tcp", "53/udp", "8000/tcp",
                                                                    "8001/tcp", "8002/tcp"));
  EXPECT_EQ(config.working_dir, "/w/sub");
  EXPECT_THAT(*config.entrypoint, ElementsAre("/e"));
  EXPECT_THAT(*config.cmd, ElementsAre("c"));
  EXPECT_EQ(config.stop_signal, "SIGINT");
  EXPECT_EQ(config.health_check->interval_ns, 5'000'000'000);
  EXPECT_EQ(store_.get("meta:1").id, image.id);
}

TEST_F(Builder, EntrypointClearsAnInheritedCommandOnly) {
  const auto image = build("FROM scratch AS base\nCMD [\"old\"]\nFROM base\nENTRYPOINT [\"e\"]\n");
  EXPECT_FALSE(image.config.config.cmd);
  const auto kept = build("FROM scratch\nCMD [\"new\"]\nENTRYPOINT [\"e\"]\n");
  EXPECT_TRUE(kept.config.config.cmd);
}

TEST_F(Builder, CopyOwnsByRootKeepsModesAndCopiesContents) {
  const auto image = build(
      "FROM scratch\nCOPY dir /target\nCOPY a b /many/\nCOPY a /renamed\nCOPY --chown=5:6 "
      "--chmod=4755 a /owned\n",
      {{"dir/", ""}, {"dir/x", "X"}, {"dir/l", "-> x"}, {"a", "A"}, {"b", "B"}});
  EXPECT_EQ(fileOf(image, "/target/x"), "X");
  EXPECT_EQ(inodeOf(image, "target/l").link, "x");
  EXPECT_EQ(fileOf(image, "/many/a"), "A");
  EXPECT_EQ(fileOf(image, "/renamed"), "A");
  EXPECT_EQ(inodeOf(image, "renamed").uid, 0u);
  EXPECT_EQ(inodeOf(image, "owned").uid, 5u);
  EXPECT_EQ(inodeOf(image, "owned").gid, 6u);
  EXPECT_EQ(inodeOf(image, "owned").mode, 04755);
  EXPECT_EQ(inodeOf(image, "many").mode, 0755);
}

TEST_F(Builder, CopyStaysInsideTheContext) {
  const auto image =
      build("FROM scratch\nCOPY ../../a /a\nCOPY evil/passwd /p\n",
            {{"a", "A"}, {"evil", "-> /../../sub"}, {"sub/", ""}, {"sub/passwd", "mine"}});
  EXPECT_EQ(fileOf(image, "/a"), "A");
  EXPECT_EQ(fileOf(image, "/p"), "mine");  // the link is followed inside the context
}

TEST_F(Builder, TheFolderOfAnExceptionKeepsItsAttributes) {
  const auto image = build("FROM scratch\nCOPY . /\n", {{".dockerignore", "c\nd\n!c/s/h\n"},
                                                        {"c/", ""},
                                                        {"c/s/", ""},
                                                        {"c/s/h", "H"},
                                                        {"c/t/", ""},
                                                        {"d/", ""}});
  EXPECT_EQ(inodeOf(image, "c").mode, 0700);
  EXPECT_EQ(inodeOf(image, "c/s").mode, 0700);
  EXPECT_GT(inodeOf(image, "c/s").mtime_seconds, 1'700'000'000);
  EXPECT_FALSE(has(image, "c/t"));
  EXPECT_FALSE(has(image, "d"));
}

TEST_F(Builder, BadIgnoreRulesNameTheirFile) {
  EXPECT_THAT(failure("FROM scratch\n", {{"Dockerfile.dockerignore", "x\na[\n"}}),
              HasSubstr("Dockerfile.dockerignore:2: syntax error in pattern \"a[\""));
}

TEST_F(Builder, CopyGlobsAndMissingSources) {
  const auto image = build("FROM scratch\nCOPY *.t /d/\nCOPY no*match /e/\n",
                           {{"a.t", "1"}, {"b.t", "2"}, {"c", "3"}});
  EXPECT_TRUE(has(image, "d/a.t"));
  EXPECT_TRUE(has(image, "d/b.t"));
  EXPECT_FALSE(has(image, "d/c"));
  EXPECT_THAT(failure("FROM scratch\nCOPY missing /x\n"),
              HasSubstr("Dockerfile:2:6: \"/missing\": not found"));
  EXPECT_THAT(failure("FROM scratch\nCOPY a b /x\n", {{"a", ""}, {"b", ""}}),
              HasSubstr("must be a directory and end with a /"));
}

TEST_F(Builder, CopyFollowsLinksOfTheDestination) {
  const auto image =
      build("FROM scratch\nCOPY tree /\nCOPY a /link/a\n",
            {{"tree/", ""}, {"tree/real/", ""}, {"tree/link", "-> real"}, {"a", "A"}});
  EXPECT_EQ(fileOf(image, "/real/a"), "A");
  EXPECT_EQ(inodeOf(image, "link").type, EntryType::kSymlink);
}

TEST_F(Builder, CopyFromAStageAndByNumber) {
  const auto image = build(
      "FROM scratch AS one\nCOPY a /one\nFROM scratch\nCOPY --from=one /one /1\nCOPY --from=0 /one "
      "/2\n",
      {{"a", "A"}});
  EXPECT_EQ(fileOf(image, "/1"), "A");
  EXPECT_EQ(fileOf(image, "/2"), "A");
  EXPECT_FALSE(has(image, "one"));
  EXPECT_THAT(failure("FROM scratch AS a\nCOPY --from=1 x y\n"), HasSubstr("no earlier stage"));
  EXPECT_THAT(failure("FROM scratch AS a\nCOPY --from=$x x y\n"),
              HasSubstr("doesn't support variable"));
}

TEST_F(Builder, OnlyStagesTheTargetNeedsAreBuilt) {
  build("FROM scratch AS used\nCOPY a /a\nFROM scratch AS unused\nRUN never\nFROM used\n",
        {{"a", "A"}});
  EXPECT_TRUE(runner_.ran.empty());
  request_.target = "unused";
  build("FROM scratch AS used\nFROM scratch AS unused\nRUN once\nFROM used\n");
  EXPECT_EQ(runner_.ran.size(), 1u);
  request_.target = "nope";
  EXPECT_THAT(failure("FROM scratch AS one\n"), HasSubstr("there are: one"));
}

TEST_F(Builder, RunStepsShareOneSessionAndGetLayersMadeInBetween) {
  const auto image = build(
      "FROM scratch\nARG V=arg\nENV E=env\nWORKDIR /w\nUSER u:1\nRUN first $V\nCOPY a /a\nRUN "
      "[\"second\"]\n",
      {{"a", "A"}});
  EXPECT_EQ(runner_.sessions, 1);
  EXPECT_EQ(runner_.applied, 1);
  ASSERT_EQ(runner_.ran.size(), 2u);
  const RunStep& first = runner_.ran[0].step;
  EXPECT_THAT(first.arguments, ElementsAre("/bin/sh", "-c", "first $V"));
  EXPECT_THAT(first.environment,
              ::testing::UnorderedElementsAre("E=env", "V=arg", HasSubstr("PATH=")));
  EXPECT_EQ(first.working_directory, "/w");
  EXPECT_EQ(first.user, "u:1");
  EXPECT_THAT(runner_.ran[1].step.arguments, ElementsAre("second"));
  EXPECT_TRUE(has(image, "ran-1"));
  EXPECT_TRUE(has(image, "ran-2"));
  EXPECT_EQ(image.config.history.back().created_by, "RUN |1 V=arg second # buildkit");
}

TEST_F(Builder, UnchangedStepsComeFromTheCacheWithTheSameImage) {
  const std::string dockerfile = "FROM scratch\nRUN one\nCOPY a /a\nRUN two\n";
  const auto first = build(dockerfile, {{"a", "A"}});
  EXPECT_EQ(runner_.ran.size(), 2u);
  const auto second = build(dockerfile, {{"a", "A"}});  // other times, same content
  EXPECT_EQ(runner_.ran.size(), 2u);
  EXPECT_EQ(cachedSteps(), 3);
  EXPECT_EQ(first.id, second.id);
  build(dockerfile, {{"a", "changed"}});
  EXPECT_EQ(runner_.ran.size(), 3u);  // only what comes behind the COPY
  request_.no_cache = true;
  build(dockerfile, {{"a", "A"}});
  EXPECT_EQ(runner_.ran.size(), 5u);
}

TEST_F(Builder, BuildArgumentsChangeTheKeyOfRunAndProxiesDoNot) {
  const std::string dockerfile = "FROM scratch\nARG V\nRUN x\n";
  request_.build_args = {{"V", "1"}, {"http_proxy", "a"}};
  build(dockerfile);
  request_.build_args["http_proxy"] = "b";
  build(dockerfile);
  EXPECT_EQ(runner_.ran.size(), 1u);
  EXPECT_THAT(runner_.ran[0].step.environment, ::testing::Contains("http_proxy=a"));
  request_.build_args["V"] = "2";
  build(dockerfile);
  EXPECT_EQ(runner_.ran.size(), 2u);
}

TEST_F(Builder, ArgAndEnvShadowEachOtherInOrder) {
  request_.build_args = {{"X", "arg"}};
  build("FROM scratch\nARG X\nENV X=env\nRUN a\n");
  EXPECT_THAT(runner_.ran[0].step.environment, ::testing::Contains("X=env"));
  build("FROM scratch\nENV X=env\nARG X\nRUN b\n");
  EXPECT_THAT(runner_.ran[1].step.environment, ::testing::Contains("X=arg"));
}

TEST_F(Builder, AGlobalArgIsVisibleInFromUntilRedeclared) {
  const auto image =
      build("ARG BASE=scratch\nARG G=g\nFROM $BASE\nENV A=[$G]\nARG G\nENV B=[$G]\n");
  EXPECT_THAT(image.config.config.env, ElementsAre(HasSubstr("PATH="), "A=[]", "B=[g]"));
}

TEST_F(Builder, AFailingRunNamesCommandCodeAndLine) {
  runner_.exit_code = 3;
  const std::string message = failure("FROM scratch\nENV A=1\nRUN make\n");
  EXPECT_THAT(
      message,
      HasSubstr("Dockerfile:3:5: The command '/bin/sh -c make' returned a non-zero code: 3"));
  EXPECT_THAT(message, HasSubstr("[stage-0 3/3]"));
  EXPECT_THAT(message, HasSubstr("3 | RUN make"));
  EXPECT_THAT(message, HasSubstr("last output:\n  ran"));
  EXPECT_TRUE(store_.list().empty());
}

TEST_F(Builder, IgnoredFilesAreNotInTheContext) {
  EXPECT_THAT(
      failure("FROM scratch\nCOPY secret /s\n", {{".dockerignore", "secret\n"}, {"secret", "s"}}),
      HasSubstr("not found"));
}

TEST_F(Builder, AddUnpacksTarsByContentOnly) {
  const std::string tar = contextTar({{"in/", ""}, {"in/side", "S"}});
  const auto image = build("FROM scratch\nADD x.bin /d/\nADD fake.tar.gz /d/\nCOPY x.bin /plain\n",
                           {{"x.bin", tar}, {"fake.tar.gz", "\x1f\x8b no gzip"}});
  EXPECT_EQ(fileOf(image, "/d/in/side"), "S");
  EXPECT_EQ(inodeOf(image, "d/in/side").uid, 1234u);  // as the archive says
  EXPECT_TRUE(has(image, "d/fake.tar.gz"));
  EXPECT_EQ(inodeOf(image, "plain").size, tar.size());
}

TEST_F(Builder, HeredocsMakeFilesAndScripts) {
  const auto image = build(
      "FROM scratch\nENV A=1\nCOPY <<one <<'two' /d/\n[$A]\none\n[$A]\ntwo\nRUN <<EOF\necho "
      "a\nEOF\n");
  EXPECT_EQ(fileOf(image, "/d/one"), "[1]\n");
  EXPECT_EQ(fileOf(image, "/d/two"), "[$A]\n");
  EXPECT_THAT(runner_.ran[0].step.arguments, ElementsAre("/bin/sh", "-c", "echo a\n"));
}

TEST_F(Builder, WorkdirMakesItsFoldersForTheUser) {
  const auto image = build("FROM scratch\nUSER 7:8\nWORKDIR /a/b\n");
  EXPECT_EQ(inodeOf(image, "a/b").uid, 7u);
  EXPECT_EQ(inodeOf(image, "a/b").gid, 8u);
  EXPECT_EQ(inodeOf(image, "a/b").mode, 0755);
}

TEST_F(Builder, OnBuildTriggersRunInTheNextImageOnly) {
  request_.tags = {image::Reference::parse("parent")};
  build("FROM scratch\nONBUILD ENV X=1\n");
  request_.tags.clear();
  const auto child = build("FROM parent\n");
  EXPECT_THAT(child.config.config.env, ElementsAre(HasSubstr("PATH="), "X=1"));
  EXPECT_TRUE(child.config.config.on_build.empty());
  EXPECT_THAT(failure("FROM scratch\nONBUILD FROM x\n"), HasSubstr("isn't allowed"));
}

TEST_F(Builder, AMissingDockerfileIsNamed) {
  request_.dockerfile_path = "other";
  EXPECT_THAT(failure("FROM scratch\n"), HasSubstr("Cannot locate specified Dockerfile: other"));
}

TEST_F(Builder, SourceDateEpochFixesTheTimes) {
  request_.build_args = {{"SOURCE_DATE_EPOCH", "86400"}};
  EXPECT_EQ(build("FROM scratch\nENV A=1\n").config.created, "1970-01-02T00:00:00Z");
}

}  // namespace
}  // namespace hull::build
