// hull-share with a stand-in for virtiofsd: a script that looks around where virtiofsd would serve.
// Skipped without root.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "base/fd.h"
#include "base/file.h"
#include "base/stream.h"
#include "base/subprocess.h"
#include "daemon/vm/share_arguments.h"

namespace hull::share {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

constexpr int kSocketFd = 3, kStatusFd = 4;

class ShareTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root for a mount namespace";
    for (const char* name : {"/place", "/one", "/one/below", "/two"}) makeDirectories(at(name));
    put("/one/file", "first");
    put("/two/file", "second");
  }
  std::string at(const std::string& name) const { return root_.path() + name; }
  void put(const std::string& name, std::string_view text) {
    writeFull(openFile(at(name), O_WRONLY | O_CREAT | O_TRUNC, 0644).get(), text);
  }

  struct Outcome {
    std::string status;  // what the engine reads: a failure, or nothing
    std::string output;  // of the script
  };
  // Runs `script` in the folder that virtiofsd would serve.
  Outcome look(const std::vector<std::string>& shares, const std::string& script) {
    const std::string program = at("/virtiofsd");
    put("/virtiofsd", "#!/bin/sh\ncd " + at("/place") + "\nexec 2>&1\n" + script + "\n");
    chmod(program.c_str(), 0755);
    FdPair status = makePipe(), output = makePipe();
    SubprocessOptions options;
    options.arguments = {HULL_SHARE, std::to_string(kSocketFd), std::to_string(kStatusFd), program,
                         at("/place")};
    options.arguments.insert(options.arguments.end(), shares.begin(), shares.end());
    options.descriptors = {{output.second.get(), STDOUT_FILENO},
                           {output.second.get(), kSocketFd},
                           {status.second.get(), kStatusFd}};
    Subprocess child(options);
    status.second.reset();
    output.second.reset();
    FdSource said(status.first.get()), printed(output.first.get());
    Outcome outcome;
    outcome.status = readAll(said, 4096, "the status");
    outcome.output = readAll(printed, 65536, "the output");
    child.wait();
    return outcome;
  }

  TemporaryDirectory root_{"hull-share"};
};

TEST_F(ShareTest, TheFolderHoldsTheSharesAndNothingElse) {
  const auto seen = look({"-", "/", at("/one"), "-", "/", at("/two/file")}, "ls; cat 0/file 1");
  EXPECT_EQ(seen.status, "");
  EXPECT_EQ(seen.output, "0\n1\nfirstsecond");
  EXPECT_TRUE(std::filesystem::is_empty(at("/place"))) << "the host does not see it";
}

TEST_F(ShareTest, OnlyWhatIsReadOnlyIsReadOnly) {
  const auto seen = look({"r", "/", at("/one"), "-", "/", at("/two")},
                         "touch 0/x 0/below/x 1/x x; echo y >0/file; cat 0/file");
  EXPECT_THAT(seen.output, HasSubstr("'0/x': Read-only"));
  EXPECT_THAT(seen.output, HasSubstr("'0/below/x': Read-only"));
  EXPECT_THAT(seen.output, HasSubstr("'x': Read-only"));
  EXPECT_THAT(seen.output, HasSubstr("first"));
  EXPECT_TRUE(fileExists(at("/two/x")));
  EXPECT_FALSE(fileExists(at("/one/x")));
}

TEST_F(ShareTest, DevicesProgramsAndSetUserIdMeanNothingThere) {
  const auto seen = look({"-", "/", at("/one")},
                         "mknod 0/null c 1 3; cat 0/null; cp /bin/true 0/; 0/true; "
                         "grep -c 'nosuid,nodev,noexec.* /' /proc/self/mountinfo");
  EXPECT_THAT(seen.output, HasSubstr("Permission denied"));
}

TEST_F(ShareTest, SourcesAreResolvedInsideTheirRoot) {
  std::filesystem::create_symlink("/two", at("/one/absolute"));
  std::filesystem::create_symlink("../../../two", at("/one/up"));
  const auto seen =
      look({"-", at(""), "/one/absolute", "-", at(""), "/one/up"}, "cat 0/file 1/file");
  EXPECT_EQ(seen.output, "secondsecond") << seen.status;
}

TEST_F(ShareTest, WhatCannotBeSharedIsNamed) {
  EXPECT_THAT(look({"-", "/", at("/none")}, "").status,
              HasSubstr("bind source path does not exist: " + at("/none")));
  const Fd socket = listenUnix(at("/socket"));
  EXPECT_THAT(look({"-", "/", at("/socket")}, "").status, HasSubstr("neither a folder nor a file"));
}

TEST_F(ShareTest, BothVirtiofsdsAreCalledAsTheyWantIt) {
  const auto old = engine::virtiofsdArguments("/usr/lib/qemu/virtiofsd", 3, "/f");
  EXPECT_THAT(old, Contains(HasSubstr("source=/f,sandbox=namespace")));
  const auto current = engine::virtiofsdArguments("/usr/libexec/virtiofsd", 3, "/f");
  EXPECT_THAT(current, Contains("--shared-dir=/f"));
  for (const auto& arguments : {old, current}) EXPECT_THAT(arguments, Contains("--fd=3"));
}

}  // namespace
}  // namespace hull::share
