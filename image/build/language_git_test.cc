// The Dockerfile language, rule by rule: git repositories as sources (see language_test.cc).
#include "base/subprocess.h"
#include "image/build/fetch.h"
#include "image/build/testing/build_fixture.h"

namespace hull::build {
namespace {

using ::testing::HasSubstr;

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

}  // namespace
}  // namespace hull::build
