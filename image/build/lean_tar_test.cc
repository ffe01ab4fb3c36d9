#include "image/build/lean_tar.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "base/testing/digest_of.h"

namespace hull::build {
namespace {

class LeanTar : public ::testing::Test {
 protected:
  std::string expand(std::string_view lean) {
    StringSource in(lean);
    LeanTarSource tar(in, [this](const Sha256& digest, uint64_t) -> std::unique_ptr<Source> {
      const auto found = held_.find(digest);
      if (found == held_.end()) throw Error(ErrorKind::kConflict, "not kept");
      return std::make_unique<StringSource>(found->second);
    });
    StringSink out;
    copy(tar, out);
    return out.text;
  }
  ErrorKind failure(std::string_view lean) {
    try {
      expand(lean);
    } catch (const Error& error) {
      return error.kind();
    }
    ADD_FAILURE() << "it was taken";
    return ErrorKind::kInternal;
  }
  const std::string content_ = std::string(300'000, 'c');
  std::map<Sha256, std::string> held_ = {{digestOf(content_), content_}};
};

TEST_F(LeanTar, IsReadAsTheTarThatWasMeant) {
  const std::string before(3 << 20, 'b');  // more than a record holds
  StringSink lean;
  LeanTarWriter writer(lean);
  writer.write(before);
  writer.name(digestOf(content_), content_.size());
  writer.write("behind");
  writer.name(digestOf(content_), content_.size());
  writer.finish();
  EXPECT_LT(lean.text.size(), before.size() + 200);
  EXPECT_EQ(expand(lean.text), before + content_ + "behind" + content_);
}

TEST_F(LeanTar, IsRefusedWhenCutOffAnywhere) {
  StringSink lean;
  LeanTarWriter writer(lean);
  writer.write("header");
  writer.name(digestOf(content_), content_.size());
  writer.write("end");
  writer.finish();
  for (size_t size = 0; size < lean.text.size(); ++size)
    EXPECT_EQ(failure(std::string_view(lean.text).substr(0, size)), ErrorKind::kCorrupt) << size;
  EXPECT_EQ(failure(lean.text + "e"), ErrorKind::kCorrupt);
}

TEST_F(LeanTar, RefusesWhatIsNotThereOrOfAnotherSize) {
  const auto named = [&](const Sha256& digest, uint64_t size) {
    StringSink lean;
    LeanTarWriter writer(lean);
    writer.name(digest, size);
    writer.finish();
    return failure(lean.text);
  };
  EXPECT_EQ(named(digestOf("unknown"), 7), ErrorKind::kConflict);
  EXPECT_EQ(named(digestOf(content_), content_.size() + 1), ErrorKind::kCorrupt);
  EXPECT_EQ(named(digestOf(content_), 0), ErrorKind::kCorrupt);
}

TEST_F(LeanTar, RefusesImpossibleRecords) {
  EXPECT_EQ(failure("x"), ErrorKind::kCorrupt);
  EXPECT_EQ(failure(std::string("r\0\0\0\0e", 6)), ErrorKind::kCorrupt);
  EXPECT_EQ(failure("r\xff\xff\xff\xff"), ErrorKind::kCorrupt);
}

TEST_F(LeanTar, NamesAreBounded) {
  held_[digestOf("a")] = "a";
  StringSink lean;
  LeanTarWriter writer(lean);
  for (size_t i = 0; i <= kMaxNamedContents; ++i) writer.name(digestOf("a"), 1);
  writer.finish();
  EXPECT_EQ(failure(lean.text), ErrorKind::kTooLarge);
}

}  // namespace
}  // namespace hull::build
