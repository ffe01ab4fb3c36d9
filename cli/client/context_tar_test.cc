#include "cli/client/context_tar.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"

namespace hull::cli {
namespace {

using ::testing::ElementsAre;

class ContextTar : public ::testing::Test {
 protected:
  void put(const std::string& path, const std::string& text) {
    const std::filesystem::path whole = folder_.path() + "/" + path;
    makeDirectories(whole.parent_path().string());
    writeFileAtomic(whole.string(), text);
  }
  std::vector<std::string> names(ContextOptions options) {
    options.folder = folder_.path();
    StringSink tar;
    writeContext(options, tar);
    std::istringstream lines(checkCommand({"tar", "-t"}, tar.text));
    std::vector<std::string> result;
    for (std::string line; std::getline(lines, line);) result.push_back(line);
    return result;
  }
  TemporaryDirectory folder_{"hull-context-test"};
};

TEST_F(ContextTar, LeavesOutWhatIsIgnoredButNeverTheDockerfile) {
  put("Dockerfile", "FROM scratch");
  put(".dockerignore", "*\n!src\nsrc/*.o\n");
  put("src/a.c", "a");
  put("src/a.o", "o");
  put("junk/big", "x");
  EXPECT_THAT(names({"", "Dockerfile", "", ""}),
              ElementsAre(".dockerignore", "Dockerfile", "src/", "src/a.c"));
}

TEST_F(ContextTar, TheDockerfilesOwnIgnoreFileWins) {
  put("a.Dockerfile", "FROM scratch");
  put("a.Dockerfile.dockerignore", "one\n");
  put(".dockerignore", "two\n");
  put("one", "1");
  put("two", "2");
  EXPECT_THAT(names({"", "a.Dockerfile", "", ""}),
              ElementsAre(".dockerignore", "a.Dockerfile", "a.Dockerfile.dockerignore", "two"));
}

TEST_F(ContextTar, ADockerfileInAnIgnoredFolderStillTravels) {
  put("ci/Dockerfile", "FROM scratch");
  put("ci/other", "x");
  put(".dockerignore", "ci\n");
  EXPECT_THAT(names({"", "ci/Dockerfile", "", ""}), ElementsAre(".dockerignore", "ci/Dockerfile"));
}

TEST_F(ContextTar, LinksAreKeptAndOwnersAreRoot) {
  put("file", "x");
  std::filesystem::create_symlink("file", folder_.path() + "/symbolic");
  std::filesystem::create_hard_link(folder_.path() + "/file", folder_.path() + "/hard");
  StringSink tar;
  writeContext({folder_.path(), "", "FROM scratch", ".dockerfile.x"}, tar);
  const std::string listing = checkCommand({"tar", "-tv", "--numeric-owner"}, tar.text);
  EXPECT_THAT(listing, ::testing::HasSubstr("symbolic -> file"));
  EXPECT_THAT(listing, ::testing::HasSubstr("hard link to file"));
  EXPECT_THAT(listing, ::testing::HasSubstr(" 0/0 "));
  EXPECT_THAT(listing, ::testing::HasSubstr(".dockerfile.x"));
}

TEST_F(ContextTar, WhatIsIgnoredCostsNothingHoweverMuchItIs) {
  put("Dockerfile", "FROM scratch");
  put(".dockerignore", "node_modules\n**/*.o\n");
  put("src/a.c", "12345");
  for (int i = 0; i < 50; ++i) put("src/" + std::to_string(i) + ".o", "object");
  const std::string junk = folder_.path() + "/node_modules";
  for (int folder = 0; folder < 100; ++folder) {
    const std::string at = junk + "/" + std::to_string(folder);
    makeDirectories(at);
    for (int i = 0; i < 1000; ++i) openFile(at + "/" + std::to_string(i), O_CREAT | O_WRONLY);
  }
  ContextOptions options;
  options.folder = folder_.path();
  options.dockerfile = "Dockerfile";
  StringSink tar;
  const ContextCost cost = writeContext(options, tar);
  EXPECT_EQ(cost.names, 4u + 51u);  // of the folder itself and of src; none of node_modules
  EXPECT_EQ(cost.inspected, 5u);    // an ignored folder is looked at once, an ignored file never
  EXPECT_EQ(cost.entries, 4u);
  EXPECT_EQ(cost.bytes,
            std::string("FROM scratch").size() + std::string("node_modules\n**/*.o\n").size() + 5);
  EXPECT_LT(tar.text.size(), 16u * 1024);
}

TEST_F(ContextTar, AFailingReceiverStopsThePacking) {
  put("big", std::string(4 << 20, 'x'));
  FunctionSink full([](std::span<const std::byte>) { throw Error(ErrorKind::kNoSpace, "full"); });
  EXPECT_THROW(writeContext({folder_.path(), "", "", ""}, full), Error);
}

}  // namespace
}  // namespace hull::cli
