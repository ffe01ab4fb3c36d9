// Every file operation in every way an image comes, changes and goes meets a fault once: it fails,
// as on a full or broken disk, or it is the last thing the process does. After each the store
// works, has lost nothing, and the next sweep leaves nothing over.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <iostream>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/testing/faults.h"
#include "image/archive/archive.h"
#include "image/store/testing/image_fixture.h"

namespace hull::image {
namespace {

namespace fs = std::filesystem;
using hull::testing::armFault;
using hull::testing::disarmFault;
using hull::testing::FaultMode;
using testing::MemoryBlobs;
using testing::TarBuilder;
using testing::TestImage;

std::string tarOf(const std::string& name, size_t bytes) {
  return TarBuilder().directory("./").file(name, std::string(bytes, 'x')).end();
}

const std::string kShared = tarOf("shared", 100'000);

// What is in the store before anything happens: an image that must come to no harm, and one that
// is only there to be removed. Both stand on the shared layer.
struct World {
  MemoryBlobs blobs;
  TestImage kept = makeImage(blobs, {kShared, tarOf("kept", 9000)});
  TestImage doomed = makeImage(blobs, {kShared, tarOf("doomed", 9000)});
  TestImage added = makeImage(blobs, {kShared, tarOf("one", 70'000), tarOf("two", 5)});

  std::string archive() {
    TemporaryDirectory folder;
    ImageStore store(folder.path());
    store.add(added.manifest_text, blobs, {Reference::parse("loaded:1")});
    StringSink out;
    saveArchive(store, {"loaded:1"}, out);
    return out.text;
  }
};

void fillStore(const std::string& root, World& world) {
  ImageStore store(root);
  store.add(world.kept.manifest_text, world.blobs, {Reference::parse("kept:1")});
  store.add(world.doomed.manifest_text, world.blobs, {Reference::parse("doomed:1")});
  store.rootDisk(store.get("kept:1").config.diff_ids);
  store.rootDisk(store.get("doomed:1").config.diff_ids);
}

// In a forked process: a problem is said on the error output and ends it.
void require(bool condition, const std::string& what) {
  if (condition) return;
  std::cerr << what << "\n";
  ::_exit(1);
}

// Whatever is listed is whole, and what was there before still is.
void requireWhole(ImageStore& store, const World& world) {
  require(store.find("kept:1") && store.get("kept:1").id == world.kept.id, "kept:1 is lost");
  for (const Image& image : store.list()) {
    for (const Descriptor& blob : image.layer_blobs) store.blobs().read(blob.digest, 64 << 20);
    store.blobs().read(image.manifest, kMaxManifestBytes);
    for (const auto& segment : store.rootDisk(image.config.diff_ids).segments)
      require(fileExists(segment.path), "no file " + segment.path);
  }
}

// After a sweep nothing is there but what the images need.
void requireNoWaste(const std::string& root) {
  std::set<std::string> wanted{".lock", "images.db", "images.db-wal", "images.db-shm"};
  {
    ImageStore store(root);
    store.collectGarbage();
    for (const Image& image : store.list()) {
      for (const Descriptor& blob : image.layer_blobs)
        wanted.insert(store.blobs().path(blob.digest));
      wanted.insert(store.blobs().path(image.id));
      wanted.insert(store.blobs().path(image.manifest));
      for (const Digest& layer : image.config.diff_ids) {
        wanted.insert(store.layers().dataPath(layer));
        wanted.insert(fs::path(store.layers().dataPath(layer)).parent_path() / "index");
      }
      for (const auto& segment : store.rootDisk(image.config.diff_ids).segments) {
        if (!segment.path.ends_with("/meta")) continue;
        const fs::path folder = fs::path(segment.path).parent_path();
        for (const char* name : {"meta", "disk", "layers"}) wanted.insert(folder / name);
      }
    }
  }
  for (const auto& item : fs::recursive_directory_iterator(root)) {
    const std::string path = item.path();
    const bool temporary = item.path().filename().string().starts_with(kPendingFilePrefix);
    require(!temporary, "left over: " + path);
    if (item.is_directory()) continue;
    require(wanted.contains(path) || wanted.contains(item.path().filename()), "left over: " + path);
  }
}

// What to do, and how to see that it was done. Doing it again after a failure is fine.
struct Scenario {
  std::function<void(ImageStore&)> work;
  std::function<bool(ImageStore&)> done;
};

int statusOfChild(const std::function<void()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      work();
    } catch (const std::exception& error) {
      std::cerr << "unexpected: " << error.what() << "\n";
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

class StoreFaults : public ::testing::Test {
 protected:
  static constexpr int kNoFault = 3;  // status: the work was over before its turn came
  static constexpr uint64_t kMostOperations = 2000;

  TemporaryDirectory folder_{"hull-faults"};
  World world_;
  std::string template_ = folder_.path() + "/template";
  std::string root_ = folder_.path() + "/store";

  void SetUp() override { fillStore(template_, world_); }

  void fresh() {
    fs::remove_all(root_);
    fs::copy(template_, root_, fs::copy_options::recursive);
  }

  // In a child: the fault at `nth`, then the same again in the same process.
  void failing(const Scenario& scenario, uint64_t nth) {
    int status = 0;
    {
      ImageStore store(root_);
      armFault(root_, nth, FaultMode::kFail);
      bool failed = false;
      try {
        scenario.work(store);
      } catch (const Error&) {
        failed = true;
      }
      const auto report = disarmFault();
      if (report.fault.empty()) status = kNoFault;
      require(!failed || !report.fault.empty(), "failed without a fault");
      require(report.unsynced_publications.empty(), "published before it was synced");
      requireWhole(store, world_);
      if (failed) scenario.work(store);
      require(scenario.done(store), "a second try did not do it, after " + report.fault);
      requireWhole(store, world_);
    }
    requireNoWaste(root_);
    ::_exit(status);
  }

  void failEachOnce(const Scenario& scenario) {
    for (uint64_t nth = 1; nth < kMostOperations; ++nth) {
      fresh();
      const int status = statusOfChild([&] { failing(scenario, nth); });
      if (status == kNoFault) return leaveNth(nth);
      ASSERT_EQ(status, 0) << "with operation " << nth << " failing";
    }
    FAIL() << "more than " << kMostOperations << " operations";
  }

  void endAtEachOnce(const Scenario& scenario) {
    for (uint64_t nth = 1; nth < kMostOperations; ++nth) {
      fresh();
      const int status = statusOfChild([&] {
        ImageStore store(root_);
        armFault(root_, nth, FaultMode::kExit);
        scenario.work(store);
        disarmFault();
      });
      if (status == 0) return leaveNth(nth);
      ASSERT_EQ(status, hull::testing::kFaultStatus) << "at operation " << nth;
      // The next start: nothing is lost, nothing is left over, and it can be done.
      const int after = statusOfChild([&] {
        requireNoWaste(root_);
        {
          ImageStore store(root_);
          requireWhole(store, world_);
          scenario.work(store);
          require(scenario.done(store), "a second try did not do it");
          requireWhole(store, world_);
        }
        requireNoWaste(root_);
      });
      ASSERT_EQ(after, 0) << "after an end at operation " << nth;
    }
    FAIL() << "more than " << kMostOperations << " operations";
  }

  // So many faults were tried: a scenario that touches no file would show nothing.
  void leaveNth(uint64_t nth) {
    EXPECT_GT(nth, 3u);
    std::cout << nth - 1 << " operations\n";
  }

  Scenario pulling() {
    return {[this](ImageStore& store) {
              store.add(world_.added.manifest_text, world_.blobs, {Reference::parse("added:1")});
            },
            [](ImageStore& store) { return store.find("added:1").has_value(); }};
  }
  Scenario loading() {
    auto archive = std::make_shared<std::string>(world_.archive());
    return {[archive](ImageStore& store) {
              StringSource source(*archive);
              loadArchive(store, source);
            },
            [](ImageStore& store) { return store.find("loaded:1").has_value(); }};
  }
  static Scenario building() {
    return {[](ImageStore& store) {
              const std::string tar = tarOf("built", 300'000);
              StringSource source(tar);
              const IngestedLayer layer = store.layers().ingest(source, KeepBlob::kCompress);
              store.create({}, {layer}, {Reference::parse("built:1")});
            },
            [](ImageStore& store) { return store.find("built:1").has_value(); }};
  }
  Scenario tagging() {
    return {
        [this](ImageStore& store) { store.tag(world_.kept.id, Reference::parse("other/name:2")); },
        [](ImageStore& store) { return store.find("other/name:2").has_value(); }};
  }
  static Scenario removing() {
    return {[](ImageStore& store) {
              if (store.find("doomed:1")) store.remove("doomed:1", false, {});
            },
            [](ImageStore& store) { return !store.find("doomed:1"); }};
  }
  static Scenario collecting() {
    return {[](ImageStore& store) {
              store.blobs().put("a blob that no image names");
              const std::string tar = tarOf("nobodys", 5000);
              StringSource source(tar);
              store.layers().ingest(source, KeepBlob::kAsIs);
              store.collectGarbage();
            },
            [](ImageStore&) { return true; }};
  }
  Scenario stitching() {
    return {[this](ImageStore& store) { store.rootDisk({world_.kept.config.diff_ids[0]}); },
            [](ImageStore&) { return true; }};
  }
};

TEST_F(StoreFaults, APullSurvivesEachFailure) {
  failEachOnce(pulling());
}
TEST_F(StoreFaults, APullSurvivesEndingAnywhere) {
  endAtEachOnce(pulling());
}
TEST_F(StoreFaults, ALoadSurvivesEachFailure) {
  failEachOnce(loading());
}
TEST_F(StoreFaults, ALoadSurvivesEndingAnywhere) {
  endAtEachOnce(loading());
}
TEST_F(StoreFaults, ABuildResultSurvivesEachFailure) {
  failEachOnce(building());
}
TEST_F(StoreFaults, ABuildResultSurvivesEndingAnywhere) {
  endAtEachOnce(building());
}
TEST_F(StoreFaults, ATagSurvivesEachFailure) {
  failEachOnce(tagging());
}
TEST_F(StoreFaults, ATagSurvivesEndingAnywhere) {
  endAtEachOnce(tagging());
}
TEST_F(StoreFaults, ARemovalSurvivesEachFailure) {
  failEachOnce(removing());
}
TEST_F(StoreFaults, ARemovalSurvivesEndingAnywhere) {
  endAtEachOnce(removing());
}
TEST_F(StoreFaults, AGarbageCollectionSurvivesEachFailure) {
  failEachOnce(collecting());
}
TEST_F(StoreFaults, AGarbageCollectionSurvivesEndingAnywhere) {
  endAtEachOnce(collecting());
}
TEST_F(StoreFaults, AStitchingSurvivesEachFailure) {
  failEachOnce(stitching());
}
TEST_F(StoreFaults, AStitchingSurvivesEndingAnywhere) {
  endAtEachOnce(stitching());
}

}  // namespace
}  // namespace hull::image
