// The Dockerfile language, rule by rule: the configuration and the build as a whole (see
// language_test.cc).
#include "image/build/testing/build_fixture.h"
#include "image/build/testing/file_server.h"

namespace hull::build {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Language = testing::BuilderTest;

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

TEST_F(Language, AnotherPlatformIsTheArgumentsTheConfigurationsAndTheCaches) {
  const std::string dockerfile =
      "FROM scratch\nARG TARGETOS\nARG TARGETARCH\nARG TARGETVARIANT\nARG TARGETPLATFORM\n"
      "ARG BUILDPLATFORM\nENV a=$TARGETOS.$TARGETARCH.$TARGETVARIANT.$TARGETPLATFORM "
      "b=$BUILDPLATFORM\nCOPY f /f\n";
  const auto own = build(dockerfile, {{"f", "F"}});
  EXPECT_EQ(own.config.platform.text(), "linux/amd64");
  for (const auto& [wanted, text, variables] :
       {std::tuple{"linux/arm64/v8", "linux/arm64", "a=linux.arm64..linux/arm64"},
        {"linux/arm", "linux/arm/v7", "a=linux.arm.v7.linux/arm/v7"},
        {"linux/amd64", "linux/amd64", "a=linux.amd64..linux/amd64"}}) {
    request_.platform = wanted;
    const auto image = build(dockerfile, {{"f", "F"}});
    EXPECT_EQ(image.config.platform.text(), text);
    EXPECT_THAT(image.config.config.env, Contains(variables));
    EXPECT_THAT(image.config.config.env, Contains("b=linux/amd64"));
    EXPECT_EQ(store_.get(image.id.text()).config.platform.text(), text);
  }
  const std::string plain = "FROM scratch AS one\nCOPY f /f\nFROM one\n";
  build(plain, {{"f", "F"}});
  build(plain, {{"f", "F"}});
  EXPECT_EQ(cachedSteps(), 1);
  request_.platform = "linux/riscv64";
  EXPECT_EQ(build(plain, {{"f", "F"}}).config.platform.text(), "linux/riscv64");
  EXPECT_EQ(cachedSteps(), 0);
}

TEST_F(Language, AStageOfAnotherPlatformTakesItsImagesAndRunsNothing) {
  request_.tags = {image::Reference::parse("native")};
  build("FROM scratch\nCOPY f /f\n", {{"f", "F"}});
  request_.tags.clear();
  request_.platform = "linux/arm64";
  failure("FROM native\n");
  failure("FROM scratch\nCOPY --from=native /f /f\n");
  failure("FROM --platform=$TARGETOS/s390x scratch\nCOPY --from=native /f /f\n");
  EXPECT_THAT(pulled_, ElementsAre("linux/arm64", "linux/arm64", "linux/s390x"));
  EXPECT_THAT(failure("FROM scratch\nENV a=b\nRUN x\n"),
              ::testing::AllOf(HasSubstr("Dockerfile:3:5: RUN in a stage for linux/arm64"),
                               HasSubstr("\n  3 | RUN x\n")));
  EXPECT_TRUE(runner_.ran.empty());
  const auto image = build(
      "FROM --platform=$BUILDPLATFORM native AS tools\nRUN x\nFROM scratch\nCOPY --from=tools /f "
      "/f\n");
  EXPECT_EQ(runner_.ran.size(), 1u);
  EXPECT_EQ(image.config.platform.text(), "linux/arm64");
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

TEST_F(Language, BasesThatAreNoNamesHaveAPlaceAndTheChecksAreSaidBefore) {
  const auto rules = [&] {
    std::vector<std::string> found;
    for (const auto& event : events_) {
      if (event.kind == BuildEvent::Kind::kWarning) found.push_back(event.name);
    }
    return found;
  };
  for (const bool check_only : {true, false}) {
    request_.check_only = check_only;
    EXPECT_THAT(failure("ARG TAG\nFROM busybox:${TAG}\nCMD x\n"),
                ::testing::AllOf(HasSubstr("Dockerfile:2:6: invalid reference \"busybox:\""),
                                 HasSubstr("\n  2 | FROM busybox:${TAG}\n    |      ^")));
    EXPECT_THAT(rules(), ElementsAre("InvalidDefaultArgInFrom", "JSONArgsRequired"));
    EXPECT_THAT(failure("FROM BusyBox AS Big\n"),
                HasSubstr("Dockerfile:1:6: invalid reference \"BusyBox\""));
    EXPECT_THAT(rules(), ElementsAre("StageNameCasing"));
    EXPECT_THAT(failure("FROM scratch AS Big\nFROM $TYPO\n"),
                HasSubstr("Dockerfile:2:6: base name ($TYPO) should not be blank"));
    EXPECT_THAT(rules(),
                ElementsAre("StageNameCasing", "UndefinedArgInFrom", "InvalidDefaultArgInFrom"));
  }
  EXPECT_EQ(failure("FROM BusyBox AS unused\nFROM scratch\n"), "");
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

}  // namespace
}  // namespace hull::build
