#include "cli/client/context_tar.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <map>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "cli/client/content_digests.h"
#include "image/build/lean_tar.h"

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

TEST_F(ContextTar, TheFoldersOfAnExceptionTravelAsTheyAreAndNoOthers) {
  put(".dockerignore", "c\nd\n!c/deep/h\n!c/deep/i\n!c/empty/none\n!c/z\n");
  put("c/deep/h", "h");
  put("c/deep/i", "i");
  put("c/empty/other", "x");
  put("c/z", "z");
  put("d/x", "x");
  std::filesystem::permissions(folder_.path() + "/c", std::filesystem::perms::owner_all);
  EXPECT_THAT(names({}),
              ElementsAre(".dockerignore", "c/", "c/deep/", "c/deep/h", "c/deep/i", "c/z"));
  StringSink tar;
  writeContext({folder_.path(), "", "", ""}, tar);
  EXPECT_THAT(checkCommand({"tar", "-tv"}, tar.text), ::testing::HasSubstr("drwx------ "));
}

TEST_F(ContextTar, ABadIgnoreRuleNamesItsFileAndLine) {
  put("a.Dockerfile", "FROM scratch");
  for (const std::string name : {".dockerignore", "a.Dockerfile.dockerignore"}) {
    put(name, "ok\na[b\n");
    try {
      names({"", "a.Dockerfile", "", ""});
      FAIL() << name;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::StartsWith(name + ":2: syntax error in pattern"));
    }
  }
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

// The engine's side: has what this folder's files held when it was made.
class LeanContextTar : public ContextTar {
 protected:
  void SetUp() override {
    put("Dockerfile", "FROM scratch");
    put("big", std::string(300'000, 'b'));
    put("folder/small", "small");
    put("folder/other", std::string(5'000, 'o'));
    std::filesystem::create_hard_link(folder_.path() + "/big", folder_.path() + "/folder/hard");
    std::filesystem::create_symlink("big", folder_.path() + "/link");
    const Fd sparse = openFile(folder_.path() + "/sparse", O_CREAT | O_WRONLY);
    ASSERT_EQ(ftruncate(sparse.get(), 1 << 20), 0);
    options_.folder = folder_.path();
    options_.dockerfile = "Dockerfile";
    learn();
  }
  void learn() {
    for (const auto& file : contextFiles(options_)) {
      const auto digest = digests_.of(file.path, file.info);
      if (file.info.st_size >= 256 && digest) held_[*digest] = readFile(file.path);
    }
  }
  std::string whole() {
    StringSink tar;
    writeContext(options_, tar);
    return tar.text;
  }
  std::string lean() {
    StringSink tar;
    cost_ = writeLeanContext(
        options_,
        [this](const struct stat& info) -> std::optional<Sha256> {
          const auto digest = digests_.known(info);
          return digest && held_.contains(*digest) ? digest : std::nullopt;
        },
        tar);
    return tar.text;
  }
  std::string expanded(const std::string& lean) {
    StringSource in(lean);
    build::LeanTarSource tar(in, [this](const Sha256& digest, uint64_t) {
      return std::make_unique<StringSource>(held_.at(digest));
    });
    return readAll(tar, 8 << 20, "tar");
  }
  ContextOptions options_;
  ContextCost cost_;
  ContentDigests digests_{folder_.path() + ".cache"};
  std::map<Sha256, std::string> held_;
};

TEST_F(LeanContextTar, MeansTheVeryTarAndHoldsNoContentThatIsThere) {
  const std::string sent = lean();
  EXPECT_EQ(expanded(sent), whole());
  EXPECT_LT(sent.size(), 16u * 1024);
  EXPECT_EQ(cost_.named, 300'000u + 5'000u + (1 << 20));
  EXPECT_EQ(cost_.bytes, std::string("FROM scratch").size() + std::string("small").size());
}

TEST_F(LeanContextTar, WhatChangedTravelsAndNothingElse) {
  put("folder/other", std::string(5'000, 'n'));
  put("new", std::string(2'000, 'n'));
  std::filesystem::remove(folder_.path() + "/sparse");
  std::filesystem::permissions(folder_.path() + "/Dockerfile", std::filesystem::perms(0600));
  const std::string sent = lean();
  EXPECT_EQ(expanded(sent), whole());
  EXPECT_LT(sent.size(), 24u * 1024);
  EXPECT_EQ(cost_.named, 300'000u);
  EXPECT_EQ(cost_.bytes, 7'000u + std::string("FROM scratch").size() + 5);
}

TEST_F(LeanContextTar, AChangeBetweenTheQuestionAndTheSendingIsSent) {
  const Fd file = openFile(folder_.path() + "/big", O_WRONLY);  // in place, of the same size
  pwriteFull(file.get(), std::as_bytes(std::span("change", 6)), 0);
  const timespec later[2] = {{0, UTIME_OMIT}, {2'000'000'000, 0}};
  ASSERT_EQ(futimens(file.get(), later), 0);
  EXPECT_EQ(expanded(lean()), whole());
  EXPECT_GT(cost_.bytes, 300'000u);
}

TEST_F(LeanContextTar, NamedContextsTravelTheSameWay) {
  TemporaryDirectory other("hull-context-test");
  writeFileAtomic(other.path() + "/data", std::string(70'000, 'd'));
  options_.others.push_back({other.path(), ".hull-contexts/0"});
  EXPECT_EQ(expanded(lean()), whole());
  EXPECT_GT(cost_.bytes, 70'000u);
  learn();
  EXPECT_EQ(expanded(lean()), whole());
  EXPECT_LT(cost_.bytes, 1'000u);
}

TEST_F(ContextTar, AFailingReceiverStopsThePacking) {
  put("big", std::string(4 << 20, 'x'));
  FunctionSink full([](std::span<const std::byte>) { throw Error(ErrorKind::kNoSpace, "full"); });
  EXPECT_THROW(writeContext({folder_.path(), "", "", ""}, full), Error);
}

}  // namespace
}  // namespace hull::cli
