#include "base/detach_keys.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace hull {
namespace {

TEST(DetachKeysTest, AreFoundOverSeveralReadsAndHeldBackUntilThen) {
  DetachKeys keys(kDefaultDetachKeys);
  std::string pass;
  EXPECT_FALSE(keys.feed("ab\x10", pass));
  EXPECT_EQ(pass, "ab");
  EXPECT_FALSE(keys.feed("c", pass));
  EXPECT_EQ(pass,
            "\x10"
            "c");
  EXPECT_FALSE(keys.feed("\x10\x10", pass));
  EXPECT_EQ(pass, "\x10");
  EXPECT_TRUE(keys.feed("\x11 never seen", pass));
}

TEST(DetachKeysTest, OtherKeysAndNone) {
  std::string pass;
  EXPECT_TRUE(DetachKeys("q").feed("xq", pass));
  EXPECT_EQ(pass, "x");
  EXPECT_TRUE(DetachKeys("ctrl-\\").feed("\x1c", pass));
  EXPECT_TRUE(DetachKeys("ctrl-A,x").feed("\x01x", pass));
  EXPECT_FALSE(DetachKeys("").feed("\x10\x11", pass));
  EXPECT_EQ(pass, "\x10\x11");
}

TEST(DetachKeysTest, NonsenseIsRefused) {
  for (const char* text : {"ctrl-", "ctrl-1", "xy", "a,", "ctrl-pp", "a,,b,", "ctrl-p ctrl-q"}) {
    EXPECT_THROW(DetachKeys{text}, Error) << text;
  }
  std::string many = "a";
  for (size_t i = 0; i < kMaxDetachKeys; ++i) many += ",a";
  EXPECT_THROW(DetachKeys{many}, Error);
}

}  // namespace
}  // namespace hull
