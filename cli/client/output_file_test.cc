#include "cli/client/output_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/error.h"

namespace hull::cli {
namespace {

namespace fs = std::filesystem;

class OutputFileTest : public testing::Test {
 protected:
  std::string path(const std::string& name) const { return folder_.path() + "/" + name; }
  void write(const std::string& to, const std::string& text) {
    OutputFile file(to);
    writeFull(file.fd(), text);
    file.finish();
  }
  TemporaryDirectory folder_{"hull-output-test"};
};

TEST_F(OutputFileTest, HasItsNameWhenItIsComplete) {
  {
    OutputFile file(path("new"));
    writeFull(file.fd(), std::string_view("half"));
    EXPECT_FALSE(fileExists(path("new")));
  }
  EXPECT_TRUE(fs::is_empty(folder_.path()));
  write(path("new"), "whole");
  EXPECT_EQ(readFile(path("new")), "whole");
}

TEST_F(OutputFileTest, KeepsModeAndLinksOfWhatItReplaces) {
  writeFileAtomic(path("target"), "before", 0600);
  fs::create_symlink("target", path("link"));
  write(path("link"), "after");
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(readFile(path("target")), "after");
  struct stat info;
  ASSERT_EQ(::stat(path("target").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  fs::create_symlink("absent", path("dangling"));
  write(path("dangling"), "made");
  EXPECT_TRUE(fs::is_symlink(path("dangling")));
  EXPECT_EQ(readFile(path("absent")), "made");
}

TEST_F(OutputFileTest, WritesIntoWhatIsNoFile) {
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  const Fd reader = openFile(path("pipe"), O_RDONLY | O_NONBLOCK);
  write(path("pipe"), "through");
  EXPECT_TRUE(fs::is_fifo(path("pipe")));
  std::string text(7, '\0');
  EXPECT_EQ(readFull(reader.get(), std::as_writable_bytes(std::span(text))), 7u);
  EXPECT_EQ(text, "through");
  EXPECT_THROW(OutputFile(folder_.path()), Error);
  EXPECT_THROW(OutputFile(path("no/folder")), Error);
}

}  // namespace
}  // namespace hull::cli
