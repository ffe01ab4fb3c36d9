// The Dockerfile language, rule by rule: LineNN is a rule of the reference that naive builders get
// wrong. What a rule means end to end, in a VM, is in tests/e2e/test_build.py.
#include <unistd.h>

#include <condition_variable>
#include <ctime>
#include <future>

#include "base/subprocess.h"
#include "image/build/cache.h"
#include "image/build/dockerfile.h"
#include "image/build/fetch.h"
#include "image/build/mounts.h"
#include "image/build/testing/build_fixture.h"
#include "image/build/testing/file_server.h"

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

TEST_F(Language, Line20CopiesBelongToRootWhateverTheUser) {
  const auto image = build(
      "FROM scratch\nCOPY etc /etc\nUSER 9\nCOPY f /f\nCOPY --chown=bob f /bob\nCOPY --chown=bob:g "
      "f /bobg\nCOPY --chown=42 f /n\n",
      {{"etc/", ""},
       {"etc/passwd", "bob:x:100:200::/:/bin/sh\n"},
       {"etc/group", "g:x:300:\n"},
       {"f", "F"}});
  const auto owner = [&](const char* path) {
    return std::pair(inodeOf(image, path).uid, inodeOf(image, path).gid);
  };
  EXPECT_EQ(owner("f"), std::pair(0u, 0u));
  EXPECT_EQ(owner("bob"), std::pair(100u, 100u));
  EXPECT_EQ(owner("bobg"), std::pair(100u, 300u));
  EXPECT_EQ(owner("n"), std::pair(42u, 42u));
  EXPECT_THAT(failure("FROM scratch\nCOPY --chown=nobody f /f\n", {{"f", ""}}),
              HasSubstr("no user 'nobody'"));
}

TEST_F(Language, Line21WhatACopyMeansByItsSourceAndDestination) {
  const auto image = build("FROM scratch\nCOPY d /d\nCOPY ../../d/x /x\nCOPY d/x d/y /two/\n",
                           {{"d/", ""}, {"d/x", "X"}, {"d/y", "Y"}});
  EXPECT_TRUE(has(image, "d/x"));
  EXPECT_FALSE(has(image, "d/d"));
  EXPECT_EQ(fileOf(image, "/x"), "X");
  EXPECT_EQ(fileOf(image, "/two/y"), "Y");
  const std::vector<std::pair<std::string, std::string>> files = {
      {"d/", ""}, {"d/x", ""}, {"f", ""}};
  EXPECT_THAT(failure("FROM scratch\nCOPY d f /nowhere\n", files), HasSubstr("end with a /"));
  EXPECT_THAT(failure("FROM scratch\nCOPY f /f\nCOPY d /f\n", files), HasSubstr("over the file"));
}

TEST_F(Language, Line22AWildcardMayMatchNothingAndANameMayNot) {
  EXPECT_EQ(failure("FROM scratch\nCOPY no*thing /x/\n"), "");
  EXPECT_THAT(failure("FROM scratch\nCOPY nothing /x/\n"), HasSubstr("\"/nothing\": not found"));
}

TEST_F(Language, Line23LinkMakesRealFoldersAndItsLayerFitsAnyBase) {
  const std::vector<std::pair<std::string, std::string>> files = {
      {"base/", ""}, {"base/real/", ""}, {"base/l", "-> real"}, {"f", "F"}};
  const auto image = build("FROM scratch\nCOPY base /\nCOPY --link f /l/f\n", files);
  EXPECT_EQ(inodeOf(image, "l").type, image::EntryType::kDirectory);
  EXPECT_EQ(fileOf(image, "/l/f"), "F");
  EXPECT_FALSE(has(image, "real/f"));
  const auto other = build("FROM scratch\nCOPY f /other\nCOPY --link f /l/f\n", files);
  EXPECT_EQ(cachedSteps(), 1);  // though what is below it is another
  EXPECT_EQ(image.config.diff_ids.back(), other.config.diff_ids.back());
}

TEST_F(Language, Line23LinkLeavesTheAttributesOfFoldersBelowAlone) {
  const auto image = build("FROM scratch\nCOPY --chmod=1777 d /tmp\nCOPY --link f /tmp/f\n",
                           {{"d/", ""}, {"f", "F"}});
  EXPECT_EQ(inodeOf(image, "tmp").mode, 01777);
}

TEST_F(Language, Line23ParentsKeepFoldersFromThePivotOn) {
  const auto image = build(
      "FROM scratch\nCOPY --parents a/b/x.t /one/\nCOPY --parents a/./b/x.t /two/\nCOPY --parents "
      "./**/*.t /three/\nCOPY --parents a/./**/*.t /four/\n",
      {{"a/", ""}, {"a/b/", ""}, {"a/b/x.t", "X"}, {"a/y.t", "Y"}, {"z.t", "Z"}, {"z.u", "U"}});
  EXPECT_EQ(fileOf(image, "/one/a/b/x.t"), "X");
  EXPECT_EQ(fileOf(image, "/two/b/x.t"), "X");
  EXPECT_EQ(
      fileOf(image, "/three/a/b/x.t") + fileOf(image, "/three/a/y.t") + fileOf(image, "/three/z.t"),
      "XYZ");
  EXPECT_FALSE(has(image, "three/z.u"));
  EXPECT_EQ(fileOf(image, "/four/b/x.t") + fileOf(image, "/four/y.t"), "XY");
  EXPECT_EQ(inodeOf(image, "one/a").mode, 0700);  // as in the source
}

TEST_F(Language, Line23ExcludeLeavesOut) {
  const auto image = build(
      "FROM scratch\nCOPY --exclude=*.log --exclude=**/tmp --exclude=!keep.log . /d/\nCOPY "
      "--exclude=b* *.txt /t/\n",
      {{"a.log", ""},
       {"keep.log", ""},
       {"s/", ""},
       {"s/tmp/", ""},
       {"s/tmp/x", ""},
       {"s/y", ""},
       {"a.txt", ""},
       {"b.txt", ""}});
  EXPECT_FALSE(has(image, "d/a.log"));
  EXPECT_TRUE(has(image, "d/keep.log"));
  EXPECT_FALSE(has(image, "d/s/tmp"));
  EXPECT_TRUE(has(image, "d/s/y"));
  EXPECT_TRUE(has(image, "t/a.txt"));
  EXPECT_FALSE(has(image, "t/b.txt"));
}

TEST_F(Language, Line24LocalArchivesUnpackByContentAndDownloadsDoNot) {
  const std::string tar = contextTar({{"in", "I"}});
  const testing::FileServer server(
      {{"/files/a.tar", {tar, "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n", 200}},
       {"/", {"index", "", 200}}});
  const auto image =
      build("FROM scratch\nADD plain /d/\nADD fake.tar.gz /d/\nADD " + server.url("/files/a.tar") +
                " /u/\nADD --unpack " + server.url("/files/a.tar") + " /up/\nADD " +
                server.url("/files/a.tar") + " /named\n",
            {{"plain", tar}, {"fake.tar.gz", "\x1f\x8b no"}});
  EXPECT_EQ(fileOf(image, "/d/in"), "I");
  EXPECT_TRUE(has(image, "d/fake.tar.gz"));
  EXPECT_EQ(inodeOf(image, "u/a.tar").mode, 0600);
  EXPECT_EQ(inodeOf(image, "u/a.tar").size, tar.size());
  EXPECT_EQ(inodeOf(image, "u/a.tar").mtime_seconds, 784111777);
  EXPECT_EQ(fileOf(image, "/up/in"), "I");
  EXPECT_EQ(inodeOf(image, "named").size, tar.size());
  EXPECT_THAT(failure("FROM scratch\nADD " + server.url("/none") + " /x\n"), HasSubstr("404"));
  EXPECT_THAT(failure("FROM scratch\nADD " + server.url("/") + " /d/\n"),
              HasSubstr("names no file"));
  EXPECT_EQ(failure("FROM scratch\nADD " + server.url("/") + " /index\n"), "");
}

TEST_F(Language, Line25DownloadsAreHeldAgainstTheirChecksum) {
  const testing::FileServer server({{"/f", {"data", "", 200}}});
  const std::string right =
      "sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7";
  const std::string file =
      "FROM scratch\nADD --checksum=" + right + " " + server.url("/f") + " /f\n";
  EXPECT_EQ(fileOf(build(file), "/f"), "data");
  EXPECT_EQ(server.requests(), 1);
  build(file);
  EXPECT_EQ(server.requests(), 1);  // its name was enough
  std::string wrong = right;
  wrong.back() = '0';
  EXPECT_THAT(failure("FROM scratch\nADD --checksum=" + wrong + " " + server.url("/f") + " /f\n"),
              HasSubstr("digest mismatch"));
  EXPECT_THAT(failure("FROM scratch\nADD --checksum=" + right + " local /f\n", {{"local", ""}}),
              HasSubstr("for sources from HTTP(S) and git"));
}

class GitLanguage : public testing::BuilderTest {
 protected:
  GitLanguage() {
    request_.git_protocols = "file";
    git({"init", "--quiet", "--initial-branch=main"});
    write("top", "first");
    makeDirectories(repository_.path() + "/sub");
    write("sub/f", "F");
    write("left-out", "L");
    write(".gitattributes", "left-out export-ignore\n");
    commit();
    git({"tag", "v1"});
    first_ = head();
    write("top", "second");
    commit();
  }
  void write(const std::string& name, const std::string& text) {
    writeFileAtomic(repository_.path() + "/" + name, text);
  }
  void commit() {
    git({"add", "."});
    git({"-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "x"});
  }
  std::string git(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"git", "-C", repository_.path()});
    return checkCommand(arguments);
  }
  std::string head() { return git({"rev-parse", "HEAD"}).substr(0, 40); }
  std::string address(const std::string& fragment = "") const {
    return "file://" + repository_.path() + "/.git" + fragment;
  }

  TemporaryDirectory repository_{"hull-git-test"};
  std::string first_;
};

TEST_F(GitLanguage, Line25GitSourcesHaveReferencesFoldersAndChecksums) {
  const auto image = build("FROM scratch\nADD " + address() + " /head\nADD " + address("#v1") +
                           " /tag\nADD " + address("#main:sub") + " /sub\nADD --keep-git-dir " +
                           address() + " /kept\nADD --checksum=" + first_.substr(0, 9) + " " +
                           address("#" + first_) + " /commit\n");
  EXPECT_EQ(fileOf(image, "/head/top"), "second");
  EXPECT_EQ(fileOf(image, "/head/left-out"), "L");  // the repository's attributes do not matter
  EXPECT_FALSE(has(image, "head/.git"));
  EXPECT_EQ(fileOf(image, "/tag/top"), "first");
  EXPECT_EQ(fileOf(image, "/sub/f"), "F");
  EXPECT_FALSE(has(image, "sub/top"));
  EXPECT_EQ(fileOf(image, "/kept/.git/HEAD").substr(0, 40), head());
  EXPECT_EQ(fileOf(image, "/commit/top"), "first");
  EXPECT_THAT(failure("FROM scratch\nADD --checksum=" + first_ + " " + address() + " /x\n"),
              HasSubstr("checksum mismatch"));
  EXPECT_THAT(failure("FROM scratch\nADD " + address("#nope") + " /x\n"), HasSubstr("nope"));
  EXPECT_THAT(failure("FROM scratch\nADD " + address("#main:nope") + " /x\n"),
              HasSubstr("no folder \"nope\""));
}

TEST_F(GitLanguage, Line25AnAddressIsNeverAnOption) {
  const std::string mark = repository_.path() + "/mark";
  for (const std::string& bad :
       {std::string("ssh://-oProxyCommand=x/r.git"), std::string("git@-oProxyCommand=x:r.git"),
        address("#--upload-pack=touch " + mark), address("#a..b"), address("#-x")}) {
    EXPECT_THROW(parseGitAddress(bad), Error) << bad;
  }
  EXPECT_FALSE(parseGitAddress("ext::sh -c touch% " + mark));
  EXPECT_FALSE(parseGitAddress("https://host/file.tar.gz"));
  EXPECT_FALSE(fileExists(mark));
  request_.git_protocols.clear();
  EXPECT_THAT(failure("FROM scratch\nADD " + address() + " /x\n"), HasSubstr("not allowed"));
}

TEST_F(Language, Line26HereDocuments) {
  const auto image = build(
      "FROM scratch\nENV A=1\nRUN <<EOF\necho $A\nEOF\nRUN <<-EOT cat\n\ta\n\t b\n\tEOT\nCOPY "
      "<<robots.txt <<\"two words\" /d/\n[$A]\nrobots.txt\n[$A]\ntwo words\n");
  EXPECT_THAT(runner_.ran[0].step.arguments, ElementsAre("/bin/sh", "-c", "echo $A\n"));
  EXPECT_EQ(runner_.ran[1].step.arguments.back(), "<<-EOT cat\na\n b\nEOT\n");
  EXPECT_EQ(fileOf(image, "/d/robots.txt"), "[1]\n");
  EXPECT_EQ(fileOf(image, "/d/two words"), "[$A]\n");
  EXPECT_EQ(inodeOf(image, "d/robots.txt").mode, 0644);
  EXPECT_THAT(failure("FROM scratch\nRUN <<EOF\nx\n"), HasSubstr("unterminated heredoc"));
}

std::vector<RunMount> mountsOf(testing::FakeRunner& runner) {
  return runner.ran.back().step.mounts;
}

std::string treeText(const RunMount& mount) {
  StringSink tar;
  mount.tree(tar);
  return tar.text;
}

TEST_F(Language, Line27MountsHaveTheirDefaultsAndBounds) {
  std::string tree;  // what a mount names lives as long as its step
  runner_.on_run = [&](const RunStep& step) { tree = treeText(step.mounts.at(0)); };
  build(
      "FROM scratch AS other\nCOPY f /from-stage\nFROM scratch\nWORKDIR /w\nRUN --mount=target=src "
      "--mount=type=bind,from=other,source=from-stage,target=/one,rw "
      "--mount=type=cache,target=/var//c/ --mount=type=tmpfs,target=/t,size=1m true\n",
      {{"f", "F"}});
  runner_.on_run = nullptr;
  const auto mounts = mountsOf(runner_);
  ASSERT_EQ(mounts.size(), 4u);
  EXPECT_EQ(mounts[0].target, "/w/src");
  EXPECT_TRUE(mounts[0].read_only);
  EXPECT_THAT(tree, HasSubstr("Dockerfile"));
  EXPECT_FALSE(mounts[1].read_only);
  EXPECT_EQ(mounts[1].tree_file, "file");
  EXPECT_EQ(mounts[2].cache, (MountCache{"/var/c", false}));
  EXPECT_EQ(mounts[2].mode, 0755);
  EXPECT_FALSE(mounts[2].read_only);
  EXPECT_EQ(mounts[3].size_bytes, 1u << 20);
  const auto problem = [&](const std::string& mount) {
    return failure("FROM scratch\nRUN --mount=" + mount + " true\n");
  };
  EXPECT_THAT(problem("target=/"), HasSubstr("root cannot be mounted over"));
  EXPECT_THAT(problem("type=cache"), HasSubstr("target is needed"));
  EXPECT_THAT(problem("type=cahce,target=/c"), HasSubstr("did you mean cache?"));
  EXPECT_THAT(problem("type=bind,targte=/c"), HasSubstr("did you mean target?"));
  EXPECT_THAT(problem("type=cache,target=/c,sharing=x"), HasSubstr("shared, private or locked"));
  EXPECT_THAT(problem("type=tmpfs,target=/c,size=x"), HasSubstr("invalid size"));
  EXPECT_THAT(problem("source=/none,target=/c"), HasSubstr("not found"));
}

TEST_F(Language, Line27KeysHoldWhatIsMountedAndNotWhatACacheHolds) {
  const auto runs = [&](const std::string& mount, const std::string& text) {
    const size_t before = runner_.ran.size();
    build("FROM scratch\nRUN --mount=" + mount + " x\n", {{"s/", ""}, {"s/f", text}});
    return runner_.ran.size() - before;
  };
  EXPECT_EQ(runs("source=s,target=/s", "1"), 1u);
  EXPECT_EQ(runs("source=s,target=/s", "1"), 0u);
  EXPECT_EQ(runs("source=s,target=/s", "2"), 1u);
  EXPECT_EQ(runs("type=cache,target=/s", "1"), 1u);
  EXPECT_EQ(runs("type=cache,target=/s", "2"), 0u);
  EXPECT_EQ(runs("type=cache,target=/s,id=other", "2"), 1u);
}

TEST_F(Language, Line28SecretsAreFilesOrVariablesAndNoPartOfAnything) {
  request_.secrets = {{"tok", "s3cr3t-value"}};
  request_.tags = {image::Reference::parse("with-secret")};
  const std::string dockerfile =
      "FROM scratch\nRUN --mount=type=secret,id=tok --mount=type=secret,id=absent "
      "--mount=type=secret,id=tok,env=TOKEN --mount=type=secret,id=tok,target=/t,mode=0440,uid=5 "
      "x\n";
  build(dockerfile);
  const RunStep step = runner_.ran.back().step;
  ASSERT_EQ(step.mounts.size(), 2u);
  EXPECT_EQ(step.mounts[0].target, "/run/secrets/tok");
  EXPECT_EQ(step.mounts[0].mode, 0400);
  EXPECT_EQ(step.mounts[0].content, "s3cr3t-value");
  EXPECT_EQ(step.mounts[1].target, "/t");
  EXPECT_EQ(step.mounts[1].uid, 5u);
  EXPECT_THAT(step.environment, Contains("TOKEN=s3cr3t-value"));
  request_.secrets["tok"] = "other";
  build(dockerfile);
  EXPECT_EQ(runner_.ran.size(), 1u) << "its value is in the key";
  EXPECT_THAT(failure("FROM scratch\nRUN --mount=type=secret,id=no,required x\n"),
              HasSubstr("secret no: not found"));
}

// The stand-in VM writes the environment into its layer; here it must not have the secret there.
TEST_F(Language, Line28NoFileOfTheStoreHoldsASecret) {
  request_.secrets = {{"tok", "s3cr3t-value"}};
  request_.tags = {image::Reference::parse("with-secret")};
  build("FROM scratch\nARG A=1\nRUN --mount=type=secret,id=tok x\n");
  EXPECT_NE(runCommand({"grep", "-r", "-a", "-l", "s3cr3t-value", folder_.path()}).status, 0);
  EXPECT_EQ(runCommand({"grep", "-r", "-a", "-q", "with-secret", folder_.path()}).status, 0);
}

TEST_F(Language, NetworkAndCachesDecideTheMachine) {
  build(
      "FROM scratch\nRUN a\nRUN --network=none b\nRUN --mount=type=cache,target=/c c\nRUN "
      "--mount=type=cache,target=/c d\nRUN --security=insecure e\n");
  EXPECT_EQ(runner_.sessions, 3);
  EXPECT_EQ(runner_.options[1].network, false);
  EXPECT_TRUE(runner_.options[2].network);
  EXPECT_THAT(runner_.options[2].caches, ElementsAre(MountCache{"/c", false}));
  EXPECT_TRUE(runner_.ran.back().step.all_capabilities);
  EXPECT_THAT(failure("FROM scratch\nRUN --network=host x\n"), HasSubstr("not supported"));
}

TEST_F(Language, Line26AScriptWithAnInterpreterIsAProgram) {
  build("FROM scratch\nRUN <<EOF\n#!/usr/bin/python3\nprint(1)\nEOF\n");
  const RunStep& step = runner_.ran.back().step;
  EXPECT_THAT(step.arguments, ElementsAre("/dev/pipes/EOF"));
  EXPECT_EQ(step.mounts.at(0).content, "#!/usr/bin/python3\nprint(1)\n");
  EXPECT_EQ(step.mounts[0].mode, 0755);
}

TEST_F(Language, Line29VolumesKeepLaterChangesAndHealthChecksTheirUnsetFields) {
  const auto image = build(
      "FROM scratch\nVOLUME /v\nCOPY f /v/f\nHEALTHCHECK NONE\nHEALTHCHECK --interval=2s "
      "--start-interval=1500ms --retries=4 CMD a b\n",
      {{"f", "F"}});
  EXPECT_EQ(fileOf(image, "/v/f"), "F");
  const auto& check = *image.config.config.health_check;
  EXPECT_THAT(check.test, ElementsAre("CMD-SHELL", "a b"));
  EXPECT_EQ(check.interval_ns, 2'000'000'000);
  EXPECT_EQ(check.start_interval_ns, 1'500'000'000);
  EXPECT_EQ(check.timeout_ns, 0);
  EXPECT_EQ(check.retries, 4);
  for (const auto& [text, problem] : {std::pair{"--interval=999us CMD x", "at least 1ms"},
                                      {"--timeout=x CMD x", "duration"},
                                      {"--retries=-1 CMD x", "--retries"},
                                      {"NONE x", "no arguments"},
                                      {"CMD", "missing command"},
                                      {"--intervall=1s CMD x", "did you mean --interval?"}}) {
    EXPECT_THAT(failure("FROM scratch\nHEALTHCHECK " + std::string(text) + "\n"),
                HasSubstr(problem));
  }
}

TEST_F(Language, Line30TriggersRunRightAfterFromAndAreCleared) {
  request_.tags = {image::Reference::parse("parent")};
  build("FROM scratch\nONBUILD COPY f /f\nONBUILD RUN <<EOF\ntriggered\nEOF\n");
  request_.tags.clear();
  const auto child = build("FROM parent\nRUN after\n", {{"f", "F"}});
  EXPECT_EQ(fileOf(child, "/f"), "F");
  EXPECT_EQ(runner_.ran[0].step.arguments.back(), "triggered\n");
  EXPECT_EQ(runner_.ran[1].step.arguments.back(), "after");
  EXPECT_TRUE(child.config.config.on_build.empty());
  for (const char* bad : {"ONBUILD ENV a=1", "FROM scratch", "MAINTAINER me"})
    EXPECT_THAT(failure("FROM scratch\nONBUILD " + std::string(bad) + "\n"),
                HasSubstr("isn't allowed"));
}

TEST_F(Language, Line31PortsSignalsAndHistory) {
  const auto image = build(
      "FROM scratch\nEXPOSE 8000-8002/udp 80\nSTOPSIGNAL SIGRTMIN+3\nARG B=2\nARG A=1\nRUN x\n");
  EXPECT_THAT(image.config.config.exposed_ports,
              ::testing::UnorderedElementsAre("8000/udp", "8001/udp", "8002/udp", "80/tcp"));
  EXPECT_EQ(image.config.history.back().created_by, "RUN |2 A=1 B=2 /bin/sh -c x # buildkit");
  for (const char* signal : {"SIGTERM", "9", "QUIT", "SIGRTMAX-2"})
    EXPECT_EQ(failure("FROM scratch\nSTOPSIGNAL " + std::string(signal) + "\n"), "");
  for (const char* signal : {"SIGNOTHING", "0", "65", "-1", "SIGRTMIN+99"})
    EXPECT_THAT(failure("FROM scratch\nSTOPSIGNAL " + std::string(signal) + "\n"),
                HasSubstr("invalid signal"));
  EXPECT_THAT(failure("FROM scratch\nEXPOSE 9-8\n"), HasSubstr("invalid port"));
}

TEST_F(Language, IgnoreRulesOfTheDockerfileBeatThoseOfTheContext) {
  const std::vector<std::pair<std::string, std::string>> files = {
      {".dockerignore", "*\n"}, {"Dockerfile.dockerignore", ""}, {"f", "F"}};
  EXPECT_EQ(fileOf(build("FROM scratch\nCOPY f /f\n", files), "/f"), "F");
}

TEST_F(Language, KeysOfCopiesHoldContentAndModeAndNoTimes) {
  const auto key = [&](const std::string& text, const std::string& flags) {
    build("FROM scratch\nCOPY " + flags + " f /f\n", {{"f", text}});
    return cachedSteps();
  };
  EXPECT_EQ(key("1", ""), 0);
  EXPECT_EQ(key("1", ""), 1);  // every context has later times
  EXPECT_EQ(key("2", ""), 0);
  EXPECT_EQ(key("1", "--chmod=600"), 0);
  EXPECT_EQ(key("1", "--chown=5"), 0);
  EXPECT_EQ(key("1", "--chmod=600"), 1);
}

TEST_F(Language, KeysOfRunsHoldWhatTheCommandCanSee) {
  const auto runs = [&](const std::string& lines) {
    const size_t before = runner_.ran.size();
    build("FROM scratch\n" + lines + "RUN x\n");
    return runner_.ran.size() - before;
  };
  EXPECT_EQ(runs(""), 1u);
  EXPECT_EQ(runs(""), 0u);
  EXPECT_EQ(runs("ENV A=1\n"), 1u);
  EXPECT_EQ(runs("USER 5\n"), 1u);
  EXPECT_EQ(runs("WORKDIR /w\n"), 1u);
  EXPECT_EQ(runs("SHELL [\"/bin/bash\", \"-c\"]\n"), 1u);
  request_.network = false;
  EXPECT_EQ(runs(""), 1u);
}

TEST_F(Language, ChecksWarnAndCanFailTheBuild) {
  const auto rules = [&] {
    std::vector<std::string> found;
    for (const auto& event : events_) {
      if (event.kind == BuildEvent::Kind::kWarning) found.push_back(event.name);
    }
    return found;
  };
  build("FROM scratch AS Big\nCMD x\n");
  EXPECT_THAT(rules(), ElementsAre("StageNameCasing", "JSONArgsRequired"));
  EXPECT_EQ(failure("# check=error=true\nFROM scratch AS Big\nRUN x\n"),
            "lint violation found for rules: StageNameCasing");
  EXPECT_EQ(failure("# check=error=true;skip=StageNameCasing\nFROM scratch AS Big\n"), "");
  request_.check_only = true;
  EXPECT_THAT(failure("FROM scratch\nRUN x\nCMD x\n"), HasSubstr("JSONArgsRequired"));
  EXPECT_EQ(failure("FROM scratch\nRUN x\n"), "");
  EXPECT_TRUE(runner_.ran.empty());
}

TEST_F(Language, ContextsComeFromAddresses) {
  const std::string tar = contextTar({{"Dockerfile", "FROM scratch\nCOPY f /f\n"}, {"f", "F"}});
  const testing::FileServer server(
      {{"/c.tar", {tar, "", 200}}, {"/Dockerfile", {"FROM scratch\nENV A=1\n", "", 200}}});
  request_.remote_context = server.url("/c.tar");
  EXPECT_EQ(fileOf(build(""), "/f"), "F");
  request_.remote_context = server.url("/Dockerfile");
  EXPECT_THAT(build("").config.config.env, Contains("A=1"));
  request_.remote_context = "ftp://x/y";
  EXPECT_THAT(failure(""), HasSubstr("neither a git repository"));
}

TEST_F(Language, ReproducibleBuildsGiveTheSameDigests) {
  request_.build_args = {{"SOURCE_DATE_EPOCH", "86400"}};
  const std::string dockerfile = "FROM scratch\nWORKDIR /w\nCOPY f /f\nRUN x\n";
  const auto first = build(dockerfile, {{"f", "F"}});
  request_.no_cache = true;
  runner_.ran.clear();
  const auto second = build(dockerfile, {{"f", "F"}});  // with other times
  EXPECT_EQ(first.id, second.id);
  EXPECT_EQ(first.manifest, second.manifest);
  EXPECT_EQ(inodeOf(first, "f").mtime_seconds, 86400);
  EXPECT_EQ(first.config.history.back().created, "1970-01-02T00:00:00Z");
}

TEST_F(Language, TheCacheSurvivesCollectionsAndGoesWhenPruned) {
  const auto cache = BuildCache::open(store_);
  const auto image = build("FROM scratch\nRUN x\n");
  store_.remove(image.id.text(), true, [](const image::Digest&) { return false; });
  store_.collectGarbage();
  build("FROM scratch\nRUN x\n");
  EXPECT_EQ(runner_.ran.size(), 1u);
  const auto records = cache->list();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].description, "RUN /bin/sh -c x # buildkit");
  EXPECT_GT(records[0].bytes, 0u);
  EXPECT_EQ(records[0].uses, 1);
  EXPECT_EQ(cache->prune({0, 0}).size(), 0u);  // nothing was used before 1970
  EXPECT_EQ(cache->prune({}).size(), 1u);
  build("FROM scratch\nRUN x\n");
  EXPECT_EQ(runner_.ran.size(), 2u);
}

TEST_F(Language, TheCacheKeepsToItsLimitAndDropsTheLeastRecentlyUsed) {
  const auto cache = BuildCache::open(store_);
  build("FROM scratch\nRUN first\n");
  const uint64_t one = cache->list().at(0).bytes;
  cache->setLimit(one + one / 2);
  // Uses are recorded in whole seconds: the second step is used later than the first.
  for (const time_t first = time(nullptr); time(nullptr) == first;) usleep(20'000);
  build("FROM scratch\nRUN second\n");
  ASSERT_EQ(cache->list().size(), 1u);
  EXPECT_THAT(cache->list()[0].description, HasSubstr("second"));
}

TEST_F(Language, ParallelBuildsMakeASharedStepOnce) {
  std::mutex mutex;
  std::condition_variable changed;
  bool running = false, go = false;
  runner_.on_run = [&](const RunStep&) {
    std::unique_lock lock(mutex);
    running = true;
    changed.notify_all();
    changed.wait(lock, [&] { return go; });
  };
  const std::string tar = contextTar({{"Dockerfile", "FROM scratch\nRUN x\n"}});
  const auto run = [&] {
    StringSource context(tar);
    return buildImage(store_, runner_, context, request_, {}).id;
  };
  auto first = std::async(std::launch::async, run);
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return running; });
  }
  auto second = std::async(std::launch::async, run);
  {
    const std::lock_guard lock(mutex);
    go = true;
  }
  changed.notify_all();
  EXPECT_EQ(first.get(), second.get());
  EXPECT_EQ(runner_.ran.size(), 1u);
}

TEST_F(Language, IndependentStagesRunAtTheSameTime) {
  std::mutex mutex;
  std::condition_variable changed;
  int waiting = 0;
  runner_.on_run = [&](const RunStep&) {  // each waits for the other
    std::unique_lock lock(mutex);
    ++waiting;
    changed.notify_all();
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return waiting == 2; }));
  };
  build(
      "FROM scratch AS a\nRUN a\nFROM scratch AS b\nRUN b\nFROM scratch\nCOPY --from=a / /a\nCOPY "
      "--from=b / /b\n");
  EXPECT_EQ(runner_.ran.size(), 2u);
}

TEST_F(Language, AStageThatFailsEndsTheOthers) {
  runner_.exit_code = 1;
  EXPECT_THAT(failure("FROM scratch AS a\nRUN a\nFROM scratch AS b\nRUN b\nFROM scratch\nCOPY "
                      "--from=a / /a\nCOPY --from=b / /b\n"),
              HasSubstr("non-zero code: 1"));
}

}  // namespace
}  // namespace hull::build
