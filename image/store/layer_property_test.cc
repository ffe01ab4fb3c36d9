// Random stacks of layers the whole way: tar → store → stitched disk → libext2fs, held against a
// plain model that shares no code with it. The seeds are fixed; HULL_PROPERTY_SEEDS=N tries N of
// them instead of the few of every run.
#include <cstdlib>

#include "image/ext4/testing/expectations.h"
#include "image/layer/testing/layer_tar.h"
#include "image/layer/testing/plain_tree.h"
#include "image/layer/testing/random_layers.h"
#include "image/store/testing/disk_fixture.h"

namespace hull::image {
namespace {

constexpr uint64_t kSeeds = 40;

uint64_t seeds() {
  const char* const wanted = std::getenv("HULL_PROPERTY_SEEDS");
  return wanted ? std::strtoull(wanted, nullptr, 10) : kSeeds;
}

// Tells layer, file and place apart; some blocks are zeros.
std::string contentOf(uint32_t layer, const Entry& file) {
  std::string content(file.size, '\0');
  const uint64_t salt = layer * 1009 + file.data_offset / kContentAlignment * 31;
  for (uint64_t i = 0; i < file.size; ++i) {
    const bool zero = (i / kContentAlignment + salt) % 3 == 0;
    content[i] = zero ? '\0' : static_cast<char>((i * 2654435761u >> 11) + salt);
  }
  return content;
}

testing::RandomShape shapeOf(uint64_t seed) {
  testing::RandomShape shape;
  shape.layers = 1 + seed % 6;
  shape.names = 3 + seed % 8;
  shape.entries_per_layer = 15 + seed % 50;
  shape.odd_names = seed % 3 == 0;
  return shape;
}

class LayerProperties : public testing::DiskTest {
 protected:
  void ingestAll(const std::vector<LayerIndex>& layers) {
    layers_.clear();
    for (uint32_t i = 0; i < layers.size(); ++i) {
      const std::string tar =
          testing::tarOfLayer(layers[i], [i](const Entry& file) { return contentOf(i, file); });
      ingest(i % 3 == 0 ? tar : i % 3 == 1 ? testing::gzip(tar, 1) : testing::zstd(tar));
    }
  }
};

TEST_F(LayerProperties, TheDiskHoldsWhatThePlainModelSays) {
  const uint64_t count = seeds();
  std::cout << "seeds 1 to " << count << "\n";
  for (uint64_t seed = 1; seed <= count; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const auto layers = testing::randomLayers(seed, shapeOf(seed));
    ingestAll(layers);
    testing::expectSame(
        read(),
        [](const testing::PlainNode& node) { return contentOf(node.layer, node.attributes); },
        testing::applyPlainly(layers));
    if (HasFailure()) return;
  }
}

TEST_F(LayerProperties, TheSameTarsGiveTheSameBytesInAnotherStore) {
  for (uint64_t seed = 1; seed <= std::min<uint64_t>(seeds(), 10); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    ingestAll(testing::randomLayers(seed, shapeOf(seed)));
    TemporaryDirectory other_folder;
    ImageStore other(other_folder.path());
    const auto layers = testing::randomLayers(seed, shapeOf(seed));
    std::vector<std::shared_ptr<void>> pins;
    for (uint32_t i = 0; i < layers.size(); ++i) {
      const std::string tar =
          testing::tarOfLayer(layers[i], [i](const Entry& file) { return contentOf(i, file); });
      StringSource source(tar);
      pins.push_back(other.layers().ingest(source, KeepBlob::kNo).pin);
    }
    const RootDisk here = store_.rootDisk(layers_), there = other.rootDisk(layers_);
    ASSERT_EQ(here.segments.size(), there.segments.size());
    EXPECT_EQ(here.disk_bytes, there.disk_bytes);
    for (size_t i = 0; i < here.segments.size(); ++i) {
      EXPECT_EQ(here.segments[i].disk_offset, there.segments[i].disk_offset);
      EXPECT_TRUE(readFile(here.segments[i].path) == readFile(there.segments[i].path));
    }
  }
}

}  // namespace
}  // namespace hull::image
