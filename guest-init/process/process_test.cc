// The pure parts of starting processes: accounts, programs, retained output, process tables.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/file.h"
#include "guest-init/container/process_table.h"
#include "guest-init/process/account.h"
#include "guest-init/process/output.h"
#include "guest-init/process/program.h"
#include "guest-init/system/files.h"

namespace hull::guest {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kPasswd =
    "root:x:0:0:root:/root:/bin/sh\n"
    "broken line\n"
    "bad:x:-1:0::/:\n"
    "huge:x:4294967295:0::/:\n"
    "web:x:1000:1001:web:/home/web:/bin/sh\n"
    "1234:x:55:56::/odd:\n";
constexpr const char* kGroup =
    "root:x:0:\nweb:x:1001:\nextra:x:2000:other,web\nmore:x:2001:web\nnot:x:z:web\n77:x:3000:\n";

std::string refusal(const char* user, std::vector<std::string> additional = {}) {
  try {
    resolveAccount(kPasswd, kGroup, user, additional);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Account, NothingNamedIsRoot) {
  const Account account = resolveAccount(kPasswd, kGroup, "");
  EXPECT_EQ(account.uid, 0u);
  EXPECT_EQ(account.home, "/root");
  EXPECT_THAT(account.groups, ElementsAre(0));
  EXPECT_EQ(resolveAccount("", "", "").home, "/");
}

TEST(Account, NamesAndNumbersAreLookedUp) {
  for (const char* user : {"web", "1000"}) {
    const Account account = resolveAccount(kPasswd, kGroup, user);
    EXPECT_EQ(account.uid, 1000u);
    EXPECT_EQ(account.gid, 1001u);
    EXPECT_EQ(account.home, "/home/web");
    EXPECT_THAT(account.groups, ElementsAre(1001, 2000, 2001));
  }
  const Account unknown = resolveAccount(kPasswd, kGroup, "4711");
  EXPECT_EQ(unknown.uid, 4711u);
  EXPECT_EQ(unknown.gid, 0u);
  EXPECT_EQ(resolveAccount(kPasswd, kGroup, "1234").uid, 55u) << "a name wins over a number";
}

TEST(Account, AnExplicitGroupReplacesTheSupplementaryOnes) {
  const Account account = resolveAccount(kPasswd, kGroup, "web:extra", {"more", "99"});
  EXPECT_EQ(account.gid, 2000u);
  EXPECT_THAT(account.groups, ElementsAre(2000, 2001, 99));
  EXPECT_EQ(resolveAccount(kPasswd, kGroup, "0:77").gid, 3000u);
}

TEST(Account, WhoIsNotThereIsRefusedInDockersWords) {
  EXPECT_EQ(refusal("nobody"), "unable to find user nobody: no matching entries in passwd file");
  EXPECT_EQ(refusal("web:no"), "unable to find group no: no matching entries in group file");
  EXPECT_EQ(refusal("web", {"no"}), "unable to find group no: no matching entries in group file");
  for (const char* user : {"bad", "huge", "-1", "4294967295", "99999999999999999999", " "}) {
    EXPECT_NE(refusal(user), "") << user;
  }
}

TEST(Account, GroupsAreBounded) {
  std::string group;
  for (int i = 0; i < 2000; ++i) group += "g:x:" + std::to_string(i) + ":web\n";
  EXPECT_THROW(resolveAccount(kPasswd, group, "web"), Error);
}

TEST(Program, IsFoundInPathOrTakenAsNamed) {
  const TemporaryDirectory folder;
  const std::string bin = folder.path() + "/bin";
  makeDirectory(bin);
  makeDirectory(folder.path() + "/first");
  makeDirectory(folder.path() + "/first/tool");  // a directory is passed over
  writeSmallFile(bin + "/tool", "#!", 0755);
  writeSmallFile(bin + "/data", "#!", 0644);
  const std::vector<std::string> env = {"PATH=/nowhere", "PATH=" + folder.path() + "/first:" + bin};
  EXPECT_EQ(findProgram("tool", env), bin + "/tool");
  EXPECT_EQ(findProgram(bin + "/tool", {}), bin + "/tool");
  const auto kindOf = [&env](const std::string& name) {
    try {
      findProgram(name, env);
      return std::string("found");
    } catch (const Error& error) {
      return std::string(toString(error.kind())) + ": " + error.what();
    }
  };
  EXPECT_EQ(kindOf("data"), "not found: exec: \"data\": executable file not found in $PATH");
  EXPECT_EQ(kindOf(""), "not found: exec: \"\": executable file not found in $PATH");
  EXPECT_THAT(kindOf(bin + "/data"), HasSubstr("forbidden"));
  EXPECT_THAT(kindOf(bin), HasSubstr("forbidden"));
  EXPECT_THAT(kindOf(bin + "/tool/x"), HasSubstr("not found"));
}

TEST(RetainedOutput, KeepsWhatIsNotAcknowledged) {
  RetainedOutput output;
  output.append("hello ");
  output.append("world");
  EXPECT_EQ(output.from(0), "hello world");
  EXPECT_EQ(output.from(6), "world");
  EXPECT_TRUE(output.acknowledge(3));
  EXPECT_EQ(output.begin(), 3u);
  EXPECT_EQ(output.from(3), "lo world");
  EXPECT_TRUE(output.acknowledge(1)) << "going back means nothing";
  EXPECT_EQ(output.begin(), 3u);
  EXPECT_FALSE(output.acknowledge(12)) << "never reached";
  EXPECT_TRUE(output.acknowledge(11));
  EXPECT_EQ(output.from(11), "");
  EXPECT_EQ(output.room(), kRetainedOutputBytes);
}

TEST(RetainedOutput, StaysConsistentOverManyRounds) {
  RetainedOutput output;
  std::string all;
  uint64_t acknowledged = 0;
  unsigned seed = 1;
  for (int round = 0; round < 5000; ++round) {
    seed = seed * 1103515245 + 12345;
    const size_t size = std::min<size_t>(seed >> 16 & 0xfff, output.room());
    std::string piece(size, static_cast<char>('a' + round % 26));
    output.append(piece);
    all += piece;
    acknowledged += (output.end() - acknowledged) * (seed >> 8 & 0xff) / 256;
    ASSERT_TRUE(output.acknowledge(acknowledged));
    ASSERT_EQ(output.from(acknowledged), std::string_view(all).substr(acknowledged));
    ASSERT_LE(output.end() - output.begin(), kRetainedOutputBytes);
  }
}

TEST(ProcessTable, HostileNamesDoNotShiftTheFields) {
  ProcessStat stat;
  ASSERT_TRUE(parseProcessStat(
      "12 (a) b (c) R 7 1 1 34816 1 4194304 1 0 0 0 30 12 0 0 20 0 1 0 555 1 1\n", stat));
  EXPECT_EQ(stat.name, "a) b (c");
  EXPECT_EQ(stat.parent, 7);
  EXPECT_EQ(stat.terminal, 34816);
  EXPECT_EQ(stat.cpu_ticks, 42u);
  EXPECT_EQ(stat.start_ticks, 555u);
  for (const char* text : {"", "12", "12 (", ")(", "12 (x)", "12 (x) R 1 2 3"}) {
    EXPECT_FALSE(parseProcessStat(text, stat)) << text;
  }
}

}  // namespace
}  // namespace hull::guest
