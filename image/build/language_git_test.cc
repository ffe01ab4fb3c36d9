// The Dockerfile language, rule by rule: git repositories as sources (see language_test.cc).
#include <map>

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

class Submodules : public GitLanguage {
 protected:
  Submodules() {
    for (const char* name : {"lib", "inner"}) {
      const std::string at = others_.path() + "/" + name;
      makeDirectories(at);
      checkCommand({"git", "-C", at, "init", "--quiet", "--initial-branch=main"});
      writeFileAtomic(at + "/" + name, "of " + std::string(name));
    }
    const std::string inner = commitAll("inner");
    link("lib", "deep/inner", inner, "../../inner/.git");
    lib_ = commitAll("lib");
  }
  std::string commitAll(const std::string& name) {
    const std::string at = others_.path() + "/" + name;
    checkCommand({"git", "-C", at, "add", name});
    checkCommand({"git", "-C", at, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet",
                  "-m", "x"});
    return checkCommand({"git", "-C", at, "rev-parse", "HEAD"}).substr(0, 40);
  }
  // A gitlink, and .gitmodules when there is an address, in the index. Without a name: ours.
  void link(const std::string& name, const std::string& path, const std::string& commit,
            const std::string& url) {
    const std::string at = name.empty() ? repository_.path() : others_.path() + "/" + name;
    checkCommand(
        {"git", "-C", at, "update-index", "--add", "--cacheinfo", "160000," + commit + "," + path});
    auto& modules = modules_[at];
    modules[path] = url;
    std::string text;
    for (const auto& [place, source] : modules) {
      if (!source.empty())
        text += "[submodule \"" + place + "\"]\n\tpath = " + place + "\n\turl = " + source + "\n";
    }
    writeFileAtomic(at + "/.gitmodules", text);
    checkCommand({"git", "-C", at, "add", ".gitmodules"});
  }
  void commitLinks() {
    checkCommand({"env", "GIT_COMMITTER_DATE=@1000000000 +0000", "git", "-C", repository_.path(),
                  "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "links"});
  }
  std::string libAddress() const { return "file://" + others_.path() + "/lib/.git"; }

  TemporaryDirectory others_{"hull-git-test"};
  std::map<std::string, std::map<std::string, std::string>>
      modules_;  // of a repository: path → url
  std::string lib_;
};

TEST_F(Submodules, Line25SubmodulesAreFetchedAtTheirCommitsAndInnerOnesToo) {
  link("", "third/lib", lib_, libAddress());
  link("", "unmapped", lib_, "");
  commitLinks();
  writeFileAtomic(others_.path() + "/lib/lib", "newer");
  commitAll("lib");
  const auto image = build("FROM scratch\nADD " + address() + " /all\nADD --keep-git-dir " +
                           address() + " /kept\nADD " + address("#main:third/lib/deep") +
                           " /deep\nADD " + address("#main:sub") + " /sub\n");
  EXPECT_EQ(fileOf(image, "/all/third/lib/lib"), "of lib");
  EXPECT_EQ(fileOf(image, "/all/third/lib/deep/inner/inner"), "of inner");
  EXPECT_EQ(fileOf(image, "/all/top"), "second");
  EXPECT_EQ(inodeOf(image, "all/unmapped").type, image::EntryType::kDirectory);
  EXPECT_FALSE(has(image, "all/.git"));
  EXPECT_EQ(fileOf(image, "/kept/.git/HEAD").substr(0, 40), head());
  EXPECT_EQ(fileOf(image, "/kept/third/lib/lib"), "of lib");
  EXPECT_EQ(fileOf(image, "/deep/inner/inner"), "of inner");
  EXPECT_EQ(fileOf(image, "/sub/f"), "F");
  EXPECT_EQ(inodeOf(image, "all/top").mtime_seconds, 1'000'000'000);
}

TEST_F(Submodules, Line25AFolderFetchesOnlyTheSubmodulesInIt) {
  link("", "third/lib", lib_, "file:///nowhere/lib.git");
  commitLinks();
  EXPECT_EQ(fileOf(build("FROM scratch\nADD " + address("#main:sub") + " /sub\n"), "/sub/f"), "F");
  EXPECT_THAT(failure("FROM scratch\nADD " + address() + " /all\n"), HasSubstr("/nowhere/lib.git"));
}

TEST_F(Submodules, Line25AHostileSubmoduleIsRefused) {
  const std::string mark = repository_.path() + "/mark";
  const std::vector<std::string> addresses = {"ext::sh -c touch% " + mark,
                                              "--upload-pack=touch " + mark,
                                              "ssh://-oProxyCommand=touch%20" + mark + "/x",
                                              "-u./payload",
                                              "git@-oProxyCommand=x:y",
                                              "../../../../../../../../../../x",
                                              "/etc",
                                              "ftp://host/x",
                                              "https://a b/x"};
  for (const std::string& bad : addresses) {
    link("", "m", lib_, bad);
    commitLinks();
    EXPECT_THROW(submoduleRepository("file:///a/r.git", bad), Error) << bad;
    EXPECT_NE(failure("FROM scratch\nADD " + address() + " /x\n"), "") << bad;
    EXPECT_FALSE(fileExists(mark)) << bad;
  }
}

TEST_F(Submodules, Line25NestingHasAnEnd) {
  std::string last = lib_;
  for (int i = 0; i < 10; ++i) {
    link("lib", "m", last, "../.git");
    last = commitAll("lib");
    writeFileAtomic(others_.path() + "/lib/lib", std::to_string(i));
  }
  link("", "m", last, libAddress());
  commitLinks();
  EXPECT_THAT(failure("FROM scratch\nADD " + address() + " /x\n"),
              HasSubstr("nested deeper than 8"));
}

TEST(SubmoduleAddresses, RelativeOnesAreSeenFromTheParent) {
  const auto from = [](const std::string& parent, const std::string& address) {
    return submoduleRepository(parent, address);
  };
  EXPECT_EQ(from("https://h/g/r.git", "../x.git"), "https://h/g/x.git");
  EXPECT_EQ(from("https://h/g/r.git/", "./x"), "https://h/g/r.git/x");
  EXPECT_EQ(from("https://h/g/r.git", "../../x"), "https://h/x");
  EXPECT_EQ(from("git@h:g/r.git", "../x"), "git@h:g/x");
  EXPECT_EQ(from("git@h:r.git", "../x"), "git@h:x");
  EXPECT_EQ(from("https://h/r", "ssh://git@other/x"), "ssh://git@other/x");
  for (const auto& [parent, address] :
       {std::pair("https://h/r.git", "../../x"), {"git@h:r", "../../x"}, {"https://h", "../x"}})
    EXPECT_THROW(from(parent, address), Error) << parent << " " << address;
}

}  // namespace
}  // namespace hull::build
