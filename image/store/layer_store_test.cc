#include "image/store/layer_store.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/subprocess.h"
#include "image/layer/testing/tar_builder.h"
#include "image/store/codec.h"
#include "image/types/manifest.h"

namespace hull::image {
namespace {

using testing::gzip;
using ::testing::HasSubstr;
using testing::TarBuilder;
using testing::TarMember;
using testing::zstd;

// Gives its text in pieces of `step` bytes.
class DribbleSource final : public Source {
 public:
  DribbleSource(std::string_view text, size_t step) : rest_(text), step_(step) {}
  size_t read(std::span<std::byte> into) override {
    const size_t size = std::min({into.size(), rest_.size(), step_});
    std::copy_n(rest_.data(), size, reinterpret_cast<char*>(into.data()));
    rest_.remove_prefix(size);
    return size;
  }

 private:
  std::string_view rest_;
  size_t step_;
};

class LayerStoreTest : public ::testing::Test {
 protected:
  TemporaryDirectory folder_;
  BlobStore blobs_{folder_.path()};
  LayerStore store_{folder_.path(), blobs_};

  IngestedLayer ingest(const std::string& stream, KeepBlob keep = KeepBlob::kNo,
                       const Digest& blob = {}, const Digest& diff = {}) {
    StringSource source(stream);
    return store_.ingest(source, keep, blob, diff);
  }
  LayerIndex indexOf(const std::string& tar) { return store_.index(ingest(tar).diff_id); }

  std::string contentOf(const Digest& diff_id, const Entry& entry) {
    return readFile(store_.dataPath(diff_id)).substr(entry.data_offset, entry.size);
  }

  // The error of ingesting `stream`, after checking that nothing is left of it.
  Error errorOf(const std::string& stream, KeepBlob keep = KeepBlob::kAsIs, const Digest& blob = {},
                const Digest& diff = {}) {
    Error result(ErrorKind::kInternal, "accepted");
    try {
      ingest(stream, keep, blob, diff);
    } catch (const Error& error) {
      result = error;
    }
    EXPECT_EQ(leftovers(), 0u) << result.what();
    return result;
  }

  size_t leftovers() const {
    size_t count = 0;
    for (const auto& item : std::filesystem::recursive_directory_iterator(folder_.path())) {
      count += item.is_regular_file() && item.path().filename() != ".lock" ? 1 : 0;
      count += item.path().filename().string().starts_with(".tmp-") ? 1 : 0;
    }
    return count;
  }
};

const std::string kSample = TarBuilder()
                                .directory("./")
                                .directory("bin/")
                                .file("bin/sh", std::string(5000, 's'))
                                .file("empty", "")
                                .symlink("bin/bash", "/bin/sh")
                                .hardlink("bin/dash", "./bin/sh")
                                .end();

TEST_F(LayerStoreTest, APlainTarBecomesIndexAndData) {
  const IngestedLayer layer = ingest(kSample);
  EXPECT_EQ(layer.diff_id, Digest::of(kSample));
  EXPECT_TRUE(layer.blob.empty());
  EXPECT_EQ(layer.tar_bytes, kSample.size());
  ASSERT_TRUE(store_.has(layer.diff_id));
  const LayerIndex index = store_.index(layer.diff_id);
  ASSERT_EQ(index.entries.size(), 6u);
  EXPECT_EQ(index.entries[0].path, "");
  EXPECT_EQ(index.entries[2].path, "bin/sh");
  EXPECT_EQ(contentOf(layer.diff_id, index.entries[2]), std::string(5000, 's'));
  EXPECT_EQ(index.entries[4].link, "/bin/sh");
  EXPECT_EQ(index.entries[5].link, "bin/sh");
  EXPECT_EQ(index.data_bytes, 8192u);
  EXPECT_EQ(store_.dataBytes(layer.diff_id), 8192u);
}

TEST_F(LayerStoreTest, EveryCompressionGivesTheSameLayer) {
  const std::string half1 = kSample.substr(0, 1000), half2 = kSample.substr(1000);
  const std::string skippable("\x5a\x2a\x4d\x18\x03\0\0\0abc", 11);
  const std::pair<std::string, const char*> streams[] = {
      {kSample, media_type::kOciLayer},
      {gzip(kSample), media_type::kOciLayerGzip},
      {gzip(half1) + gzip(half2) + gzip(""), media_type::kOciLayerGzip},
      {gzip(kSample) + std::string(512, '\0'), media_type::kOciLayerGzip},
      {zstd(kSample), media_type::kOciLayerZstd},
      {skippable + zstd(half1) + skippable + zstd(half2) + skippable, media_type::kOciLayerZstd}};
  for (const auto& [stream, type] : streams) {
    for (const size_t step : {size_t{1}, size_t{7}, size_t{100'000}}) {
      DribbleSource source(stream, step);
      const IngestedLayer layer = store_.ingest(source, KeepBlob::kAsIs, Digest::of(stream));
      EXPECT_EQ(layer.diff_id, Digest::of(kSample));
      EXPECT_EQ(layer.media_type, type);
      EXPECT_EQ(blobs_.read(layer.blob, 1 << 20), stream);
    }
  }
}

// A header with every optional field, as `gzip -n` does not write it: extra, name, comment, CRC.
TEST_F(LayerStoreTest, GzipHeadersWithEveryFieldAreRead) {
  const std::string plain = gzip(kSample);
  std::string head("\x1f\x8b\x08\x1c\0\0\0\0\0\x03", 10);
  head += std::string("\x04\0SGxx", 6) + std::string("name\0", 5) + std::string("comment\0", 8);
  for (const size_t step : {size_t{1}, size_t{3}, size_t{1000}}) {
    DribbleSource source(head, step);
    const std::string stream = head + plain.substr(10);
    DribbleSource whole(stream, step);
    EXPECT_EQ(store_.ingest(whole, KeepBlob::kNo).diff_id, Digest::of(kSample));
  }
}

TEST_F(LayerStoreTest, MadeLayersAreCompressedTheSameWayEachTime) {
  std::string random(600'000, '\0');
  std::mt19937 engine(1);
  std::generate(random.begin(), random.end(), [&] { return static_cast<char>(engine() % 32); });
  const std::string tar = TarBuilder().file("f", random).end();
  std::vector<Digest> blobs;
  for (const size_t step : {size_t{1000}, size_t{65536}, size_t{10'000'000}}) {
    DribbleSource source(tar, step);
    const IngestedLayer layer = store_.ingest(source, KeepBlob::kCompress);
    EXPECT_EQ(layer.media_type, media_type::kOciLayerGzip);
    EXPECT_EQ(layer.diff_id, Digest::of(tar));
    EXPECT_EQ(layer.blob_bytes, blobs_.size(layer.blob));
    blobs.push_back(layer.blob);
  }
  EXPECT_EQ(blobs[0], blobs[1]);
  EXPECT_EQ(blobs[0], blobs[2]);
  const Fd fd = blobs_.open(blobs[0]);
  FdSource file(fd.get());
  DecodingSource decoded(file);
  EXPECT_EQ(readAll(decoded, 10 << 20, "blob"), tar);
}

TEST_F(LayerStoreTest, WhiteoutsAreRecognised) {
  const LayerIndex index = indexOf(TarBuilder()
                                       .file("a/.wh.b", "")
                                       .file(".wh.c", "")
                                       .file("d/.wh..wh..opq", "")
                                       .file(".wh..wh..opq", "")
                                       .file(".wh..wh.aufs", "x")
                                       .directory(".wh..wh.plnk/")
                                       .file(".wh..wh.plnk/1.2", "x")
                                       .end());
  ASSERT_EQ(index.entries.size(), 4u);
  EXPECT_EQ(index.entries[0].type, EntryType::kWhiteout);
  EXPECT_EQ(index.entries[0].path, "a/b");
  EXPECT_EQ(index.entries[1].path, "c");
  EXPECT_EQ(index.entries[2].type, EntryType::kOpaque);
  EXPECT_EQ(index.entries[2].path, "d");
  EXPECT_EQ(index.entries[3].path, "");
}

TEST_F(LayerStoreTest, SpecialFilesKeepTheirNumbers) {
  TarMember device{"dev/sda", '4', "", "", 0660};
  device.major = 8;
  device.minor = 1;
  const LayerIndex index = indexOf(
      TarBuilder().add(device).add({"dev/null", '3', "", ""}).add({"pipe", '6', "", ""}).end());
  ASSERT_EQ(index.entries.size(), 3u);
  EXPECT_EQ(index.entries[0].type, EntryType::kBlockDevice);
  EXPECT_EQ(index.entries[0].device_major, 8u);
  EXPECT_EQ(index.entries[0].device_minor, 1u);
  EXPECT_EQ(index.entries[1].type, EntryType::kCharDevice);
  EXPECT_EQ(index.entries[2].type, EntryType::kFifo);
}

// Attacks.

TEST_F(LayerStoreTest, NamesThatClimbOutEndAtTheRoot) {
  const LayerIndex index = indexOf(TarBuilder()
                                       .file("../../etc/cron.d/x", "x")
                                       .file("/abs", "x")
                                       .file("a/../../b", "x")
                                       .hardlink("h", "../../../etc/shadow")
                                       .symlink("s", "../../../etc/shadow")
                                       .end());
  EXPECT_EQ(index.entries[0].path, "etc/cron.d/x");
  EXPECT_EQ(index.entries[1].path, "abs");
  EXPECT_EQ(index.entries[2].path, "b");
  EXPECT_EQ(index.entries[3].link, "etc/shadow");
  EXPECT_EQ(index.entries[4].link, "../../../etc/shadow");  // the guest's own affair
}

TEST_F(LayerStoreTest, ImpossibleMembersAreRefused) {
  for (const auto& tar :
       {TarBuilder().file(".wh.", "").end(), TarBuilder().file(".wh..", "").end(),
        TarBuilder().file("a/.wh...", "").end(), TarBuilder().file(".wh.a/b", "").end(),
        TarBuilder().file("..", "root").end(), TarBuilder().symlink("./", "x").end(),
        TarBuilder().symlink("s", "").end(), TarBuilder().hardlink("h", "").end(),
        TarBuilder().hardlink("h", "..").end(),
        TarBuilder().pax({{"path", std::string(256, 'n')}}).file("x", "").end(),
        TarBuilder().pax({{"path", std::string("a\0b", 3)}}).file("x", "").end(),
        TarBuilder().pax({{"linkpath", std::string(4096, 'l')}}).symlink("x", "y").end()}) {
    EXPECT_EQ(errorOf(tar).kind(), ErrorKind::kCorrupt);
  }
}

TEST_F(LayerStoreTest, EveryTruncationIsAnErrorAndLeavesNothing) {
  const std::string tar = TarBuilder().file("a", "abc").pax({{"path", "b"}}).file("x", "y").end();
  for (const std::string& stream : {tar, gzip(tar), zstd(tar)}) {
    for (size_t size = 0; size + 512 < stream.size(); size += stream == tar ? 64 : 1) {
      EXPECT_EQ(errorOf(stream.substr(0, size)).kind(), ErrorKind::kCorrupt) << size;
    }
  }
  const std::string packed = gzip(tar);
  for (size_t size = 1; size <= 16; ++size) {
    EXPECT_EQ(errorOf(packed.substr(0, packed.size() - size)).kind(), ErrorKind::kCorrupt);
  }
}

TEST_F(LayerStoreTest, AnArchiveWithoutEndNeedsADigestToBelieveIt) {
  const std::string tar = TarBuilder().file("a", "abc").unfinished();
  EXPECT_THAT(errorOf(tar).what(), HasSubstr("no end mark"));
  EXPECT_TRUE(store_.has(ingest(tar, KeepBlob::kNo, {}, Digest::of(tar)).diff_id));
}

TEST_F(LayerStoreTest, WrongDigestsAreNamedAndNothingIsKept) {
  const std::string stream = gzip(kSample);
  const Digest wrong = Digest::of("something else");
  for (const KeepBlob keep : {KeepBlob::kAsIs, KeepBlob::kNo}) {
    const Error blob = errorOf(stream, keep, wrong, Digest::of(kSample));
    EXPECT_EQ(blob.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(blob.what(), HasSubstr(wrong.text()));
    EXPECT_THAT(blob.what(), HasSubstr(Digest::of(stream).text()));
    const Error diff = errorOf(stream, keep, Digest::of(stream), wrong);
    EXPECT_EQ(diff.kind(), ErrorKind::kCorrupt);
    EXPECT_THAT(diff.what(), HasSubstr(Digest::of(kSample).text()));
  }
}

TEST_F(LayerStoreTest, DamagedCompressionIsAnError) {
  for (std::string stream : {gzip(kSample), zstd(kSample)}) {
    stream[stream.size() / 2] = static_cast<char>(stream[stream.size() / 2] ^ 0x55);
    EXPECT_EQ(errorOf(stream).kind(), ErrorKind::kCorrupt);
  }
  std::string bad_crc = gzip(kSample);
  bad_crc[bad_crc.size() - 6] = static_cast<char>(bad_crc[bad_crc.size() - 6] ^ 1);
  EXPECT_EQ(errorOf(bad_crc).kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(gzip(kSample) + "rubbish").kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf("\xfd"
                    "7zXZ")
                .kind(),
            ErrorKind::kNotSupported);
}

TEST_F(LayerStoreTest, GzipAndZstdBombsAreStopped) {
  const std::string zeros(96 << 20, '\0');
  const std::string tar = TarBuilder().file("zeros", zeros).end();
  LayerLimits limits;
  limits.max_ratio = 100;
  LayerStore strict(folder_.path(), blobs_, limits);
  for (const std::string& stream : {gzip(tar), zstd(tar)}) {
    StringSource source(stream);
    try {
      strict.ingest(source, KeepBlob::kAsIs);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kTooLarge);
      EXPECT_THAT(error.what(), HasSubstr("bomb"));
    }
  }
  EXPECT_EQ(leftovers(), 0u);
}

TEST_F(LayerStoreTest, LimitsHold) {
  LayerLimits limits;
  limits.max_entries = 3;
  limits.max_unpacked_bytes = 100'000;
  limits.max_blob_bytes = 50'000;
  LayerStore strict(folder_.path(), blobs_, limits);
  const auto kindOf = [&](const std::string& stream) {
    StringSource source(stream);
    try {
      strict.ingest(source, KeepBlob::kAsIs);
      return ErrorKind::kInternal;
    } catch (const Error& error) {
      return error.kind();
    }
  };
  TarBuilder many;
  for (int i = 0; i < 4; ++i) many.file("f" + std::to_string(i), "");
  EXPECT_EQ(kindOf(many.end()), ErrorKind::kTooLarge);
  EXPECT_EQ(kindOf(TarBuilder().file("f", std::string(60'000, 'x')).end()), ErrorKind::kTooLarge);
  EXPECT_EQ(kindOf(gzip(TarBuilder().file("f", std::string(200'000, 'x')).end())),
            ErrorKind::kTooLarge);
  // A hole counts as much as content: the disk has to be that large.
  TarBuilder sparse;
  sparse.pax({{"GNU.sparse.major", "0"},
              {"GNU.sparse.minor", "1"},
              {"GNU.sparse.size", "1000000000000"},
              {"GNU.sparse.map", "0,1"}});
  EXPECT_EQ(kindOf(sparse.file("f", "x").end()), ErrorKind::kTooLarge);
  EXPECT_EQ(leftovers(), 0u);
}

TEST(LayerLimitsTest, AreChangedByText) {
  LayerLimits limits;
  for (const char* text :
       {"blob-bytes=5", "unpacked-bytes=2g", "entries=100", "index-bytes=3M", "ratio=7"})
    setLayerLimit(limits, text);
  EXPECT_EQ(limits.max_blob_bytes, 5u);
  EXPECT_EQ(limits.max_unpacked_bytes, uint64_t{2} << 30);
  EXPECT_EQ(limits.max_entries, 100u);
  EXPECT_EQ(limits.max_index_bytes, uint64_t{3} << 20);
  EXPECT_EQ(limits.max_ratio, 7u);
  for (const char* text :
       {"", "entries", "entries=", "entries=x", "entries=1x", "entries=0", "ratio=-1", "nonsense=1",
        "blob-bytes=99999999999999999999", "blob-bytes=99999999999t", "entries=5000000"}) {
    try {
      setLayerLimit(limits, text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << text;
    }
  }
}

TEST_F(LayerStoreTest, TheSameLayerAtTheSameTimeIsFine) {
  const std::string stream = gzip(kSample);
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      StringSource source(stream);
      if (store_.ingest(source, KeepBlob::kAsIs).diff_id == Digest::of(kSample)) ++good;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 8);
  EXPECT_EQ(leftovers(), 3u);  // one blob, one index, one data file
}

TEST_F(LayerStoreTest, AbandonedTemporariesAreSweptAndLiveOnesKept) {
  makeDirectories(folder_.path() + "/layers/.tmp-dead");
  writeFileAtomic(folder_.path() + "/layers/.tmp-dead/data", "x");
  writeFileAtomic(folder_.path() + "/blobs/sha256/.tmp-dead", "x");
  BlobWriter alive = blobs_.create();
  alive.Sink::write("still being written");
  BlobStore blobs(folder_.path());
  LayerStore again(folder_.path(), blobs);
  EXPECT_FALSE(fileExists(folder_.path() + "/layers/.tmp-dead"));
  EXPECT_FALSE(fileExists(folder_.path() + "/blobs/sha256/.tmp-dead"));
  EXPECT_TRUE(blobs.has(alive.commit()));
}

// The engine killed in the middle of a pull: the next start finds nothing of it.
TEST_F(LayerStoreTest, AKilledIngestIsSweptAtTheNextStart) {
  FdPair pipe = makePipe();
  FdPair ready = makePipe();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    pipe.second.reset();
    BlobStore blobs(folder_.path());
    LayerStore store(folder_.path(), blobs);
    class Announcing final : public Source {
     public:
      Announcing(int in, int out) : in_(in), out_(out) {}
      size_t read(std::span<std::byte> into) override {
        const size_t got = readSome(in_, into);
        writeFull(out_, "r");
        return got;
      }

     private:
      int in_, out_;
    } source(pipe.first.get(), ready.second.get());
    try {
      store.ingest(source, KeepBlob::kAsIs);
    } catch (...) {
    }
    _exit(0);
  }
  const std::string tar = TarBuilder().file("f", std::string(4 << 20, 'x')).end();
  writeFull(pipe.second.get(), std::string_view(tar).substr(0, 4096));
  std::byte byte;
  ASSERT_EQ(readSome(ready.first.get(), {&byte, 1}), 1u);  // it is in the middle of it
  EXPECT_GT(leftovers(), 0u);
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  BlobStore blobs(folder_.path());
  LayerStore store(folder_.path(), blobs);
  EXPECT_EQ(leftovers(), 0u);
}

TEST_F(LayerStoreTest, RemovedLayersAreGone) {
  const Digest id = ingest(kSample).diff_id;
  store_.remove(id);
  store_.remove(id);
  EXPECT_FALSE(store_.has(id));
  EXPECT_EQ(leftovers(), 0u);
  EXPECT_THROW(store_.index(id), Error);
}

TEST_F(LayerStoreTest, AFullDiskIsReportedAndLeavesNothing) {
  const std::string mount_point = folder_.path() + "/small";
  makeDirectories(mount_point);
  if (mount("tmpfs", mount_point.c_str(), "tmpfs", 0, "size=2m") < 0) {
    GTEST_SKIP() << "needs the right to mount a tmpfs";
  }
  std::string random(8 << 20, '\0');
  std::mt19937 engine(2);
  std::generate(random.begin(), random.end(), [&] { return static_cast<char>(engine()); });
  {
    BlobStore blobs(mount_point);
    LayerStore store(mount_point, blobs);
    for (const KeepBlob keep : {KeepBlob::kAsIs, KeepBlob::kNo, KeepBlob::kCompress}) {
      const std::string tar = TarBuilder().file("big", random).end();
      StringSource source(tar);
      try {
        store.ingest(source, keep);
        ADD_FAILURE() << "fits";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kNoSpace) << error.what();
      }
    }
    const std::string tar = TarBuilder().file("small", "x").end();
    StringSource source(tar);
    EXPECT_TRUE(store.has(store.ingest(source, KeepBlob::kAsIs).diff_id)) << "space came back";
  }
  umount(mount_point.c_str());
}

TEST_F(LayerStoreTest, AFailingStreamStopsTheIngest) {
  class FailingSource final : public Source {
   public:
    size_t read(std::span<std::byte> into) override {
      if (++calls_ > 3) throw Error(ErrorKind::kUnavailable, "the network went away");
      std::fill(into.begin(), into.end(), std::byte{0});
      const std::string head = testing::header({"f", '0', "", "", 0644, 0, 0, 0, 0, 0, 1 << 30});
      if (calls_ == 1) std::copy_n(head.data(), 512, reinterpret_cast<char*>(into.data()));
      return into.size();
    }

   private:
    int calls_ = 0;
  } source;
  try {
    store_.ingest(source, KeepBlob::kAsIs);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnavailable);
  }
  EXPECT_EQ(leftovers(), 0u);
}

TEST_F(LayerStoreTest, WhatIsWrittenAsTarComesBack) {
  TarBuilder builder;
  builder.directory("./");
  builder.pax({{"mtime", "-1.25"}, {"uid", "4000000000"}, {"SCHILY.xattr.user.a", "v\n=v"}});
  builder.file("f\xff", std::string(4097, 'x'));
  builder.pax({{"path", std::string(250, 'd') + "/" + std::string(250, 'e')}});
  builder.file("x", "long");
  builder.symlink("s", std::string(99, 't')).hardlink("h", "f\xff").file("d/.wh.gone", "");
  builder.file(".wh..wh..opq", "").add({"pipe", '6', "", ""});
  const IngestedLayer first = ingest(builder.end());
  const LayerIndex index = store_.index(first.diff_id);

  StringSink tar;
  LayerTarWriter writer(tar);
  const Fd data = openFile(store_.dataPath(first.diff_id), O_RDONLY);
  for (const Entry& entry : index.entries) writer.add(entry, data.get());
  writer.finish();
  EXPECT_EQ(encode(indexOf(tar.text)), encode(index));
  EXPECT_EQ(index.entries[1].mtime_seconds, -2);
  EXPECT_EQ(index.entries[1].mtime_nanoseconds, 750'000'000u);
  EXPECT_EQ(index.entries[1].xattrs[0].second, "v\n=v");
}

}  // namespace
}  // namespace hull::image
