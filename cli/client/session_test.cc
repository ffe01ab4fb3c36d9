#include "cli/client/session.h"

#include <gtest/gtest.h>

namespace hull::cli {
namespace {

std::string frame(char stream, const std::string& data) {
  std::string header = {stream, 0, 0, 0, 0, 0, 0, static_cast<char>(data.size())};
  return header + data;
}

TEST(FrameSplitter, SplitsFramesHoweverTheyArrive) {
  const std::string bytes = frame(1, "out") + frame(2, "") + frame(2, "err") + frame(1, "x");
  for (size_t piece = 1; piece <= bytes.size(); ++piece) {
    std::string out, err;
    FrameSplitter splitter(
        [&](int stream, std::string_view data) { (stream == 2 ? err : out) += data; });
    for (size_t at = 0; at < bytes.size(); at += piece)
      splitter.feed(std::string_view(bytes).substr(at, piece));
    EXPECT_EQ(out, "outx") << "in pieces of " << piece;
    EXPECT_EQ(err, "err") << "in pieces of " << piece;
  }
}

}  // namespace
}  // namespace hull::cli
