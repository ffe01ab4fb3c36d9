// Attacks that other tools have met, replayed: each as an image from a registry, as an archive, or
// as a layer. Refused with the reason, or harmless; nothing is left over, nothing outside the store
// is touched.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "image/archive/archive.h"
#include "image/store/testing/image_fixture.h"

namespace hull::image {
namespace {

using ::testing::ElementsAre;
using testing::gzip;
using ::testing::HasSubstr;
using testing::MemoryBlobs;
using testing::TarBuilder;
using testing::TarMember;
using testing::TestImage;

class Attacks : public ::testing::Test {
 protected:
  TemporaryDirectory folder_{"hull-attacks"};
  std::string outside_ = folder_.path() + "/outside";
  LayerLimits limits_ = [] {
    LayerLimits limits;
    limits.max_unpacked_bytes = 64 << 20;
    limits.max_entries = 1000;
    limits.max_index_bytes = 4 << 20;
    limits.max_ratio = 100;
    return limits;
  }();
  ImageStore store_{folder_.path() + "/store", limits_};
  MemoryBlobs remote_;

  void SetUp() override { writeFileAtomic(outside_, "untouched"); }
  void TearDown() override {
    EXPECT_EQ(readFile(outside_), "untouched");
    size_t beside = 0;
    for (const auto& item : std::filesystem::directory_iterator(folder_.path()))
      beside += item.path().filename() != "store" && item.path().filename() != "outside" ? 1 : 0;
    EXPECT_EQ(beside, 0u) << "something was written beside the store";
  }

  LayerIndex layer(const std::string& stream) {
    StringSource source(stream);
    return store_.layers().index(store_.layers().ingest(source, KeepBlob::kNo).diff_id);
  }

  template <typename Work>
  Error refusal(Work&& work) {
    Error result(ErrorKind::kInternal, "accepted");
    try {
      work();
    } catch (const Error& error) {
      result = error;
    }
    EXPECT_TRUE(store_.list().empty()) << result.what();
    store_.collectGarbage();
    store_.blobs().forEach([](const Digest& d, uint64_t) { ADD_FAILURE() << d.text() << " left"; });
    store_.layers().forEach([](const Digest& d) { ADD_FAILURE() << d.text() << " left"; });
    return result;
  }
  Error refusalOfLayer(const std::string& stream) {
    return refusal([&] { layer(stream); });
  }
  Error refusalOfManifest(const std::string& text) {
    return refusal([&] { store_.add(text, remote_, {Reference::parse("bad")}); });
  }
  Error refusalOfArchive(const std::string& archive) {
    return refusal([&] {
      StringSource source(archive);
      loadArchive(store_, source);
    });
  }
};

// Layers.

// CVE-2025-62518 (tokio-tar, "TARmageddon"): a reader that walks by the header's size where PAX
// gives another takes the content, itself a tar, for members.
TEST_F(Attacks, ATarInsideATarSmugglesNoMembers) {
  const std::string inner = TarBuilder().file("smuggled", "evil").unfinished();
  TarMember outer;
  outer.name = "outer";
  outer.content = inner;
  outer.size = 0;
  const auto index = layer(TarBuilder()
                               .pax({{"size", std::to_string(inner.size())}})
                               .add(outer)
                               .file("last", "1")
                               .end());
  ASSERT_EQ(index.entries.size(), 2u);
  EXPECT_EQ(index.entries[0].path, "outer");
  EXPECT_EQ(index.entries[0].size, inner.size());
  EXPECT_EQ(index.entries[1].path, "last");
  // The other way round: PAX says less than the header.
  outer.size = static_cast<int64_t>(inner.size());
  outer.content.clear();
  const auto other = layer(TarBuilder().pax({{"size", "0"}}).add(outer).file("real", "1").end());
  ASSERT_EQ(other.entries.size(), 2u);
  EXPECT_EQ(other.entries[1].path, "real");
}

TEST_F(Attacks, NamesThatClimbOutStayInTheImage) {
  const auto index = layer(TarBuilder()
                               .file("../../../../outside", "evil")
                               .file("/etc/../../..//x", "evil")
                               .file(outside_, "evil")
                               .end());
  EXPECT_EQ(index.entries[0].path, "outside");
  EXPECT_EQ(index.entries[1].path, "x");
  EXPECT_EQ(index.entries[2].path, outside_.substr(1));
}

TEST_F(Attacks, NothingIsWrittenThroughASymlink) {
  const std::string target = folder_.path();
  const TestImage image = makeImage(
      remote_, {TarBuilder().symlink("way", target).symlink("up", "../../../..").end(),
                TarBuilder().file("way/outside", "evil").file("up/outside", "evil").end()});
  const Tree tree = store_.tree(store_.add(image.manifest_text, remote_, {}));
  EXPECT_EQ(tree.at(tree.find("way")).type, EntryType::kDirectory);
  EXPECT_NE(tree.find("way/outside"), kNoInode);
  EXPECT_NE(tree.find("up/outside"), kNoInode);
}

TEST_F(Attacks, AHardlinkReachesNothingOutsideTheImage) {
  for (const std::string& to :
       {outside_, std::string("../../../../../etc/passwd"), std::string("/proc/self/exe")}) {
    const TestImage image = makeImage(remote_, {TarBuilder().hardlink("link", to).end()});
    const Image added = store_.add(image.manifest_text, remote_, {});
    EXPECT_THROW(store_.tree(added), Error) << to;
    EXPECT_THROW(store_.rootDisk(added.config.diff_ids), Error) << to;
    store_.remove(added.id.text(), true, {});
  }
  // Through a symlink of the image neither.
  const TestImage image =
      makeImage(remote_, {TarBuilder().symlink("s", outside_).hardlink("link", "s/x").end()});
  EXPECT_THROW(store_.tree(store_.add(image.manifest_text, remote_, {})), Error);
}

TEST_F(Attacks, HugeSizesInHeadersAllocateNothing) {
  TarMember large;
  large.name = "large";
  std::string header = testing::header(large);
  header.replace(124, 12, std::string("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12));
  testing::fixChecksum(header);
  EXPECT_EQ(refusalOfLayer(header + std::string(1024, '\0')).kind(), ErrorKind::kCorrupt);
  for (const char* size : {"9223372036854775807", "1152921504606846976", "99999999999"}) {
    const Error error = refusalOfLayer(TarBuilder().pax({{"size", size}}).add({"f"}).end());
    EXPECT_TRUE(error.kind() == ErrorKind::kTooLarge || error.kind() == ErrorKind::kCorrupt)
        << error.what();
  }
  TarMember special;
  special.type = 'x';
  special.size = 077777777777;
  EXPECT_EQ(refusalOfLayer(TarBuilder().add(special).end()).kind(), ErrorKind::kTooLarge);
  // A hole of an exabyte takes no room, but no file system holds it either.
  const Error sparse = refusalOfLayer(
      TarBuilder()
          .pax({{"GNU.sparse.map", "0,0"}, {"GNU.sparse.size", "1152921504606846975"}})
          .add({"f"})
          .end());
  EXPECT_EQ(sparse.kind(), ErrorKind::kTooLarge) << sparse.what();
}

TEST_F(Attacks, BombsOfGzipAndZstdAreStoppedByTheirRatio) {
  limits_.max_unpacked_bytes = uint64_t{1} << 40;
  ImageStore store(folder_.path() + "/store", limits_);
  const std::string tar = TarBuilder().file("zeros", std::string(100 << 20, '\0')).end();
  for (const std::string& bomb : {gzip(tar, 9), testing::zstd(tar)}) {
    StringSource source(bomb);
    try {
      store.layers().ingest(source, KeepBlob::kAsIs);
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kTooLarge);
      EXPECT_THAT(error.what(), HasSubstr("bomb"));
    }
  }
}

TEST_F(Attacks, BombsOfEntriesNamesAndAttributesAreStopped) {
  TarBuilder many, names;
  for (int i = 0; i < 1001; ++i) many.file("f" + std::to_string(i), "");
  EXPECT_EQ(refusalOfLayer(gzip(many.end())).kind(), ErrorKind::kTooLarge);
  for (int i = 0; i < 900; ++i)
    names.pax({{"SCHILY.xattr.user.x", std::string(60'000, 'x')}})
        .file("f" + std::to_string(i), "");
  EXPECT_EQ(refusalOfLayer(gzip(names.end())).kind(), ErrorKind::kTooLarge);
  EXPECT_EQ(
      refusalOfLayer(
          TarBuilder().pax({{"SCHILY.xattr.user.x", std::string(70'000, 'x')}}).file("f", "").end())
          .kind(),
      ErrorKind::kTooLarge);
}

// Manifests and indexes.

// CVE-2024-3727: a digest that is a path.
TEST_F(Attacks, ADigestIsNeverAPath) {
  for (const char* digest :
       {"sha256:../../../../outside", "../../outside", "sha256:/etc/passwd", "sha256:", "md5:00",
        "sha256:0000000000000000000000000000000000000000000000000000000000000000/..",
        "sha256:AAAA000000000000000000000000000000000000000000000000000000000000"}) {
    const std::string config =
        R"({"mediaType":"application/vnd.oci.image.config.v1+json","size":1,)"
        R"("digest":")" +
        std::string(digest) + "\"}";
    EXPECT_EQ(
        refusalOfManifest(R"({"schemaVersion":2,"config":)" + config + R"(,"layers":[]})").kind(),
        ErrorKind::kCorrupt)
        << digest;
    const std::string index = R"({"schemaVersion":2,"manifests":[)" + config + "]}";
    EXPECT_EQ(refusalOfArchive(TarBuilder()
                                   .file("oci-layout", R"({"imageLayoutVersion":"1.0.0"})")
                                   .file("index.json", index)
                                   .end())
                  .kind(),
              ErrorKind::kCorrupt)
        << digest;
    ImageConfig image;
    std::string text = toJson(image);
    const size_t list = text.find("\"diff_ids\":[") + 12;
    text.insert(list, "\"" + std::string(digest) + "\"");
    EXPECT_EQ(refusalOfArchive(TarBuilder()
                                   .file("c", text)
                                   .file("l", TarBuilder().file("f", "").end())
                                   .file("manifest.json", R"([{"Config":"c","Layers":["l"]}])")
                                   .end())
                  .kind(),
              ErrorKind::kCorrupt)
        << digest;
  }
}

// CVE-2021-41190: one document that is two.
TEST_F(Attacks, ADocumentIsAManifestOrAnIndexNotBoth) {
  const TestImage image = makeImage(remote_, {TarBuilder().file("f", "").end()});
  std::string both = image.manifest_text;
  both.insert(1, R"("manifests":[],)");
  EXPECT_EQ(refusalOfManifest(both).kind(), ErrorKind::kCorrupt);
  std::string disguised = image.manifest_text;
  const std::string type = media_type::kDockerManifest;
  disguised.replace(disguised.find(type), type.size(), media_type::kOciIndex);
  EXPECT_EQ(refusalOfManifest(disguised).kind(), ErrorKind::kCorrupt);
}

TEST_F(Attacks, AManifestOf100MegabytesIsRefused) {
  const std::string huge = R"({"schemaVersion":2,"x":")" + std::string(100 << 20, 'x') + "\"}";
  EXPECT_EQ(refusalOfManifest(huge).kind(), ErrorKind::kTooLarge);
  EXPECT_EQ(refusalOfArchive(TarBuilder().file("manifest.json", huge).end()).kind(),
            ErrorKind::kTooLarge);
  EXPECT_EQ(refusalOfArchive(TarBuilder()
                                 .file("oci-layout", R"({"imageLayoutVersion":"1.0.0"})")
                                 .file("index.json", huge)
                                 .end())
                .kind(),
            ErrorKind::kTooLarge);
}

TEST_F(Attacks, AConfigurationOf100MegabytesIsRefusedUnread) {
  TestImage image = makeImage(remote_, {});
  image.manifest.config.size = 100 << 20;
  EXPECT_EQ(refusalOfManifest(toJson(image.manifest)).kind(), ErrorKind::kTooLarge);
  EXPECT_EQ(remote_.opened[image.manifest.config.digest], 0);
  // One that lies about its size is read up to the bound and no further.
  const std::string large = "{\"x\":\"" + std::string(20 << 20, 'x') + "\"}";
  image.manifest.config = {media_type::kDockerConfig, remote_.put(large), 10, {}, {}};
  EXPECT_NE(refusalOfManifest(toJson(image.manifest)).kind(), ErrorKind::kInternal);
}

TEST_F(Attacks, ThousandsOfLayersAreRefused) {
  TestImage image = makeImage(remote_, {TarBuilder().file("f", "").end()});
  image.manifest.layers.resize(kMaxLayers + 1, image.manifest.layers[0]);
  EXPECT_EQ(refusalOfManifest(toJson(image.manifest)).kind(), ErrorKind::kTooLarge);
}

// CVE-2020-15157: a layer that says where else it can be had, to catch credentials. Nothing is ever
// fetched from there: with the type of a foreign layer it is refused, otherwise the registry is
// asked.
TEST_F(Attacks, UrlsOfALayerAreNeverFollowed) {
  TestImage image = makeImage(remote_, {TarBuilder().file("f", "").end()});
  const std::string urls = R"("urls":["https://attacker.example/layer"],"digest")";
  std::string text = toJson(image.manifest);
  text.replace(text.rfind("\"digest\""), 8, urls);
  EXPECT_EQ(store_.add(text, remote_, {}).id, image.id);
  EXPECT_EQ(remote_.opened[image.manifest.layers[0].digest], 1);
  store_.remove(image.id.text(), true, {});
  for (const char* type : {media_type::kDockerForeignLayer,
                           "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"}) {
    image.manifest.layers[0].media_type = type;
    const Error error = refusalOfManifest(toJson(image.manifest));
    EXPECT_EQ(error.kind(), ErrorKind::kNotSupported);
    EXPECT_THAT(error.what(), HasSubstr("foreign"));
  }
}

// CVE-2026-24054: an image without layers, or without anything.
TEST_F(Attacks, AnImageWithoutLayersHasAnEmptyRoot) {
  const TestImage image = makeImage(remote_, {});
  const Image added = store_.add(image.manifest_text, remote_, {Reference::parse("none:1")});
  EXPECT_EQ(store_.tree(added).inodes().size(), 1u);
  EXPECT_FALSE(store_.rootDisk({}).segments.empty());
  StringSink archive;
  saveArchive(store_, {"none:1"}, archive);
  store_.remove("none:1", true, {});
  StringSource source(archive.text);
  EXPECT_EQ(loadArchive(store_, source)[0].id, image.id);
}

// CVE-2026-55686, CVE-2024-9676: what a configuration names (WORKDIR, the user's passwd file) is
// reached through symlinks. They are followed inside the image's tree, never on the host.
TEST_F(Attacks, FilesThatAConfigurationNamesAreLookedUpInsideTheImage) {
  const TestImage image = makeImage(remote_, {TarBuilder()
                                                  .symlink("etc", "../../../../../../etc")
                                                  .symlink("work", outside_)
                                                  .symlink("loop", "loop")
                                                  .end()});
  const Tree tree = store_.tree(store_.add(image.manifest_text, remote_, {}));
  EXPECT_EQ(tree.resolve("/etc/passwd"), kNoInode);
  EXPECT_EQ(tree.resolve("/work"), kNoInode);
  EXPECT_EQ(tree.resolve("/loop/x"), kNoInode);
  EXPECT_EQ(tree.resolvePath("/work/x"), outside_.substr(1) + "/x");
}

// Archives.

TEST_F(Attacks, AnArchivesLinksReachNothingOutsideIt) {
  for (const std::string& to : {outside_, std::string("/etc/passwd"), std::string("../../x")}) {
    for (const char type : {'1', '2'}) {
      TarMember link{"c", type};
      link.link = to;
      EXPECT_EQ(
          refusalOfArchive(
              TarBuilder().add(link).file("manifest.json", R"([{"Config":"c","Layers":[]}])").end())
              .kind(),
          ErrorKind::kCorrupt);
    }
  }
}

TEST_F(Attacks, AnArchivesBlobsAreWhatTheirNamesSay) {
  const TestImage image = makeImage(remote_, {TarBuilder().file("f", "good").end()});
  const auto path = [](const Digest& digest) {
    return "blobs/sha256/" + std::string(digest.hex());
  };
  const Digest manifest = Digest::of(image.manifest_text);
  const Digest layer = image.manifest.layers[0].digest;
  const std::string index = R"({"schemaVersion":2,"manifests":[{"mediaType":")" +
                            image.manifest.media_type + R"(","size":)" +
                            std::to_string(image.manifest_text.size()) + R"(,"digest":")" +
                            manifest.text() + "\"}]}";
  const auto archive = [&](const std::string& manifest_text, const std::string& config,
                           const std::string& layer_bytes) {
    return TarBuilder()
        .file("oci-layout", R"({"imageLayoutVersion":"1.0.0"})")
        .file("index.json", index)
        .pax({{"path", path(manifest)}})
        .file("x", manifest_text)
        .pax({{"path", path(image.id)}})
        .file("x", config)
        .pax({{"path", path(layer)}})
        .file("x", layer_bytes)
        .end();
  };
  const std::string config = remote_.blobs[image.id], bytes = remote_.blobs[layer];
  EXPECT_EQ(refusalOfArchive(archive(image.manifest_text + " ", config, bytes)).kind(),
            ErrorKind::kCorrupt);
  EXPECT_EQ(refusalOfArchive(archive(image.manifest_text, config + " ", bytes)).kind(),
            ErrorKind::kCorrupt);
  EXPECT_EQ(refusalOfArchive(
                archive(image.manifest_text, config, gzip(TarBuilder().file("f", "evil").end())))
                .kind(),
            ErrorKind::kCorrupt);
  const std::string whole = archive(image.manifest_text, config, bytes);
  StringSource good(whole);
  EXPECT_EQ(loadArchive(store_, good)[0].id, image.id);
}

TEST_F(Attacks, NamesInAnArchiveAreReferencesOrNothing) {
  for (const char* name : {"../../../outside:1", "a:b:c", "UPPER:1", "x@sha256:00"}) {
    EXPECT_NE(
        refusalOfArchive(TarBuilder()
                             .file("c", toJson(ImageConfig{}))
                             .file("manifest.json", R"([{"Config":"c","Layers":[],"RepoTags":[")" +
                                                        std::string(name) + "\"]}]")
                             .end())
            .kind(),
        ErrorKind::kInternal)
        << name;
  }
}

}  // namespace
}  // namespace hull::image
