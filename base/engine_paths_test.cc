#include "base/engine_paths.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "base/error.h"

namespace hull {
namespace {

// In a child that is an ordinary user, with this environment alone.
bool asUser(const std::function<void()>& environment, const std::function<bool()>& holds) {
  const pid_t child = fork();
  if (child == 0) {
    constexpr uid_t kNobody = 65534;
    if (geteuid() == 0 && setresuid(kNobody, kNobody, kNobody) != 0) _exit(2);
    clearenv();
    environment();
    _exit(holds() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(EnginePaths, FollowTheUsersEnvironment) {
  EXPECT_TRUE(asUser(
      [] {
        setenv("HOME", "/home/u", 1);
        setenv("XDG_DATA_HOME", "/data", 1);
        setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
      },
      [] {
        return engineRoot() == "/data/hull" && engineSocket() == "/run/user/7/hull/hulld.sock";
      }));
}

// Not in /tmp, where another user could make the folder first.
TEST(EnginePaths, WithoutARuntimeFolderTheSocketIsInTheUsersOwn) {
  EXPECT_TRUE(asUser([] { setenv("HOME", "/home/u", 1); },
                     [] {
                       return engineRoot() == "/home/u/.local/share/hull" &&
                              engineSocket() == "/home/u/.local/share/hull/hulld.sock";
                     }));
}

TEST(EnginePaths, RelativeFoldersCountAsNone) {
  EXPECT_TRUE(asUser(
      [] {
        setenv("HOME", "/home/u", 1);
        setenv("XDG_RUNTIME_DIR", "run", 1);
        setenv("XDG_DATA_HOME", "data", 1);
      },
      [] { return engineSocket() == "/home/u/.local/share/hull/hulld.sock"; }));
}

TEST(EnginePaths, WithoutAHomeThereIsNone) {
  EXPECT_TRUE(asUser([] {},
                     [] {
                       try {
                         engineRoot();
                       } catch (const Error&) {
                         return true;
                       }
                       return false;
                     }));
}

}  // namespace
}  // namespace hull
