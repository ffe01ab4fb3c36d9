#include "daemon/api/build_secrets.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace hull::engine::api {
namespace {

const std::string kSession(32, 'a');
const std::string kOther(32, 'b');

ErrorKind failure(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.kind();
  }
  return ErrorKind::kInternal;
}

using Values = std::map<std::string, std::string>;

TEST(BuildSecrets, AreTakenOnceAndByTheirSession) {
  BuildSecrets secrets;
  secrets.keep({kSession, "a"}, "first");
  secrets.keep({kSession, "a"}, "value of a");
  secrets.keep({kSession, "b"}, std::string(kMaxSecretBytes, '\0'));
  EXPECT_EQ(failure([&] { secrets.take(kOther, {"a"}); }), ErrorKind::kInvalidArgument);
  EXPECT_EQ(failure([&] { secrets.take(kSession, {"a", "c"}); }), ErrorKind::kInvalidArgument);
  EXPECT_EQ(secrets.take(kSession, {"a", "a"}), (Values{{"a", "value of a"}}));
  EXPECT_EQ(failure([&] { secrets.take(kSession, {"a"}); }), ErrorKind::kInvalidArgument);
  EXPECT_EQ(secrets.take(kSession, {"b"}).at("b").size(), kMaxSecretBytes);
  EXPECT_EQ(secrets.take(kSession, {}), Values{});
}

TEST(BuildSecrets, AreForgottenWhenNoBuildComes) {
  BuildSecrets secrets;
  const auto start = BuildSecrets::Clock::now();
  secrets.keep({kSession, "a"}, "x", start);
  secrets.keep({kSession, "b"}, "x", start + kSecretWait);
  EXPECT_EQ(failure([&] {
              secrets.take(kSession, {"a"}, start + kSecretWait + std::chrono::seconds(1));
            }),
            ErrorKind::kInvalidArgument);
  EXPECT_EQ(secrets.take(kSession, {"b"}, start + kSecretWait), (Values{{"b", "x"}}));
}

TEST(BuildSecrets, HaveBounds) {
  BuildSecrets secrets;
  EXPECT_EQ(failure([&] {
              secrets.keep({kSession, "a"}, std::string(kMaxSecretBytes + 1, 'x'));
            }),
            ErrorKind::kTooLarge);
  for (const auto& key :
       {BuildSessionKey{"short", "a"}, BuildSessionKey{std::string(32, 'G'), "a"},
        BuildSessionKey{std::string(129, 'a'), "a"}, BuildSessionKey{kSession, ""},
        BuildSessionKey{kSession, std::string(129, 'a')}}) {
    EXPECT_EQ(failure([&] { secrets.keep(key, "x"); }), ErrorKind::kInvalidArgument) << key.first;
  }
  const auto start = BuildSecrets::Clock::now();
  for (size_t i = 0; i < kMaxWaitingSecrets; ++i)
    secrets.keep({kSession, std::to_string(i)}, "x", start);
  EXPECT_EQ(failure([&] { secrets.keep({kOther, "0"}, "x", start); }), ErrorKind::kUnavailable);
  secrets.keep({kSession, "0"}, "again", start);
  secrets.keep({kOther, "0"}, "x", start + kSecretWait + std::chrono::seconds(1));
  EXPECT_EQ(failure([&] { secrets.take(kOther, std::vector<std::string>(kMaxBuildSecrets + 1)); }),
            ErrorKind::kTooLarge);
}

}  // namespace
}  // namespace hull::engine::api
