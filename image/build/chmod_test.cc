#include "image/build/chmod.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace hull::build {
namespace {

uint16_t file(const char* text, uint16_t mode) {
  return ModeChange::parse(text).apply(mode, false);
}
uint16_t folder(const char* text, uint16_t mode) {
  return ModeChange::parse(text).apply(mode, true);
}

TEST(Chmod, OctalIsTheWholeMode) {
  EXPECT_EQ(file("755", 06070), 0755);
  EXPECT_EQ(file("0640", 0777), 0640);
  EXPECT_EQ(folder("4711", 0), 04711);
  EXPECT_EQ(file("0", 0777), 0);
}

TEST(Chmod, PlusMinusAndEqualsChangeTheirClassOnly) {
  EXPECT_EQ(file("u+x", 0640), 0740);
  EXPECT_EQ(file("go-w", 0666), 0644);
  EXPECT_EQ(file("g=rx", 0607), 0657);
  EXPECT_EQ(file("o=", 0777), 0770);
  EXPECT_EQ(file("ug+rw", 0), 0660);
}

TEST(Chmod, WithoutAClassAllAreMeantWhateverTheUmask) {
  EXPECT_EQ(file("+w", 0444), 0666);
  EXPECT_EQ(file("=r", 0777), 0444);
  EXPECT_EQ(file("a-x", 0755), 0644);
}

TEST(Chmod, ClausesAndOperationsApplyInTheirOrder) {
  EXPECT_EQ(file("u=rw,g=r,o=", 0777), 0640);
  EXPECT_EQ(file("a=,u+r", 0777), 0400);
  EXPECT_EQ(file("u+x-w", 0600), 0500);
}

TEST(Chmod, CapitalXIsForFoldersAndForWhatWasExecutableBefore) {
  EXPECT_EQ(file("u+rwX,go-w", 0466), 0644);
  EXPECT_EQ(folder("u+rwX,go-w", 0022), 0700);
  EXPECT_EQ(file("a+X", 0010), 0111);
  EXPECT_EQ(file("u=rwX,go=rX", 0100), 0755);
  EXPECT_EQ(file("u=rwX,go=rX", 0600), 0644);
  EXPECT_EQ(file("u+x,g+X", 0600), 0700) << "the mode before the change decides";
}

TEST(Chmod, AClassMayBeCopied) {
  EXPECT_EQ(file("g=u", 0740), 0770);
  EXPECT_EQ(file("o+g", 0654), 0655);
  EXPECT_EQ(file("u-o", 0703), 0403);
  EXPECT_EQ(file("u=rw,g=u", 0), 0660) << "as it is by then";
}

TEST(Chmod, SpecialBitsBelongToTheirClass) {
  EXPECT_EQ(file("u+s", 0755), 04755);
  EXPECT_EQ(file("g+s", 0755), 02755);
  EXPECT_EQ(file("+t", 0755), 01755);
  EXPECT_EQ(file("u+t,o+s", 0755), 0755);
  EXPECT_EQ(file("a=rx", 07777), 0555);
  EXPECT_EQ(file("u=rwx", 06755), 02755);
}

TEST(Chmod, WhatIsNoModeIsRefusedByName) {
  for (const char* bad : {"", "8", "17777", "99999999999999999999", "u", "u+rw,", ",u+r", "q+r",
                          "u+q", "u+rg", "g=ug", "u+r g+r", "755x", "+755", "u=a"}) {
    try {
      ModeChange::parse(bad);
      ADD_FAILURE() << "accepted: " << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
      EXPECT_THAT(error.what(), ::testing::HasSubstr("invalid --chmod=" + std::string(bad)));
    }
  }
}

}  // namespace
}  // namespace hull::build
