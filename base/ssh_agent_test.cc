#include "base/ssh_agent.h"

#include <gtest/gtest.h>

namespace hull::ssh_agent {
namespace {

TEST(SshAgentFramer, FindsMessagesHoweverTheyArrive) {
  const std::string stream =
      framed("\x0b") + framed("\x0dsign this") + framed(std::string(kMaxMessageBytes, 'x'));
  Framer whole;
  whole.feed(stream);
  EXPECT_EQ(whole.next(), "\x0b");
  EXPECT_EQ(whole.next(), "\x0dsign this");
  EXPECT_EQ(whole.next()->size(), kMaxMessageBytes);
  EXPECT_FALSE(whole.next());
  EXPECT_FALSE(whole.broken());

  Framer bytewise;
  std::string got;
  for (const char c : framed("\x0dsign this")) {
    EXPECT_FALSE(bytewise.next());
    bytewise.feed({&c, 1});
  }
  EXPECT_EQ(bytewise.next(), "\x0dsign this");
}

TEST(SshAgentFramer, SizesThatNoMessageHasBreakTheStreamForGood) {
  for (const std::string& size : {std::string("\0\0\0\0", 4), std::string("\0\4\0\1", 4),
                                  std::string("\xff\xff\xff\xff", 4)}) {
    Framer framer;
    framer.feed(size + framed("\x0b"));
    EXPECT_FALSE(framer.next());
    EXPECT_TRUE(framer.broken());
    framer.feed(framed("\x0b"));
    EXPECT_FALSE(framer.next());
  }
}

TEST(SshAgentFilter, OnlyListingAndSigningPass) {
  for (int type = 0; type < 256; ++type) {
    const std::string request(1, static_cast<char>(type));
    EXPECT_EQ(mayPass(request), type == 11 || type == 13) << type;
    EXPECT_EQ(mayPass(request + "more"), type == 13) << type;
  }
  EXPECT_FALSE(mayPass(""));
  EXPECT_EQ(refusal(), "\x05");
}

}  // namespace
}  // namespace hull::ssh_agent
