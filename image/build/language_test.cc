// The Dockerfile language, rule by rule: LineNN is a rule of the reference that naive builders get
// wrong. Here are those of the text, variables and stages; copies are in language_copy_test.cc, RUN
// in language_run_test.cc, the rest in language_config_test.cc. What a rule means end to end, in a
// VM, is in tests/e2e/test_build.py.
#include "image/build/dockerfile.h"
#include "image/build/mounts.h"
#include "image/build/testing/build_fixture.h"

namespace hull::build {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Language = testing::BuilderTest;

std::string parseFailure(std::string_view text) {
  try {
    parseDockerfile("Dockerfile", text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string lastRun(const testing::FakeRunner& runner) {
  return runner.ran.back().step.arguments.back();
}

TEST_F(Language, Line01DirectivesStandAtTheTopOnceInAnyCase) {
  EXPECT_EQ(parseDockerfile("D",
                            "\xef\xbb\xbf#SYNTAX=docker/dockerfile:1\n# Escape = `\n# "
                            "check=skip=StageNameCasing;error=true\nFROM x\n")
                .escape,
            '`');
  const auto checked = parseDockerfile("D", "#check=skip=A,B;error=true\nFROM x\n");
  EXPECT_THAT(checked.check.skip, ElementsAre("a", "b"));
  EXPECT_TRUE(checked.check.error);
  EXPECT_EQ(parseDockerfile("D", "# unknown=x\n# escape=`\nFROM x\n").escape, '\\');
  EXPECT_EQ(parseDockerfile("D", "\n# escape=`\nFROM x\n").escape, '\\');
  EXPECT_THAT(parseFailure("#syntax=a\n#syntax=b\nFROM x\n"), HasSubstr("only one syntax"));
  EXPECT_THAT(parseFailure("#escape=/\nFROM x\n"), HasSubstr("invalid escape"));
  const auto image = build("# escape=`\nFROM scratch\nENV A=1 `\n  B=c:\\x\n");
  EXPECT_THAT(image.config.config.env, Contains("B=c:\\x"));
}

TEST_F(Language, Line02ContinuationsDropCommentsAndBlankLinesAndKeepIndents) {
  build(
      "FROM scratch\nRUN a \\ \t\n# dropped\n\n   b \\\n  # dropped, too\n c\nRUN d\\\\\nRUN e\n");
  EXPECT_EQ(runner_.ran[0].step.arguments.back(), "a    b  c");
  EXPECT_EQ(runner_.ran[1].step.arguments.back(), "d\\\\");
  EXPECT_EQ(runner_.ran[2].step.arguments.back(), "e");
  const auto file = parseDockerfile("D", "FROM x\nRUN a \\\n\n b\n");
  ASSERT_EQ(file.warnings.size(), 1u);
  EXPECT_EQ(file.warnings[0].rule, "NoEmptyContinuation");
  EXPECT_EQ(file.warnings[0].line, 3);
}

TEST_F(Language, Line03ALineHasAtMost65535Bytes) {
  const std::string longest = "RUN " + std::string(kMaxLineBytes - 4, 'a');
  EXPECT_EQ(parseFailure("FROM x\n" + longest + "\n"), "");
  EXPECT_THAT(parseFailure("FROM x\n" + longest + "a\n"), HasSubstr("65535"));
}

TEST_F(Language, Line04ExecFormIsAnArrayOfStrings) {
  const auto image = build("FROM scratch\nENTRYPOINT [\"a\", \"b c\"]\nCMD [broken\n");
  EXPECT_THAT(*image.config.config.entrypoint, ElementsAre("a", "b c"));
  EXPECT_THAT(*image.config.config.cmd, ElementsAre("/bin/sh", "-c", "[broken"));
  EXPECT_THAT(parseFailure("FROM x\nCMD [\"a\", 1]\n"), HasSubstr("not a string"));
  EXPECT_THAT(failure("FROM scratch\nSHELL /bin/bash -c\n"), HasSubstr("JSON form"));
  build("FROM scratch\nSHELL [\"/bin/bash\", \"-ec\"]\nRUN x\n");
  EXPECT_THAT(runner_.ran.back().step.arguments, ElementsAre("/bin/bash", "-ec", "x"));
}

TEST_F(Language, Line05TheOldFormOfEnvSetsOneVariable) {
  EXPECT_THAT(build("FROM scratch\nENV ONE TWO= THREE=x\n").config.config.env,
              Contains("ONE=TWO= THREE=x"));
  EXPECT_THAT(failure("FROM scratch\nENV a=1 b\n"), HasSubstr("name=value"));
}

TEST_F(Language, Line06SubstitutionUsesValuesFromBeforeTheInstruction) {
  const auto image = build("FROM scratch\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n");
  EXPECT_THAT(image.config.config.env, Contains("def=hello"));
  EXPECT_THAT(image.config.config.env, Contains("ghi=bye"));
}

TEST_F(Language, Line07SingleQuotesAndEscapesBlockExpansion) {
  const auto image =
      build("FROM scratch\nENV x=1\nENV a='$x' b=\"$x\" c=\\$x d=[$undefined] e=${x}y\n");
  for (const char* item : {"a=$x", "b=1", "c=$x", "d=[]", "e=1y"})
    EXPECT_THAT(image.config.config.env, Contains(item));
}

TEST_F(Language, Line08Modifiers) {
  const auto image = build(
      "FROM scratch\nENV v=foobarbaz e=\nENV a=${u:-d} b=${e-d} c=${e:-d} d=${v:+s} f=${u+s} "
      "g=${v#f*b} h=${v##f*b} i=${v%b*} j=${v%%b*} k=${v/ba/X} l=${v//ba/X} m=${v#?oo}\n");
  for (const char* item : {"a=d", "b=", "c=d", "d=s", "f=", "g=arbaz", "h=az", "i=foobar", "j=foo",
                           "k=fooXrbaz", "l=fooXrXz", "m=barbaz"})
    EXPECT_THAT(image.config.config.env, Contains(item));
  EXPECT_THAT(failure("FROM scratch\nENV a=\"${u:?give u}\"\n"), HasSubstr("u: give u"));
  EXPECT_THAT(failure("FROM scratch\nENV a=${u?}\n"), HasSubstr("u: "));
  for (const char* bad : {"${v:#f}", "${v:%z}", "${v:/a/b}", "${v!}"})
    EXPECT_THAT(failure("FROM scratch\nENV v=1 a=" + std::string(bad) + "\n"),
                HasSubstr("unsupported modifier"));
}

TEST_F(Language, Line09WhereVariablesAreExpanded) {
  const auto image = build(
      "FROM scratch\nENV v=8 d=/dir s=INT\nCOPY f$v $d/\nADD f$v $d/added\nLABEL l=$v\nEXPOSE "
      "${v}0\nSTOPSIGNAL SIG$s\nUSER $v\nVOLUME $d\nWORKDIR $d/w\nRUN echo $v\nCMD echo "
      "$v\nENTRYPOINT [\"$v\"]\n",
      {{"f8", "F"}});
  EXPECT_EQ(fileOf(image, "/dir/f8"), "F");
  EXPECT_EQ(fileOf(image, "/dir/added"), "F");
  const auto& config = image.config.config;
  EXPECT_EQ(config.labels.at("l"), "8");
  EXPECT_THAT(config.exposed_ports, ElementsAre("80/tcp"));
  EXPECT_EQ(config.stop_signal, "SIGINT");
  EXPECT_EQ(config.user, "8");
  EXPECT_THAT(config.volumes, ElementsAre("/dir"));
  EXPECT_EQ(config.working_dir, "/dir/w");
  EXPECT_EQ(lastRun(runner_), "echo $v");
  EXPECT_EQ(config.cmd->back(), "echo $v");
  EXPECT_THAT(*config.entrypoint, ElementsAre("$v"));
  EXPECT_EQ(parseMount("type=cache,target=/c$x",
                       [](const std::string& text) { return text == "/c$x" ? "/c1" : text; })
                .target,
            "/c1");
}

TEST_F(Language, Line10FromOfCopyAndMountTakesNoVariables) {
  const std::string stages = "FROM scratch AS a\nFROM scratch\nARG x=a\n";
  EXPECT_THAT(failure(stages + "COPY --from=$x / /\n"),
              HasSubstr("doesn't support variable expansion"));
  EXPECT_THAT(failure(stages + "RUN --mount=from=$x,target=/m true\n"),
              HasSubstr("doesn't support variable expansion"));
}

TEST_F(Language, Line11GlobalAndPlatformArgsAreVisibleOnceDeclared) {
  const auto image = build(
      "ARG B=scratch\nARG G=g\nFROM --platform=$BUILDPLATFORM $B\nENV a=[$G$TARGETARCH]\nARG "
      "G\nARG TARGETARCH\nARG TARGETPLATFORM\nENV b=\"[$G $TARGETARCH $TARGETPLATFORM]\"\n");
  EXPECT_THAT(image.config.config.env, Contains("a=[]"));
  EXPECT_THAT(image.config.config.env, Contains("b=[g amd64 linux/amd64]"));
}

TEST_F(Language, Line12ProxyArgsNeedNoDeclarationAndLeaveNoTrace) {
  request_.build_args = {{"HTTP_PROXY", "p1"}, {"no_proxy", "p2"}, {"ALL_PROXY", "p3"}};
  const auto image = build("FROM scratch\nRUN x\n");
  for (const char* item : {"HTTP_PROXY=p1", "no_proxy=p2", "ALL_PROXY=p3"})
    EXPECT_THAT(runner_.ran[0].step.environment, Contains(item));
  EXPECT_EQ(image.config.history.back().created_by, "RUN /bin/sh -c x # buildkit");
  request_.build_args["HTTP_PROXY"] = "other";
  build("FROM scratch\nRUN x\n");
  EXPECT_EQ(runner_.ran.size(), 1u);
  const auto declared = build("FROM scratch\nARG HTTP_PROXY\nRUN x\n");
  EXPECT_EQ(runner_.ran.size(), 2u);
  EXPECT_THAT(declared.config.history.back().created_by, HasSubstr("|1 HTTP_PROXY=other"));
}

TEST_F(Language, Line13TheLaterOfArgAndEnvWins) {
  request_.build_args = {{"X", "arg"}};
  build("FROM scratch\nARG X\nENV X=env-$X\nRUN a\n");
  EXPECT_THAT(runner_.ran.back().step.environment, Contains("X=env-arg"));
  build("FROM scratch\nENV X=env\nARG X\nRUN b\nRUN c\n");
  EXPECT_THAT(runner_.ran.back().step.environment, Contains("X=arg"));
}

TEST_F(Language, Line14FromAStageInheritsAndCopyFromDoesNot) {
  build("FROM scratch AS base\nARG A=a\nENV E=e\nFROM base\nRUN x\n");
  EXPECT_THAT(runner_.ran.back().step.environment, Contains("A=a"));
  EXPECT_THAT(runner_.ran.back().step.environment, Contains("E=e"));
  const auto image = build(
      "FROM scratch AS base\nARG A=a\nENV E=e\nLABEL l=l\nCOPY f /f\nFROM scratch\nCOPY "
      "--from=base /f /f\nRUN y\n",
      {{"f", "F"}});
  EXPECT_THAT(runner_.ran.back().step.environment, Not(Contains("A=a")));
  EXPECT_THAT(image.config.config.env, Not(Contains("E=e")));
  EXPECT_TRUE(image.config.config.labels.empty());
}

TEST_F(Language, Line15StageNamesAndReferences) {
  const auto image = build(
      "FROM scratch AS First\nCOPY f /f\nFROM scratch\nCOPY --from=FIRST /f /1\nCOPY --from=0 /f "
      "/0\n",
      {{"f", "F"}});
  EXPECT_EQ(fileOf(image, "/1") + fileOf(image, "/0"), "FF");
  EXPECT_THAT(failure("FROM scratch AS 1x\n"), HasSubstr("invalid name for build stage"));
  EXPECT_THAT(failure("FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\n"),
              HasSubstr("no earlier stage"));
  EXPECT_THAT(failure("FROM scratch AS a\nCOPY --from=a / /\n"), HasSubstr("from itself"));
  EXPECT_THAT(failure("FROM scratch AS a\nCOPY --from=7 / /\n"), HasSubstr("no earlier stage"));
}

TEST_F(Language, Line15NamedContextsHideStagesAndImages) {
  request_.contexts = {{"src", "context://.other/src"}, {"base", "docker-image://real"}};
  request_.tags = {image::Reference::parse("real")};
  build("FROM scratch\nCOPY d /d\n", {{"d/", ""}, {"d/real", "R"}});
  request_.tags.clear();
  const auto image =
      build("FROM scratch AS src\nRUN never\nFROM base\nCOPY --from=src f /f\nCOPY . /all/\n",
            {{".other/", ""}, {".other/src/", ""}, {".other/src/f", "named"}, {"mine", "M"}});
  EXPECT_EQ(fileOf(image, "/f"), "named");
  EXPECT_EQ(fileOf(image, "/d/real"), "R");
  EXPECT_TRUE(has(image, "all/mine"));
  EXPECT_FALSE(has(image, "all/.other/src"));
  EXPECT_TRUE(runner_.ran.empty());
}

TEST_F(Language, Line16OnlyWhatTheTargetNeedsIsBuilt) {
  build("FROM scratch AS a\nRUN a\nFROM scratch AS b\nRUN b\nFROM scratch\nCOPY --from=a / /a\n");
  ASSERT_EQ(runner_.ran.size(), 1u);
  EXPECT_EQ(lastRun(runner_), "a");
}

TEST_F(Language, Line17EntrypointClearsInheritedCmd) {
  EXPECT_FALSE(build("FROM scratch AS base\nCMD [\"old\"]\nFROM base\nENTRYPOINT [\"e\"]\n")
                   .config.config.cmd);
  EXPECT_THAT(*build("FROM scratch AS base\nCMD [\"old\"]\nFROM base\nCMD [\"new\"]\nENTRYPOINT "
                     "[\"e\"]\n")
                   .config.config.cmd,
              ElementsAre("new"));
}

TEST_F(Language, Line18WorkdirChainsAndBelongsToTheUser) {
  const auto image = build("FROM scratch\nWORKDIR /a\nUSER 7:8\nWORKDIR b\nWORKDIR ../c\n");
  EXPECT_EQ(image.config.config.working_dir, "/a/c");
  EXPECT_EQ(inodeOf(image, "a").uid, 0u);
  for (const char* path : {"a/b", "a/c"}) {
    EXPECT_EQ(inodeOf(image, path).uid, 7u);
    EXPECT_EQ(inodeOf(image, path).gid, 8u);
    EXPECT_EQ(inodeOf(image, path).mode, 0755);
  }
}

TEST_F(Language, Line19ABaseWithoutPathGetsOne) {
  EXPECT_THAT(build("FROM scratch\nRUN x\n").config.config.env,
              ElementsAre("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
  EXPECT_THAT(build("FROM scratch\nENV PATH=/mine\nRUN y\n").config.config.env,
              ElementsAre("PATH=/mine"));
  EXPECT_THAT(runner_.ran.back().step.environment, Contains("PATH=/mine"));
}

}  // namespace
}  // namespace hull::build
