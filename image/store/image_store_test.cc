#include "image/store/image_store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "image/store/database.h"
#include "image/store/testing/image_fixture.h"

namespace hull::image {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::MemoryBlobs;
using testing::TarBuilder;
using testing::TestImage;
using ::testing::UnorderedElementsAre;

const auto kUnused = [](const Digest&) { return false; };
const auto kUsed = [](const Digest&) { return true; };

std::string tarOf(const std::string& name, const std::string& content) {
  return TarBuilder().directory("./").file(name, content).end();
}

std::vector<std::string> namesOf(const std::vector<Reference>& references) {
  std::vector<std::string> result;
  for (const Reference& reference : references) result.push_back(reference.familiar());
  return result;
}

std::vector<std::string> textOf(const std::vector<RemovedItem>& items) {
  std::vector<std::string> result;
  for (const RemovedItem& item : items) {
    result.push_back((item.outcome == RemoveOutcome::kDeleted ? "deleted " : "untagged ") +
                     item.name);
  }
  return result;
}

template <typename Work>
Error errorOf(Work&& work) {
  try {
    work();
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorKind::kInternal, "no error");
}

class ImageStoreTest : public ::testing::Test {
 protected:
  TemporaryDirectory folder_;
  std::unique_ptr<ImageStore> store_ = std::make_unique<ImageStore>(folder_.path());
  MemoryBlobs remote_;

  Image add(const TestImage& image, const std::vector<std::string>& names = {}) {
    std::vector<Reference> references;
    for (const std::string& name : names) references.push_back(Reference::parse(name));
    return store_->add(image.manifest_text, remote_, references);
  }
  TestImage sample(const std::string& salt = "a") {
    ImageConfig config;
    config.created = "2024-01-01T00:00:00Z";
    config.config.cmd = {"sh"};
    return testing::makeImage(remote_, {tarOf("base", "base"), tarOf("top", salt)}, config);
  }
  size_t blobCount() {
    size_t count = 0;
    store_->blobs().forEach([&](const Digest&, uint64_t) { ++count; });
    return count;
  }
  size_t layerCount() {
    size_t count = 0;
    store_->layers().forEach([&](const Digest&) { ++count; });
    return count;
  }
};

TEST_F(ImageStoreTest, AnAddedImageIsThereWithEverything) {
  const TestImage image = sample();
  std::mutex mutex;
  std::vector<std::string> statuses;
  const Image added = store_->add(image.manifest_text, remote_, {Reference::parse("app")},
                                  [&](const LayerProgress& progress) {
                                    const std::lock_guard lock(mutex);
                                    statuses.push_back(progress.status);
                                  });
  EXPECT_EQ(added.id, image.id);
  EXPECT_EQ(added.manifest, Digest::of(image.manifest_text));
  EXPECT_EQ(added.size_bytes, 5u);
  EXPECT_THAT(namesOf(added.tags), ElementsAre("app:latest"));
  EXPECT_EQ(added.layer_blobs.size(), 2u);
  EXPECT_EQ(std::count(statuses.begin(), statuses.end(), "Pull complete"), 2);
  EXPECT_EQ(store_->blobs().read(added.manifest, 1 << 20), image.manifest_text);

  const Tree tree = store_->tree(added);
  EXPECT_NE(tree.find("base"), kNoInode);
  EXPECT_NE(tree.find("top"), kNoInode);

  store_ = nullptr;  // a new process finds the same
  store_ = std::make_unique<ImageStore>(folder_.path());
  EXPECT_EQ(store_->get("app").id, image.id);
}

TEST_F(ImageStoreTest, SharedLayersAreFetchedOnce) {
  const TestImage one = sample("a"), two = sample("b");
  add(one);
  std::vector<std::string> statuses;
  store_->add(two.manifest_text, remote_, {}, [&](const LayerProgress& progress) {
    static std::mutex mutex;
    const std::lock_guard lock(mutex);
    statuses.push_back(progress.status);
  });
  EXPECT_EQ(remote_.opened[one.manifest.layers[0].digest], 1);
  EXPECT_EQ(std::count(statuses.begin(), statuses.end(), "Already exists"), 1);
  add(one);
  EXPECT_EQ(remote_.opened[one.id], 1);
  EXPECT_EQ(layerCount(), 3u);
}

TEST_F(ImageStoreTest, ConcurrentAddsOfOneImageFetchEachLayerOnce) {
  const TestImage image = sample();
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) threads.emplace_back([&] { add(image, {"app"}); });
  for (std::thread& thread : threads) thread.join();
  for (const Descriptor& layer : image.manifest.layers) EXPECT_EQ(remote_.opened[layer.digest], 1);
  EXPECT_EQ(store_->list().size(), 1u);
}

TEST_F(ImageStoreTest, ConcurrentAddsOfImagesThatShareLayersFetchEachOnce) {
  std::vector<TestImage> images;
  for (int i = 0; i < 6; ++i) images.push_back(sample("top " + std::to_string(i)));
  std::vector<std::thread> threads;
  for (const TestImage& image : images)
    threads.emplace_back([&] { add(image, {"app:" + std::string(image.id.shortHex())}); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(remote_.opened[images[0].manifest.layers[0].digest], 1);
  for (const TestImage& image : images)
    EXPECT_EQ(remote_.opened[image.manifest.layers[1].digest], 1);
  EXPECT_EQ(layerCount(), 7u);
  EXPECT_EQ(store_->list().size(), 6u);
}

TEST_F(ImageStoreTest, SharedLayersCountOnce) {
  const TestImage one = sample("a"), two = sample("bcd");
  add(one, {"one"});
  add(two, {"two"});
  add(testing::makeImage(remote_, {tarOf("alone", "1234567890")}), {"three"});
  const ImageStore::Usage usage = store_->usage();
  EXPECT_EQ(usage.layers, 4u + 1 + 3 + 10);
  EXPECT_EQ(usage.shared.at(one.id), 4u);
  EXPECT_EQ(usage.shared.at(two.id), 4u);
  EXPECT_EQ(usage.shared.at(store_->get("three").id), 0u);
}

TEST_F(ImageStoreTest, ImagesOfOtherPlatformsAreKept) {
  ImageConfig arm;
  arm.platform = {"linux", "arm64", "v8"};
  add(testing::makeImage(remote_, {tarOf("x", "y")}, arm), {"arm"});
  EXPECT_EQ(store_->get("arm").config.platform.text(), "linux/arm64/v8");
}

TEST_F(ImageStoreTest, ALayerNamedTwiceIsOneLayer) {
  const std::string tar = tarOf("x", "y");
  const TestImage image = testing::makeImage(remote_, {tar, tar});
  EXPECT_EQ(add(image).config.diff_ids.size(), 2u);
  EXPECT_EQ(remote_.opened[image.manifest.layers[0].digest], 1);
  EXPECT_FALSE(store_->rootDisk(image.config.diff_ids).segments.empty());
}

// CVE-2026-24054.
TEST_F(ImageStoreTest, AnImageWithoutLayersIsAnImage) {
  const TestImage image = testing::makeImage(remote_, {});
  const Image added = add(image, {"empty"});
  EXPECT_EQ(added.size_bytes, 0u);
  EXPECT_FALSE(store_->rootDisk({}).segments.empty());
}

TEST_F(ImageStoreTest, BadImagesAreRefusedAndLeaveNothing) {
  const auto refused = [&](TestImage image, ErrorKind kind, const std::string& words) {
    image.manifest_text = toJson(image.manifest);
    const Error error = errorOf([&] { add(image, {"bad"}); });
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(words));
    EXPECT_FALSE(store_->find("bad"));
    EXPECT_TRUE(store_->list().empty());
    store_->collectGarbage();
    EXPECT_EQ(blobCount(), 0u);
    EXPECT_EQ(layerCount(), 0u);
  };
  ImageConfig other;
  other.platform.os = "windows";
  refused(testing::makeImage(remote_, {}, other), ErrorKind::kNotSupported,
          "image is for windows/amd64: only images of Linux");

  TestImage image = sample();
  image.manifest.layers.pop_back();
  refused(image, ErrorKind::kCorrupt, "the manifest has 1 layers, the configuration 2");

  image = sample();
  image.manifest.layers[0].media_type = media_type::kDockerForeignLayer;
  refused(image, ErrorKind::kNotSupported, "foreign");
  image.manifest.layers[0].media_type = "text/plain";
  refused(image, ErrorKind::kNotSupported, "unknown media type");

  image = sample();
  image.manifest.config.media_type = "application/vnd.example.chart";
  refused(image, ErrorKind::kNotSupported, "no container image");

  image = sample();
  image.manifest.layers[1].size -= 1;
  refused(image, ErrorKind::kCorrupt, "the manifest says");
  image.manifest.layers[1].size += 2;
  refused(image, ErrorKind::kCorrupt, "only");

  image = sample();
  image.config.diff_ids[1] = Digest::of("something else");
  const std::string config = toJson(image.config);
  image.manifest.config = {media_type::kDockerConfig, remote_.put(config), config.size(), {}, {}};
  refused(image, ErrorKind::kCorrupt, "diff id");

  image = sample();
  remote_.blobs[image.id] = toJson(other);
  refused(image, ErrorKind::kCorrupt, "digest mismatch");

  image = sample("other");
  remote_.blobs[image.manifest.layers[1].digest][20] ^= 1;
  refused(image, ErrorKind::kCorrupt, "layer " + image.manifest.layers[1].digest.text());

  EXPECT_EQ(
      errorOf([&] { store_->add(R"({"schemaVersion":2,"manifests":[]})", remote_, {}); }).kind(),
      ErrorKind::kInvalidArgument);
}

TEST_F(ImageStoreTest, AFailedAddCanBeTriedAgain) {
  const TestImage image = sample();
  const Digest top = image.manifest.layers[1].digest;
  const std::string content = remote_.blobs[top];
  remote_.blobs.erase(top);
  EXPECT_EQ(errorOf([&] { add(image, {"app"}); }).kind(), ErrorKind::kNotFound);
  remote_.blobs[top] = content;
  EXPECT_EQ(add(image, {"app"}).id, image.id);
}

TEST_F(ImageStoreTest, CreatedImagesAreDeterministic) {
  const std::string tar = tarOf("f", "content");
  StringSource source(tar);
  const IngestedLayer layer = store_->layers().ingest(source, KeepBlob::kCompress);
  ImageConfig config;
  config.created = "2024-05-05T00:00:00Z";
  const Image image = store_->create(config, {layer}, {Reference::parse("made:1")});
  EXPECT_EQ(store_->create(config, {layer}, {}).id, image.id);
  EXPECT_THAT(image.config.diff_ids, ElementsAre(Digest::of(tar)));
  EXPECT_EQ(image.layer_blobs[0].digest, layer.blob);
  EXPECT_EQ(image.layer_blobs[0].size, layer.blob_bytes);
  EXPECT_EQ(store_->get("made:1").id, image.id);
  IngestedLayer missing = layer;
  missing.diff_id = Digest::of("x");
  EXPECT_EQ(errorOf([&] { store_->create(config, {missing}, {}); }).kind(), ErrorKind::kNotFound);
}

TEST_F(ImageStoreTest, ImagesAreFoundByNameAndId) {
  const Image image = add(sample(), {"app:1", "localhost:5000/app"});
  Reference pulled = Reference::parse("app");
  pulled.tag.clear();
  pulled.digest = image.manifest;
  store_->recordDigest(image.id, pulled);
  const std::string hex(image.id.hex());
  for (const std::string& name :
       {std::string("app:1"), std::string("docker.io/library/app:1"),
        std::string("localhost:5000/app:latest"), image.id.text(), hex, hex.substr(0, 12),
        hex.substr(0, 4), "sha256:" + hex.substr(0, 10), "app@" + image.manifest.text()}) {
    ASSERT_TRUE(store_->find(name)) << name;
    EXPECT_EQ(store_->get(name).id, image.id);
  }
  for (const std::string& name :
       {std::string("app"), std::string("other"), hex.substr(0, 3), std::string(64, '0'),
        "sha256:" + std::string(64, '0'), "app@sha256:" + std::string(64, '0')}) {
    EXPECT_FALSE(store_->find(name)) << name;
  }
  EXPECT_STREQ(errorOf([&] { store_->get("other"); }).what(), "No such image: other:latest");
  EXPECT_EQ(errorOf([&] { store_->get("other"); }).kind(), ErrorKind::kNotFound);
  EXPECT_EQ(errorOf([&] { store_->get("Other"); }).kind(), ErrorKind::kInvalidArgument);
  EXPECT_THAT(namesOf(store_->get("app:1").digests), ElementsAre("app@" + image.manifest.text()));
}

TEST_F(ImageStoreTest, AnAmbiguousShortIdIsAConflict) {
  std::map<std::string, std::string> seen;  // 600 ids of 4 digits: some two begin alike
  for (int i = 0; i < 1200; ++i) {
    ImageConfig config;
    config.author = std::to_string(i);
    const Image image = store_->create(config, {}, {});
    const std::string prefix(image.id.hex().substr(0, 4));
    if (!seen.emplace(prefix, image.id.text()).second) {
      EXPECT_EQ(errorOf([&] { store_->get(prefix); }).kind(), ErrorKind::kConflict);
      EXPECT_EQ(store_->get(image.id.text()).id, image.id);
      return;
    }
  }
  FAIL() << "no two ids began alike";
}

TEST_F(ImageStoreTest, ListIsNewestFirst) {
  ImageConfig config;
  config.created = "2020-01-01T00:00:00Z";
  const Digest oldest = store_->create(config, {}, {}).id;
  config.created = "2024-01-01T00:00:00Z";
  const Digest newest = store_->create(config, {}, {}).id;
  config.created = "2022-01-01T00:00:00Z";
  const Digest middle = store_->create(config, {}, {}).id;
  std::vector<Digest> ids;
  for (const Image& image : store_->list()) ids.push_back(image.id);
  EXPECT_THAT(ids, ElementsAre(newest, middle, oldest));
}

TEST_F(ImageStoreTest, ATagMovesToTheNewImage) {
  const Image one = add(sample("a"), {"app"}), two = add(sample("b"), {"app"});
  EXPECT_EQ(store_->get("app").id, two.id);
  EXPECT_TRUE(store_->get(one.id.text()).tags.empty());
  store_->tag(one.id, Reference::parse("app:old"));
  EXPECT_EQ(store_->get("app:old").id, one.id);
  EXPECT_EQ(errorOf([&] { store_->tag(Digest::of("x"), Reference::parse("a")); }).kind(),
            ErrorKind::kNotFound);
  EXPECT_EQ(
      errorOf([&] { store_->tag(one.id, Reference::parse("a@" + one.manifest.text())); }).kind(),
      ErrorKind::kInvalidArgument);
}

TEST_F(ImageStoreTest, RemovingByNameUntagsAndTheLastNameDeletes) {
  const Image image = add(sample(), {"app:1", "app:2"});
  Reference digest = Reference::parse("app");
  digest.tag.clear();
  digest.digest = image.manifest;
  store_->recordDigest(image.id, digest);
  // With another tag left even a used image can lose a name.
  EXPECT_THAT(textOf(store_->remove("app:1", false, kUsed)), ElementsAre("untagged app:1"));
  EXPECT_EQ(errorOf([&] { store_->remove("app:2", false, kUsed); }).kind(), ErrorKind::kConflict);
  EXPECT_THAT(textOf(store_->remove("app:2", false, kUnused)),
              ElementsAre("untagged app:2", "untagged app@" + image.manifest.text(),
                          "deleted " + image.id.text()));
  EXPECT_EQ(blobCount(), 0u);
  EXPECT_EQ(layerCount(), 0u);
  EXPECT_EQ(errorOf([&] { store_->remove("app:2", false, kUnused); }).kind(), ErrorKind::kNotFound);
}

TEST_F(ImageStoreTest, RemovingByIdNeedsOneNameOrForce) {
  const Image image = add(sample(), {"app", "other"});
  const std::string id = image.id.shortHex();
  const Error error = errorOf([&] { store_->remove(id, false, kUnused); });
  EXPECT_EQ(error.kind(), ErrorKind::kConflict);
  EXPECT_THAT(error.what(), HasSubstr("image is referenced in multiple repositories"));
  EXPECT_EQ(store_->remove(id, true, kUnused).size(), 3u);
  add(sample(), {"app"});
  EXPECT_EQ(errorOf([&] { store_->remove(id, false, kUsed); }).kind(), ErrorKind::kConflict);
  EXPECT_THAT(textOf(store_->remove(id, true, kUsed)),
              ElementsAre("untagged app:latest", "deleted " + image.id.text()));
  EXPECT_TRUE(store_->list().empty());
}

TEST_F(ImageStoreTest, RemovingAnImageKeepsWhatOthersShare) {
  const Image one = add(sample("a"), {"one"}), two = add(sample("b"), {"two"});
  store_->remove("one", false, kUnused);
  EXPECT_EQ(layerCount(), 2u);
  EXPECT_NE(store_->tree(store_->get("two")).find("base"), kNoInode);
}

TEST_F(ImageStoreTest, TheRootDiskIsMadeOnceAndPointsIntoTheLayers) {
  const Image image = add(sample(), {"app"});
  const RootDisk disk = store_->rootDisk(image.config.diff_ids);
  ASSERT_GE(disk.segments.size(), 3u);
  uint64_t end = 0;
  std::vector<std::string> files;
  for (const RootDisk::Segment& segment : disk.segments) {
    EXPECT_GE(segment.disk_offset, end);
    end = segment.disk_offset + segment.length;
    EXPECT_LE(end, disk.disk_bytes);
    const Fd fd = openFile(segment.path, O_RDONLY);
    EXPECT_LE(segment.file_offset + segment.length, fileSize(fd.get()));
    files.push_back(segment.path);
  }
  EXPECT_THAT(files,
              ::testing::IsSupersetOf({store_->layers().dataPath(image.config.diff_ids[0]),
                                       store_->layers().dataPath(image.config.diff_ids[1])}));
  const auto written = std::filesystem::last_write_time(files[0]);
  EXPECT_EQ(store_->rootDisk(image.config.diff_ids).segments[0].path, files[0]);
  EXPECT_EQ(std::filesystem::last_write_time(files[0]), written);

  // A damaged description is made anew, to the same disk.
  const std::string description = std::filesystem::path(files[0]).parent_path().string() + "/disk";
  const std::string good = readFile(description);
  writeFileAtomic(description, "rubbish");
  EXPECT_EQ(store_->rootDisk(image.config.diff_ids).disk_bytes, disk.disk_bytes);
  EXPECT_EQ(readFile(description), good);

  store_->remove("app", false, kUnused);
  EXPECT_FALSE(fileExists(description));
  EXPECT_EQ(errorOf([&] { store_->rootDisk(image.config.diff_ids); }).kind(), ErrorKind::kNotFound);
}

TEST_F(ImageStoreTest, ConcurrentRootDisksAreOne) {
  const Image image = add(sample());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { store_->rootDisk(image.config.diff_ids); });
  }
  for (std::thread& thread : threads) thread.join();
  size_t disks = 0;
  for (const auto& item : std::filesystem::directory_iterator(folder_.path() + "/disks")) {
    disks += item.is_directory() ? 1 : 0;
  }
  EXPECT_EQ(disks, 1u);
}

TEST_F(ImageStoreTest, GarbageIsCollectedAndPinnedThingsAreNot) {
  const std::string tar = tarOf("f", "content");
  StringSource source(tar);
  std::optional<IngestedLayer> layer = store_->layers().ingest(source, KeepBlob::kCompress);
  const Digest diff_id = layer->diff_id;
  store_->rootDisk({diff_id});
  EXPECT_EQ(store_->collectGarbage().layers, 0u) << "pinned by the ingest's result";
  auto pin = store_->pinLayers({diff_id});
  layer.reset();
  auto second = pin;
  pin.reset();
  ImageStore::Collected collected = store_->collectGarbage();
  EXPECT_EQ(collected.blobs, 1u) << "the blob is not pinned any more";
  EXPECT_EQ(collected.layers, 0u);
  second.reset();
  collected = store_->collectGarbage();
  EXPECT_EQ(collected.layers, 1u);
  EXPECT_GE(collected.bytes, 4096u);
  EXPECT_FALSE(store_->layers().has(diff_id));
  for (const auto& item : std::filesystem::directory_iterator(folder_.path() + "/disks")) {
    ADD_FAILURE() << item.path() << " is left";
  }
}

TEST_F(ImageStoreTest, CollectingDuringAddsHarmsNone) {
  std::atomic<bool> done = false;
  std::thread collector([&] {
    while (!done) store_->collectGarbage();
  });
  for (int i = 0; i < 20; ++i) {
    const TestImage image = sample("salt " + std::to_string(i));
    const Error error = errorOf([&] {
      const Image added = add(image, {"app"});
      EXPECT_NE(store_->tree(added).find("top"), kNoInode);
    });
    EXPECT_STREQ(error.what(), "no error");
  }
  done = true;
  collector.join();
  EXPECT_TRUE(store_->find("app"));
}

TEST_F(ImageStoreTest, ADatabaseOfANewerProgramIsRefused) {
  store_ = nullptr;
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open((folder_.path() + "/images.db").c_str(), &database), SQLITE_OK);
  sqlite3_exec(database, "PRAGMA user_version=99", nullptr, nullptr, nullptr);
  sqlite3_close(database);
  const Error error = errorOf([&] { ImageStore again(folder_.path()); });
  EXPECT_EQ(error.kind(), ErrorKind::kNotSupported);
  EXPECT_THAT(error.what(), HasSubstr("newer"));
}

TEST_F(ImageStoreTest, ABlobDamagedOnDiskIsNoticed) {
  const Image image = add(sample(), {"app"});
  writeFileAtomic(store_->blobs().path(image.id), "{}");
  EXPECT_EQ(errorOf([&] { store_->get("app"); }).kind(), ErrorKind::kCorrupt);
}

}  // namespace
}  // namespace hull::image
