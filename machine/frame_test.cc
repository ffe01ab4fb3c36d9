#include "machine/frame.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace hull::machine {
namespace {

void feed(FrameParser& parser, std::string_view bytes) {
  const auto space = parser.space();
  ASSERT_LE(bytes.size(), space.size());
  std::copy_n(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size(), space.data());
  parser.commit(bytes.size());
}

TEST(Frame, ReadsBackWhatWasWritten) {
  std::string bytes;
  appendFrame(bytes, FrameType::kOpen, 3, "unix:/x");
  appendFrame(bytes, FrameType::kWindow, 3, 4096);
  FrameParser parser;
  feed(parser, bytes);
  const auto open = parser.next();
  ASSERT_TRUE(open);
  EXPECT_EQ(open->type, FrameType::kOpen);
  EXPECT_EQ(open->stream, 3U);
  EXPECT_EQ(open->payload, "unix:/x");
  const auto window = parser.next();
  ASSERT_TRUE(window);
  EXPECT_EQ(window->type, FrameType::kWindow);
  EXPECT_EQ(window->value, 4096U);
  EXPECT_TRUE(window->payload.empty());
  EXPECT_FALSE(parser.next());
  EXPECT_FALSE(parser.failed());
}

TEST(Frame, ByteByByte) {
  std::string bytes;
  const std::string payload(1000, 'p');
  appendFrame(bytes, FrameType::kData, 1, payload);
  FrameParser parser;
  for (size_t i = 0; i + 1 < bytes.size(); ++i) {
    feed(parser, bytes.substr(i, 1));
    ASSERT_FALSE(parser.next()) << i;
  }
  feed(parser, bytes.substr(bytes.size() - 1));
  const auto frame = parser.next();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->payload, payload);
}

TEST(Frame, LargestPayloadFitsAndOneMoreIsRefused) {
  std::string bytes;
  appendFrame(bytes, FrameType::kData, 1, std::string(kMaxPayloadBytes, 'x'));
  FrameParser parser;
  feed(parser, bytes);
  ASSERT_TRUE(parser.next());

  std::string header;
  appendFrame(header, FrameType::kData, 1, uint32_t{kMaxPayloadBytes + 1});
  feed(parser, header);
  EXPECT_FALSE(parser.next());
  EXPECT_TRUE(parser.failed());
}

TEST(Frame, UnknownTypesAndNonZeroPaddingAreRefusedForGood) {
  for (const std::string& bad :
       {std::string("\x00\x00\x00\x00", 4), std::string("\x07\x00\x00\x00", 4),
        std::string("\x01\x01\x00\x00", 4)}) {
    FrameParser parser;
    feed(parser, bad + std::string(8, '\0'));
    EXPECT_FALSE(parser.next());
    EXPECT_TRUE(parser.failed());
    std::string good;
    appendFrame(good, FrameType::kFin, 1, 0);
    feed(parser, good);
    EXPECT_FALSE(parser.next());
  }
}

}  // namespace
}  // namespace hull::machine
