// What is kept of contexts, for how long, and that a build of a lean tar is the build of the tar.
#include "image/build/context_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <filesystem>

#include "base/testing/digest_of.h"
#include "image/build/cache.h"
#include "image/build/lean_tar.h"
#include "image/build/testing/build_fixture.h"

namespace hull::build {
namespace {

std::string_view bytesOf(const Sha256& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

using Files = std::vector<std::pair<std::string, std::string>>;

class ContextStoreTest : public testing::BuilderTest {
 protected:
  // A tar as a lean one that names `contents`, each once.
  static std::string lean(const std::string& tar, const std::vector<std::string>& contents) {
    StringSink out;
    LeanTarWriter writer(out);
    size_t at = 0;
    for (const auto& content : contents) {
      const size_t found = tar.find(content, at);
      EXPECT_NE(found, std::string::npos);
      writer.write(std::string_view(tar).substr(at, found - at));
      writer.name(digestOf(content), content.size());
      at = found + content.size();
    }
    writer.write(std::string_view(tar).substr(at));
    writer.finish();
    return out.text;
  }
  image::Image buildTar(const std::string& tar, bool is_lean) {
    StringSource context(tar);
    request_.lean_context = is_lean;
    events_.clear();
    BuildHooks hooks;
    hooks.report = [this](const BuildEvent& event) { events_.push_back(event); };
    return buildImage(store_, runner_, context, request_, hooks);
  }
  std::string tarOf(Files files) {
    files.emplace_back("Dockerfile", "FROM scratch\nCOPY . /\n");
    return contextTar(files);
  }
  void bring(const Files& files) { buildTar(lean(tarOf(files), {}), true); }
  std::string held(const std::vector<std::string>& contents) {
    std::string digests;
    for (const auto& content : contents) digests += bytesOf(digestOf(content));
    return contexts_->held(digests);
  }
  ErrorKind refusal(const std::string& tar) {
    try {
      buildTar(tar, true);
    } catch (const Error& error) {
      return error.kind();
    }
    ADD_FAILURE() << "it was built";
    return ErrorKind::kInternal;
  }

  std::shared_ptr<ContextStore> contexts_ = ContextStore::open(store_);
  const std::string big_ = std::string(50'000, 'b'), other_ = std::string(40'000, 'o');
};

TEST_F(ContextStoreTest, TheNextBuildNamesWhatTheLastBrought) {
  EXPECT_EQ(held({big_, other_}), "00");
  bring({{"big", big_}, {"other", other_}});
  EXPECT_EQ(held({big_, "unknown", other_}), "101");
  const std::string tar = tarOf({{"big", big_}, {"new", "fresh"}});
  const std::string sent = lean(tar, {big_});
  EXPECT_LT(sent.size(), tar.size() - big_.size() + 100);
  const image::Image image = buildTar(sent, true);
  EXPECT_EQ(fileOf(image, "/big"), big_);
  EXPECT_EQ(fileOf(image, "/new"), "fresh");
  EXPECT_FALSE(has(image, "other"));
}

TEST_F(ContextStoreTest, TheImageAndTheCacheAreThoseOfThePlainTar) {
  request_.build_args["SOURCE_DATE_EPOCH"] = "1700000000";
  const std::string tar = tarOf({{"big", big_}, {"link", "-> big"}, {"folder/", ""}});
  const image::Image plain = buildTar(tar, false);
  const image::Image whole = buildTar(lean(tar, {}), true);
  EXPECT_EQ(cachedSteps(), 1);  // of the plain one
  const image::Image named = buildTar(lean(tar, {big_}), true);
  EXPECT_EQ(cachedSteps(), 1);
  EXPECT_EQ(whole.id.text(), plain.id.text());
  EXPECT_EQ(named.id.text(), plain.id.text());
  BuildCache::open(store_)->prune({});
  EXPECT_EQ(buildTar(lean(tar, {big_}), true).id.text(), plain.id.text());
  EXPECT_EQ(cachedSteps(), 0);
  buildTar(tar, false);
  EXPECT_EQ(cachedSteps(), 1);  // of the lean one
}

TEST_F(ContextStoreTest, OfPlainTarsNothingIsKept) {
  buildTar(tarOf({{"big", big_}}), false);
  EXPECT_EQ(held({big_}), "0");
  EXPECT_TRUE(contexts_->list().empty());
}

TEST_F(ContextStoreTest, AContextTakesThePlaceOfTheOneItCameFromAndOfNoOther) {
  bring({{"big", big_}, {"a", std::string(1000, '1')}});
  bring({{"stranger", other_}, {"a", std::string(1000, '1')}});  // shares little
  EXPECT_EQ(contexts_->list().size(), 2u);
  bring({{"big", big_}, {"a", std::string(1000, '2')}});
  EXPECT_EQ(contexts_->list().size(), 2u);
  EXPECT_EQ(held({big_, other_, std::string(1000, '1'), std::string(1000, '2')}), "1111");
  store_.collectGarbage();
  size_t layers = 0;
  store_.layers().forEach([&](const image::Digest&) { ++layers; });
  EXPECT_EQ(layers, 2u + 3u);  // the contexts', and what COPY made of each
}

TEST_F(ContextStoreTest, BeyondTheLimitThoseGoThatWereUsedLongestAgo) {
  bring({{"big", big_}});
  contexts_->setLimit(120'000);
  bring({{"other", other_}});
  EXPECT_EQ(held({big_, other_}), "11");
  buildTar(lean(tarOf({{"big", big_}}), {big_}),
           true);  // used again: of another time, the same bytes
  const std::string third(45'000, '3');
  bring({{"third", third}});
  EXPECT_EQ(held({big_, other_, third}), "101");
  bring({{"huge", std::string(200'000, 'h')}});  // fits never
  EXPECT_EQ(held({big_, third, std::string(200'000, 'h')}), "110");
}

TEST_F(ContextStoreTest, SurvivesARestartAndWhatIsDamagedDoesNot) {
  bring({{"big", big_}});
  bring({{"other", other_}});
  const auto kept = contexts_->list();
  ASSERT_EQ(kept.size(), 2u);
  contexts_.reset();
  const std::string folder = store_.blobs().root() + "/contexts/";
  writeFileAtomic(folder + std::string(kept[0].diff_id.hex()), "rubbish");
  writeFileAtomic(folder + std::string(64, 'a'), "of a layer that is not there");
  writeFileAtomic(folder + ".tmp-0123", "half made");
  contexts_ = ContextStore::open(store_);
  store_.collectGarbage();
  EXPECT_EQ(held({big_, other_}), "01");
  EXPECT_EQ(contexts_->list().size(), 1u);
  size_t files = 0;
  for ([[maybe_unused]] const auto& item : std::filesystem::directory_iterator(folder)) ++files;
  EXPECT_EQ(files, 1u);
}

TEST_F(ContextStoreTest, WhatIsRemovedMeanwhileIsToBeSentWhole) {
  bring({{"big", big_}});
  const std::string tar = tarOf({{"big", big_}});
  EXPECT_TRUE(contexts_->remove(contexts_->list().front().diff_id));
  EXPECT_FALSE(contexts_->remove(image::Digest::of("unknown")));
  store_.collectGarbage();
  EXPECT_EQ(refusal(lean(tar, {big_})), ErrorKind::kConflict);
  buildTar(lean(tar, {}), true);
}

TEST_F(ContextStoreTest, ABuildReadsOnWhatIsRemovedMeanwhile) {
  bring({{"big", big_}});
  ContextStore::Reader reader = contexts_->reader();
  contexts_->remove(contexts_->list().front().diff_id);
  store_.collectGarbage();
  const auto content = reader.open(digestOf(big_), big_.size());
  EXPECT_EQ(readAll(*content, 1 << 20, "content"), big_);
}

TEST_F(ContextStoreTest, ADiskThatForgetsIsNoticedAndTheNextBuildBringsIt) {
  bring({{"big", big_}});
  const std::string tar = tarOf({{"big", big_}});
  const Fd data = openFile(store_.layers().dataPath(contexts_->list().front().diff_id), O_RDWR);
  pwriteFull(data.get(), std::as_bytes(std::span("damage", 6)), 100);
  EXPECT_EQ(refusal(lean(tar, {big_})), ErrorKind::kConflict);
  EXPECT_EQ(held({big_}), "0");
  EXPECT_EQ(fileOf(buildTar(lean(tar, {}), true), "/big"), big_);
}

// A client could name a content where a header of the tar belongs, or send one file's bytes under
// another's digest: what is kept is what the engine itself has digested.
TEST_F(ContextStoreTest, WhatIsKeptIsWhatTheEngineDigested) {
  bring({{"big", big_}});
  const std::string tar = tarOf({{"a", other_}});
  StringSink out;
  LeanTarWriter writer(out);
  writer.write(tar);
  writer.name(digestOf(big_), big_.size());  // behind the tar's end: no file
  writer.finish();
  EXPECT_EQ(refusal(out.text), ErrorKind::kConflict);
  EXPECT_EQ(held({other_}), "0");
}

TEST_F(ContextStoreTest, QuestionsAreBounded) {
  EXPECT_THROW(contexts_->held("short"), Error);
  EXPECT_EQ(contexts_->held(""), "");
  EXPECT_THROW(contexts_->held(std::string((kMaxNamedContents + 1) * sizeof(Sha256), 'x')), Error);
}

TEST_F(ContextStoreTest, HostileTarsMeetTheBoundsOfLayers) {
  bring({{"big", big_}});
  const image::Image image = buildTar(lean(tarOf({{"../../escape", big_}}), {big_}), true);
  EXPECT_EQ(fileOf(image, "/escape"), big_);  // it stays in the context
  EXPECT_EQ(refusal(lean(tarOf({{".wh.a/inside", big_}}), {big_})), ErrorKind::kCorrupt);
  EXPECT_EQ(refusal(lean(tarOf({{"big", big_}}), {big_}).substr(0, 700)), ErrorKind::kCorrupt);
  EXPECT_EQ(refusal("garbage"), ErrorKind::kCorrupt);
  EXPECT_EQ(refusal(""), ErrorKind::kCorrupt);
}

}  // namespace
}  // namespace hull::build
