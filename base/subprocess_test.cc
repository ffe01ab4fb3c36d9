#include "base/subprocess.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "base/error.h"

namespace hull {
namespace {

TEST(Subprocess, CollectsBothStreamsAndTheStatus) {
  const CommandResult result = runCommand({"sh", "-c", "cat; echo bad >&2; exit 3"}, "in");
  EXPECT_EQ(result.status, 3);
  EXPECT_EQ(result.output, "in");
  EXPECT_EQ(result.errors, "bad\n");
}

TEST(Subprocess, LargeInputAndOutputDoNotDeadlock) {
  const std::string input(3 << 20, 'x');
  EXPECT_EQ(runCommand({"cat"}, input).output, input);
}

TEST(Subprocess, AMissingProgramIsNamed) {
  try {
    runCommand({"/no/such/program"});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("/no/such/program"));
    EXPECT_EQ(error.kind(), ErrorKind::kNotFound);
  }
}

TEST(Subprocess, DeathBySignalIs128PlusItsNumber) {
  EXPECT_EQ(runCommand({"sh", "-c", "kill -TERM $$"}).status, 128 + SIGTERM);
}

TEST(Subprocess, TheChildGetsOnlyTheDescriptorsNamed) {
  const Fd extra = openFile("/dev/null", 0);
  const std::string open = checkCommand({"ls", "/proc/self/fd"});
  // 0, 1, 2 and the folder being listed.
  EXPECT_EQ(open, "0\n1\n2\n3\n");
}

TEST(Subprocess, DescriptorsMaySwapPlaces) {
  FdPair a = makePipe(), b = makePipe();
  SubprocessOptions options;
  options.arguments = {"sh", "-c", "printf A >&3; printf B >&4"};
  // Each write end goes where some other descriptor may be now.
  options.descriptors = {{a.second.get(), 4}, {b.second.get(), 3}};
  Subprocess child(options);
  EXPECT_EQ(child.wait(), 0);
  std::array<std::byte, 1> got;
  ASSERT_EQ(readFull(a.first.get(), got), 1u);
  EXPECT_EQ(got[0], std::byte{'B'});
  ASSERT_EQ(readFull(b.first.get(), got), 1u);
  EXPECT_EQ(got[0], std::byte{'A'});
}

TEST(Subprocess, MayHaveAPidNamespaceOfItsOwn) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  const FdPair out = makePipe();
  SubprocessOptions options;
  options.arguments = {"sh", "-c", "printf %s $$ >&3"};
  options.descriptors = {{out.second.get(), 3}};
  options.new_pid_namespace = true;
  Subprocess child(options);
  EXPECT_GT(child.pid(), 1);  // to us it is a process like any other
  EXPECT_EQ(child.wait(), 0);
  std::array<std::byte, 1> got;
  ASSERT_EQ(readFull(out.first.get(), got), 1u);
  EXPECT_EQ(got[0], std::byte{'1'});
}

}  // namespace
}  // namespace hull
