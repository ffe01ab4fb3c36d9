// The Dockerfile language, rule by rule: RUN, here-documents and mounts (see language_test.cc).
#include "base/subprocess.h"
#include "image/build/testing/build_fixture.h"

namespace hull::build {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Language = testing::BuilderTest;

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

TEST_F(Language, Line27ACacheMayBeginWithContentsFromElsewhere) {
  std::vector<std::string> trees;
  runner_.on_run = [&](const RunStep& step) { trees.push_back(treeText(step.mounts.at(0))); };
  const auto cacheOf = [&](const std::string& content, const std::string& options) {
    build("FROM scratch AS seed\nCOPY f /s/f\nFROM scratch\nRUN --mount=type=cache,target=/c," +
              options + " x\n",
          {{"f", content}});
    return mountsOf(runner_).at(0).cache.id;
  };
  const std::string first = cacheOf("first-content", "from=seed,source=/s,id=n");
  EXPECT_THAT(first, ::testing::StartsWith("n@"));
  EXPECT_THAT(trees.at(0), HasSubstr("data/f"));
  EXPECT_THAT(trees[0], HasSubstr("first-content"));
  EXPECT_EQ(cacheOf("first-content", "from=seed,source=/s,id=n"), first);
  EXPECT_EQ(runner_.ran.size(), 1u) << "the same contents are the same step";
  EXPECT_NE(cacheOf("other-content", "from=seed,source=/s,id=n"), first);
  EXPECT_THAT(cacheOf("first-content", "from=seed"), ::testing::StartsWith("/c@"));
  EXPECT_THAT(trees.back(), HasSubstr("data/s/f"));
  runner_.on_run = nullptr;
  const auto problem = [&](const std::string& options) {
    return failure(
        "FROM scratch AS seed\nCOPY f /f\nFROM scratch\nRUN --mount=type=cache,target=/c," +
            options + " x\n",
        {{"f", ""}});
  };
  EXPECT_THAT(problem("from=seed,source=/f"), HasSubstr("is none"));
  EXPECT_THAT(problem("from=seed,source=/g"), HasSubstr("\"/g\" of seed: not found"));
  EXPECT_THAT(problem("source=/f"), HasSubstr("needs from="));
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

class NoAgent final : public SshAgent {
 public:
  std::string answer(const std::string&, const std::function<bool()>&) override { return "\5"; }
};

TEST_F(Language, AgentsAreSocketsOfTheStepAndNoPartOfAnything) {
  const auto own = std::make_shared<NoAgent>(), other = std::make_shared<NoAgent>();
  request_.agents = {{"default", own}, {"other", other}};
  const std::string dockerfile =
      "FROM scratch\nWORKDIR /w\nRUN --mount=type=ssh --mount=type=ssh,id=none "
      "--mount=type=ssh,id=other,uid=3,gid=4,mode=0666 --mount=type=ssh,target=here,required x\n";
  build(dockerfile);
  const RunStep step = runner_.ran.back().step;
  ASSERT_EQ(step.mounts.size(), 3u);
  EXPECT_EQ(step.mounts[0].target, "/run/buildkit/ssh_agent.0");
  EXPECT_EQ(step.mounts[0].agent, own);
  EXPECT_EQ(step.mounts[0].mode, 0600);
  EXPECT_EQ(step.mounts[1].target, "/run/buildkit/ssh_agent.2");
  EXPECT_EQ(step.mounts[1].agent, other);
  EXPECT_EQ(step.mounts[1].uid, 3u);
  EXPECT_EQ(step.mounts[1].gid, 4u);
  EXPECT_EQ(step.mounts[1].mode, 0666);
  EXPECT_EQ(step.mounts[2].target, "/w/here");
  EXPECT_THAT(step.environment, Contains("SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"));
  request_.agents = {{"default", other}};
  build(dockerfile);
  EXPECT_EQ(runner_.ran.size(), 1u) << "who lends the agent is in the key";
  build("FROM scratch\nENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh x\n");
  EXPECT_THAT(runner_.ran.back().step.environment, Contains("SSH_AUTH_SOCK=/mine"));
  request_.agents.clear();
  build("FROM scratch\nRUN --mount=type=ssh without\n");
  EXPECT_TRUE(runner_.ran.back().step.mounts.empty());
  EXPECT_THAT(failure("FROM scratch\nRUN --mount=type=ssh,required x y\n"),
              HasSubstr("no ssh agent default is given (give one with --ssh default)"));
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

}  // namespace
}  // namespace hull::build
