// What --listen takes.
#include "registry/server/acceptor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace hull::registry {
namespace {

using ::testing::HasSubstr;

TEST(Acceptor, RefusesWhatIsNoPort) {
  for (const char* port : {"65536", "99999", "4294967376", "80x", "x", "-1", "+1", " 80"}) {
    const std::string at = std::string("127.0.0.1:") + port;
    try {
      listenOn(at);
      ADD_FAILURE() << at;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << at;
      EXPECT_THAT(error.what(), HasSubstr("listen on " + at + ": \"" + port + "\" is no port"));
    }
  }
  EXPECT_TRUE(listenOn("127.0.0.1:0"));
}

}  // namespace
}  // namespace hull::registry
