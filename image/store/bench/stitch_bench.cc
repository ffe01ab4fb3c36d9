// stitch-bench FILES…: how long one core takes to make the disk of an image of so many files, from
// the indexes of its layers as they lie in the store to the metadata file (ImageStore::rootDisk
// without its syncs). Prints one JSON object: {"50000":{"files":…,"cpu_s":[…],"tree_s":…}}.
#include <fcntl.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "image/ext4/stitch.h"
#include "image/layer/tree.h"
#include "image/store/layer_store.h"

namespace hull::image {
namespace {

constexpr int kRounds = 5;
constexpr uint64_t kFilesPerDirectory = 200;
constexpr uint64_t kLayers = 4;

double cpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// Like a distribution's files: names of some 20 bytes, a few kilobytes each, every tenth a symlink.
std::string encodedLayer(uint64_t first, uint64_t count) {
  LayerIndex layer;
  layer.entries.reserve(count + count / kFilesPerDirectory + 1);
  for (uint64_t i = first; i < first + count; ++i) {
    const std::string folder = "usr/share/package-" + std::to_string(i / kFilesPerDirectory);
    Entry entry;
    entry.mtime_seconds = 1'700'000'000 + static_cast<int64_t>(i);
    if (i % kFilesPerDirectory == 0 || i == first) {
      entry.path = folder;
      entry.type = EntryType::kDirectory;
      entry.mode = 0755;
      layer.entries.push_back(entry);
    }
    entry.path = folder + "/some-file-" + std::to_string(i) + ".txt";
    entry.mode = 0644;
    if (i % 10 == 0) {
      entry.type = EntryType::kSymlink;
      entry.link = "../package-0/some-file-1.txt";
    } else {
      entry.type = EntryType::kFile;
      entry.size = 100 + i * 7919 % 12'000;
      entry.data_offset = layer.data_bytes;
      layer.data_bytes +=
          (entry.size + kContentAlignment - 1) / kContentAlignment * kContentAlignment;
    }
    layer.entries.push_back(std::move(entry));
  }
  return encode(layer);
}

struct Sample {
  double decode = 0, tree = 0, stitch = 0;
  double total() const { return decode + tree + stitch; }
};

Sample once(const std::vector<std::string>& encoded) {
  Sample sample;
  double since = cpuSeconds();
  const auto lap = [&] {
    const double now = cpuSeconds();
    return now - std::exchange(since, now);
  };
  const TemporaryDirectory folder("hull-bench");
  Tree tree;
  std::vector<uint64_t> data_bytes;
  for (const std::string& bytes : encoded) {
    const LayerIndex layer = decodeLayerIndex(bytes);
    sample.decode += lap();
    tree.apply(layer);
    data_bytes.push_back(layer.data_bytes);
    sample.tree += lap();
  }
  const Fd metadata = openFile(folder.path() + "/meta", O_RDWR | O_CREAT | O_EXCL, 0600);
  stitch(tree, data_bytes, metadata.get());
  sample.stitch = lap();
  return sample;
}

void measure(uint64_t files, bool first) {
  std::vector<std::string> encoded;
  for (uint64_t i = 0; i < kLayers; ++i) {
    encoded.push_back(encodedLayer(i * (files / kLayers), files / kLayers));
  }
  std::vector<Sample> samples;
  for (int round = 0; round < kRounds; ++round) samples.push_back(once(encoded));
  std::printf("%s\"%llu\":{\"cpu_s\":[", first ? "" : ",", static_cast<unsigned long long>(files));
  for (size_t i = 0; i < samples.size(); ++i) {
    std::printf("%s%.4f", i == 0 ? "" : ",", samples[i].total());
  }
  const Sample& best = *std::min_element(samples.begin(), samples.end(),
                                         [](auto& a, auto& b) { return a.total() < b.total(); });
  std::printf("],\"best\":{\"decode_s\":%.4f,\"tree_s\":%.4f,\"stitch_s\":%.4f}}", best.decode,
              best.tree, best.stitch);
}

}  // namespace
}  // namespace hull::image

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: stitch-bench FILES…\n";
    return 2;
  }
  try {
    std::printf("{");
    for (int i = 1; i < argc; ++i)
      hull::image::measure(std::strtoull(argv[i], nullptr, 10), i == 1);
    std::printf("}\n");
    return 0;
  } catch (const hull::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
