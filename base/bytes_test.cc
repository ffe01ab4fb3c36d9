#include "base/bytes.h"

#include <gtest/gtest.h>

namespace hull {
namespace {

TEST(Bytes, RoundTripsEveryKindOfField) {
  ByteWriter writer;
  writer.u8(7);
  writer.u16(0xbeef);
  writer.u32(0xdeadbeef);
  writer.u64(~uint64_t{0});
  writer.i64(-5);
  writer.boolean(true);
  writer.string("text");
  writer.strings({"a", "", "c"});
  ByteReader reader(writer.bytes());
  EXPECT_EQ(reader.u8(), 7);
  EXPECT_EQ(reader.u16(), 0xbeef);
  EXPECT_EQ(reader.u32(), 0xdeadbeef);
  EXPECT_EQ(reader.u64(), ~uint64_t{0});
  EXPECT_EQ(reader.i64(), -5);
  EXPECT_TRUE(reader.boolean());
  EXPECT_EQ(reader.string(10), "text");
  EXPECT_EQ(reader.strings(3, 1), (std::vector<std::string>{"a", "", "c"}));
  EXPECT_TRUE(reader.complete());
}

TEST(Bytes, ShortInputFailsAndStaysFailed) {
  ByteReader reader(std::string_view("\x01\x02\x03", 3));
  EXPECT_EQ(reader.u32(), 0u);
  EXPECT_FALSE(reader.ok());
  EXPECT_EQ(reader.u8(), 0);  // even though bytes remain
  EXPECT_FALSE(reader.complete());
}

TEST(Bytes, LengthBeyondTheInputIsRefusedWithoutAllocating) {
  ByteWriter writer;
  writer.u32(0xffffffff);
  ByteReader text(writer.bytes());
  EXPECT_TRUE(text.string(SIZE_MAX).empty());
  EXPECT_FALSE(text.ok());
  ByteReader list(writer.bytes());
  EXPECT_TRUE(list.strings(SIZE_MAX, SIZE_MAX).empty());
  EXPECT_FALSE(list.ok());
}

TEST(Bytes, StringOverItsLimitFails) {
  ByteWriter writer;
  writer.string("four");
  ByteReader reader(writer.bytes());
  EXPECT_TRUE(reader.string(3).empty());
  EXPECT_FALSE(reader.ok());
}

TEST(Bytes, BooleanOtherThanZeroOrOneFails) {
  ByteReader reader(std::string_view("\x02", 1));
  reader.boolean();
  EXPECT_FALSE(reader.ok());
}

TEST(Bytes, TrailingBytesAreNotComplete) {
  ByteReader reader(std::string_view("ab"));
  reader.u8();
  EXPECT_TRUE(reader.ok());
  EXPECT_FALSE(reader.complete());
}

}  // namespace
}  // namespace hull
