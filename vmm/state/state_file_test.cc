#include "vmm/state/state_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/fd.h"

namespace hull::vmm {
namespace {

using ::testing::HasSubstr;

const std::string kBody = "what a virtual machine is made of";

ErrorKind refusal(const std::string& file) {
  try {
    openState(file);
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("read the saved state: "));
    return error.kind();
  }
  ADD_FAILURE() << "was accepted";
  return ErrorKind::kInternal;
}

// The check value of the algorithm's catalogue entries.
TEST(StateFile, SumIsCrc32) {
  EXPECT_EQ(crc32("123456789"), 0xcbf43926u);
  EXPECT_EQ(crc32(""), 0u);
}

TEST(StateFile, GivesBackTheBody) {
  EXPECT_EQ(openState(sealState(kBody)), kBody);
  EXPECT_EQ(openState(sealState("")), "");
}

TEST(StateFile, EveryTruncationIsRefused) {
  const std::string file = sealState(kBody);
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_EQ(refusal(file.substr(0, size)), ErrorKind::kCorrupt) << size;
  }
}

TEST(StateFile, EveryFlippedBitIsRefused) {
  const std::string file = sealState(kBody);
  for (size_t bit = 0; bit < file.size() * 8; ++bit) {
    std::string bad = file;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ 1 << bit % 8);
    const ErrorKind kind = refusal(bad);
    const bool in_version = bit / 8 >= 8 && bit / 8 < 12;
    EXPECT_EQ(kind, in_version ? ErrorKind::kNotSupported : ErrorKind::kCorrupt) << bit;
  }
}

TEST(StateFile, MoreThanTheBodyIsRefused) {
  EXPECT_EQ(refusal(sealState(kBody) + "x"), ErrorKind::kCorrupt);
  EXPECT_EQ(refusal(sealState(kBody) + sealState(kBody)), ErrorKind::kCorrupt);
}

TEST(StateFile, OtherVersionSaysWhich) {
  std::string file = sealState(kBody);
  file[8] = 77;
  try {
    openState(file);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("version 77"));
  }
}

TEST(StateFile, WritingReplacesWhatWasThere) {
  const Fd file = makeMemfd("state");
  writeStateFile(file.get(), std::string(5000, 'x'));
  writeStateFile(file.get(), kBody);
  EXPECT_EQ(readStateFile(file.get()), kBody);
}

TEST(StateFile, TooLongOneIsNotEvenRead) {
  const Fd file = makeMemfd("state");
  pwriteFull(file.get(), asBytes(sealState(kBody)), 0);
  pwriteFull(file.get(), asBytes("x"), uint64_t{1} << 40);
  EXPECT_THROW(readStateFile(file.get()), Error);
}

}  // namespace
}  // namespace hull::vmm
