#include "image/layer/tar_reader.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <random>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "image/layer/testing/tar_builder.h"

namespace hull::image {
namespace {

using ::testing::HasSubstr;
using testing::TarBuilder;
using Member = testing::TarMember;

struct Read {
  TarEntry entry;
  std::string content;
};

std::vector<Read> readTar(std::string_view bytes) {
  StringSource source(bytes);
  TarReader reader(source);
  std::vector<Read> result;
  while (auto entry = reader.next()) {
    std::string content;
    if (entry->type == EntryType::kFile) {
      content = reader.contentText(1 << 28);
      content.resize(static_cast<size_t>(entry->size), '\0');  // a hole at the end
    }
    result.push_back({std::move(*entry), std::move(content)});
  }
  return result;
}

Error errorOf(std::string_view bytes) {
  try {
    readTar(bytes);
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorKind::kInternal, "accepted");
}

// Peers.

// A tree with what the formats find hard, packed by GNU tar.
class GnuTarTest : public ::testing::TestWithParam<const char*> {
 protected:
  TemporaryDirectory folder_;
  std::string at(const std::string& name) { return folder_.path() + "/" + name; }
};

TEST_P(GnuTarTest, IsReadAsItWasWritten) {
  const std::string format = GetParam();
  const bool small = format == "v7" || format == "ustar";
  makeDirectories(at("d"));
  std::map<std::string, std::string> files = {{"d/empty", ""},
                                              {"d/one", "1"},
                                              {"d/block", std::string(512, 'b')},
                                              {"d/more", std::string(70'000, 'm')},
                                              {"d/\xff\xfe bytes", "bytes"}};
  if (!small) {
    files["d/" + std::string(200, 'n')] = "long";
    makeDirectories(at("d/" + std::string(120, 'p') + "/" + std::string(120, 'q')));
    files["d/" + std::string(120, 'p') + "/" + std::string(120, 'q') + "/f"] = "deep";
  }
  for (const auto& [name, content] : files) writeFileAtomic(at(name), content);
  const std::string target(small ? 90 : 300, 't');
  ASSERT_EQ(symlink(target.c_str(), at("d/link").c_str()), 0);
  ASSERT_EQ(link(at("d/one").c_str(), at("d/twin").c_str()), 0);
  if (format != "v7") {
    ASSERT_EQ(mkfifo(at("d/fifo").c_str(), 0600), 0);
  }
  const timespec times[2] = {{1'700'000'000, 123'456'789}, {1'700'000'000, 123'456'789}};
  utimensat(AT_FDCWD, at("d/more").c_str(), times, 0);

  checkCommand({"tar", "--format=" + format, "--sort=name", "-C", folder_.path(), "-cf",
                at("out.tar"), "d"});
  std::map<std::string, std::string> seen;
  std::map<EntryType, int> types;
  std::map<std::string, std::string> links;
  for (const Read& member : readTar(readFile(at("out.tar")))) {
    ++types[member.entry.type];
    if (member.entry.type == EntryType::kFile) seen[member.entry.path] = member.content;
    if (!member.entry.link.empty()) links[member.entry.path] = member.entry.link;
    if (member.entry.path == "d/more") {
      EXPECT_EQ(member.entry.mtime_seconds, 1'700'000'000);
      EXPECT_EQ(member.entry.mtime_nanoseconds, format == "pax" ? 123'456'789u : 0u);
    }
  }
  EXPECT_EQ(seen, files);
  EXPECT_EQ(types[EntryType::kHardlink], 1);
  EXPECT_EQ(types[EntryType::kFifo], format == "v7" ? 0 : 1);
  EXPECT_EQ(links["d/link"], target);
  EXPECT_EQ(links["d/twin"], "d/one");
}

INSTANTIATE_TEST_SUITE_P(Formats, GnuTarTest,
                         ::testing::Values("v7", "ustar", "oldgnu", "gnu", "pax"),
                         [](const auto& test) { return std::string(test.param); });

class SparseTest : public ::testing::TestWithParam<std::vector<std::string>> {};

TEST_P(SparseTest, HolesAreFilledInTheRightPlaces) {
  TemporaryDirectory folder;
  const std::string file = folder.path() + "/sparse";
  {
    // 40 islands: more than a header and one extension block hold in the old format.
    const Fd fd = openFile(file, O_RDWR | O_CREAT, 0644);
    for (uint64_t i = 0; i < 40; ++i) {
      pwriteFull(fd.get(), asBytes("island " + std::to_string(i)), i * 65536 + 4096);
    }
    ASSERT_EQ(ftruncate(fd.get(), 3'000'000), 0);
  }
  std::vector<std::string> command = {"tar", "--sparse", "-C", folder.path(), "-cf", "-"};
  command.insert(command.end(), GetParam().begin(), GetParam().end());
  command.insert(command.end(), {"sparse"});
  const std::string tar = checkCommand(command);
  if (tar.size() > 1'500'000) GTEST_SKIP() << "this file system shows tar no holes";
  const auto members = readTar(tar);
  ASSERT_EQ(members.size(), 1u);
  EXPECT_EQ(members[0].entry.path, "sparse");
  EXPECT_EQ(members[0].entry.size, 3'000'000u);
  EXPECT_TRUE(members[0].content == readFile(file));
}

INSTANTIATE_TEST_SUITE_P(
    Formats, SparseTest,
    ::testing::Values(std::vector<std::string>{"--format=gnu"},
                      std::vector<std::string>{"--format=pax", "--sparse-version=0.0"},
                      std::vector<std::string>{"--format=pax", "--sparse-version=0.1"},
                      std::vector<std::string>{"--format=pax", "--sparse-version=1.0"}));

std::string randomBytes(std::mt19937& random, size_t least, size_t most, bool name) {
  std::string text(least + random() % (most - least + 1), '\0');
  for (char& c : text) {
    do {
      c = static_cast<char>(random() % 256);
    } while (name && (c == '\0' || c == '/'));
  }
  return text;
}

// Random members through libarchive's PAX writer, which is a third reading of the format.
TEST(TarReader, ReadsWhatLibarchiveWrites) {
  std::mt19937 random(7);
  for (int round = 0; round < 30; ++round) {
    std::vector<Read> expected;
    std::string buffer(4 << 20, '\0');
    size_t used = 0;
    archive* out = archive_write_new();
    archive_write_set_format_pax_restricted(out);
    archive_write_set_options(out, "hdrcharset=BINARY,xattrheader=ALL");
    archive_write_open_memory(out, buffer.data(), buffer.size(), &used);
    for (int i = 0; i < 20; ++i) {
      Read member;
      TarEntry& entry = member.entry;
      entry.path = randomBytes(random, 1, 60, true);
      for (auto depth = random() % 4; depth > 0; --depth) {
        entry.path += "/" + randomBytes(random, 1, 90, true);
      }
      entry.type = random() % 3 == 0 ? EntryType::kSymlink : EntryType::kFile;
      entry.mode = static_cast<uint16_t>(random() % 010000);
      entry.uid = static_cast<uint32_t>(random());
      entry.gid = static_cast<uint32_t>(random() % 70'000);
      // Not before 1970: libarchive writes -1.25 (seconds -2, .75) as "-2.75".
      entry.mtime_seconds = static_cast<int64_t>(random()) * 4;
      entry.mtime_nanoseconds = static_cast<uint32_t>(random() % 1'000'000'000);
      if (entry.type == EntryType::kSymlink) entry.link = randomBytes(random, 1, 200, true);
      for (auto n = random() % 3; n > 0; --n) {
        entry.xattrs["user.k" + std::to_string(n)] = randomBytes(random, 0, 300, false);
      }
      if (entry.type == EntryType::kFile) member.content = randomBytes(random, 0, 2000, false);
      entry.size = member.content.size();

      archive_entry* native = archive_entry_new();
      archive_entry_copy_pathname(native, entry.path.c_str());
      archive_entry_set_filetype(native, entry.type == EntryType::kFile ? AE_IFREG : AE_IFLNK);
      if (!entry.link.empty()) archive_entry_copy_symlink(native, entry.link.c_str());
      archive_entry_set_perm(native, entry.mode);
      archive_entry_set_uid(native, entry.uid);
      archive_entry_set_gid(native, entry.gid);
      archive_entry_set_mtime(native, entry.mtime_seconds, entry.mtime_nanoseconds);
      archive_entry_set_size(native, static_cast<int64_t>(entry.size));
      for (const auto& [key, value] : entry.xattrs) {
        archive_entry_xattr_add_entry(native, key.c_str(), value.data(), value.size());
      }
      ASSERT_GE(archive_write_header(out, native), ARCHIVE_WARN) << archive_error_string(out);
      archive_write_data(out, member.content.data(), member.content.size());
      archive_entry_free(native);
      expected.push_back(std::move(member));
    }
    archive_write_close(out);
    archive_write_free(out);
    const auto members = readTar(std::string_view(buffer).substr(0, used));
    ASSERT_EQ(members.size(), expected.size());
    for (size_t i = 0; i < members.size(); ++i) {
      const TarEntry &got = members[i].entry, &want = expected[i].entry;
      EXPECT_EQ(got.path, want.path);
      EXPECT_EQ(got.link, want.link);
      EXPECT_EQ(got.type, want.type);
      EXPECT_EQ(got.mode, want.mode);
      EXPECT_EQ(got.uid, want.uid);
      EXPECT_EQ(got.gid, want.gid);
      EXPECT_EQ(got.mtime_seconds, want.mtime_seconds);
      EXPECT_EQ(got.mtime_nanoseconds, want.mtime_nanoseconds);
      EXPECT_EQ(got.xattrs, want.xattrs);
      EXPECT_EQ(members[i].content, expected[i].content);
    }
  }
}

// Single features.

TEST(TarReader, PaxOverridesTheHeaderForOneMemberOnly) {
  const auto members = readTar(TarBuilder()
                                   .pax({{"path", "renamed"},
                                         {"uid", "77"},
                                         {"mtime", "5.5"},
                                         {"comment", "ignored"},
                                         {"gid", ""}})
                                   .file("a", "x")
                                   .file("b", "y")
                                   .end());
  EXPECT_EQ(members[0].entry.path, "renamed");
  EXPECT_EQ(members[0].entry.uid, 77u);
  EXPECT_EQ(members[0].entry.gid, 0u) << "an empty value means the header's";
  EXPECT_EQ(members[0].entry.mtime_nanoseconds, 500'000'000u);
  EXPECT_EQ(members[1].entry.path, "b");
  EXPECT_EQ(members[1].entry.uid, 0u);
}

// CVE-2025-62518: whoever applies the PAX size to one decision and the header's to another finds
// members in what is content.
TEST(TarReader, ThePaxSizeDecidesWhereTheNextMemberIs) {
  const std::string inner = TarBuilder().file("smuggled", "evil").end();
  TarBuilder builder;
  builder.pax({{"size", std::to_string(inner.size())}});
  Member member{"outer", '0', inner, ""};
  member.size = 0;
  const auto members = readTar(builder.add(member).file("after", "z").end());
  ASSERT_EQ(members.size(), 2u);
  EXPECT_EQ(members[0].content, inner);
  EXPECT_EQ(members[1].entry.path, "after");
}

TEST(TarReader, OnlyFilesHaveContent) {
  Member directory{"d/", '5', "", ""};
  directory.size = 4096;  // a hint in old tars
  Member hardlink{"h", '1', "", "d/x"};
  hardlink.size = 5;
  const auto members = readTar(TarBuilder().add(directory).add(hardlink).file("f", "x").end());
  ASSERT_EQ(members.size(), 3u);
  EXPECT_EQ(members[0].entry.size, 0u);
  EXPECT_EQ(members[2].content, "x");
}

TEST(TarReader, GlobalHeadersAreIgnored) {
  const auto members =
      readTar(TarBuilder().add({"g", 'g', "19 path=everywhere\n", ""}).file("f", "x").end());
  ASSERT_EQ(members.size(), 1u);
  EXPECT_EQ(members[0].entry.path, "f");
}

TEST(TarReader, Base256NumbersAreRead) {
  std::string header = testing::header({"f", '0', "abc", ""});
  header.replace(124, 12, std::string("\x80\0\0\0\0\0\0\0\0\0\0\x03", 12));
  header.replace(108, 8, std::string("\x80\0\0\0\xee\x6b\x28\0", 8));
  header.replace(136, 12, std::string(12, '\xff'));  // -1: just before 1970
  testing::fixChecksum(header);
  const auto members = readTar(TarBuilder().raw(header).raw("abc" + std::string(509, '\0')).end());
  EXPECT_EQ(members[0].content, "abc");
  EXPECT_EQ(members[0].entry.uid, 4'000'000'000u);
  EXPECT_EQ(members[0].entry.mtime_seconds, -1);
}

TEST(TarReader, TheUstarPrefixIsPartOfTheName) {
  std::string header = testing::header({"name", '0', "", ""});
  header.replace(345, 6, "prefix");
  testing::fixChecksum(header);
  EXPECT_EQ(readTar(TarBuilder().raw(header).end())[0].entry.path, "prefix/name");
}

TEST(TarReader, ALoneZeroBlockEndsTheArchive) {
  EXPECT_EQ(readTar(TarBuilder().file("f", "x").raw(std::string(512, '\0')).unfinished()).size(),
            1u);
  EXPECT_EQ(readTar(TarBuilder().file("f", "x").end() + "trailing rubbish").size(), 1u);
}

// Attacks and damage.

TEST(TarReader, MalformedHeadersAreErrors) {
  const auto kindWith = [](size_t offset, const std::string& bytes) {
    std::string header = testing::header({"f", '0', "", ""});
    header.replace(offset, bytes.size(), bytes);
    testing::fixChecksum(header);
    return errorOf(TarBuilder().raw(header).end()).kind();
  };
  EXPECT_EQ(kindWith(124, "99999999999"), ErrorKind::kCorrupt);  // not octal
  EXPECT_EQ(kindWith(124, "-0000000001"), ErrorKind::kCorrupt);
  EXPECT_EQ(kindWith(124, std::string(12, '\xff')), ErrorKind::kCorrupt);           // size -1
  EXPECT_EQ(kindWith(124, "\x80" + std::string(11, '\x7f')), ErrorKind::kCorrupt);  // 2^87
  EXPECT_EQ(kindWith(108, std::string("\x80\0\0\x01\0\0\0\0", 8)), ErrorKind::kCorrupt);
  EXPECT_EQ(kindWith(156, "V"), ErrorKind::kNotSupported);
  EXPECT_EQ(kindWith(156, "M"), ErrorKind::kNotSupported);
  std::string header = testing::header({"f", '0', "", ""});
  header[0] = 'g';
  EXPECT_THAT(errorOf(TarBuilder().raw(header).end()).what(), HasSubstr("checksum"));
  EXPECT_EQ(errorOf(std::string(512, '\0') + std::string(512, 'x')).kind(), ErrorKind::kCorrupt);
}

TEST(TarReader, DeviceNumbersAreBounded) {
  Member device{"d", '4', "", ""};
  device.major = 4096;
  EXPECT_EQ(errorOf(TarBuilder().add(device).end()).kind(), ErrorKind::kCorrupt);
}

TEST(TarReader, MalformedPaxRecordsAreErrors) {
  for (const char* records :
       {"x", "5 a=b", "6 a=b", "7 a=b\n", "5 a=b\n", "0 a=b\n", "-6 a=b\n", "6 =bc\n", "6 abc\n",
        "99999999999999999999 a=b\n", "6  a=b\n", "12 size=-10\n", "12 size=abc\n", "11 uid=1.5\n",
        "13 mtime=1e9\n", "30 uid=99999999999999999999\n"}) {
    EXPECT_EQ(errorOf(TarBuilder().add({"p", 'x', records, ""}).file("f", "").end()).kind(),
              ErrorKind::kCorrupt)
        << records;
  }
}

TEST(TarReader, HugeSpecialMembersAreRefusedBeforeTheyAreRead) {
  for (const char type : {'x', 'L', 'K', 'g'}) {
    Member member{"p", type, "", ""};
    member.size = kMaxTarSpecialBytes + 1;
    EXPECT_EQ(errorOf(TarBuilder().add(member).end()).kind(), ErrorKind::kTooLarge) << type;
  }
}

TEST(TarReader, TooManyAttributesAreRefused) {
  std::vector<std::pair<std::string, std::string>> records;
  for (int i = 0; i < 20; ++i) {
    records.push_back({"SCHILY.xattr.user." + std::to_string(i), std::string(4000, 'x')});
  }
  EXPECT_EQ(errorOf(TarBuilder().pax(records).file("f", "").end()).kind(), ErrorKind::kTooLarge);
}

TEST(TarReader, AnArchiveMayNotEndAfterASpecialMember) {
  EXPECT_EQ(errorOf(TarBuilder().pax({{"path", "x"}}).end()).kind(), ErrorKind::kCorrupt);
  EXPECT_EQ(errorOf(TarBuilder().pax({{"path", "x"}}).unfinished()).kind(), ErrorKind::kCorrupt);
}

TEST(TarReader, SparseMapsThatLieAreErrors) {
  const auto kindOf = [](const std::string& size, const std::string& map, const std::string& data) {
    return errorOf(TarBuilder()
                       .pax({{"GNU.sparse.size", size}, {"GNU.sparse.map", map}})
                       .file("f", data)
                       .end())
        .kind();
  };
  EXPECT_EQ(kindOf("100", "0,3,50,3", "abcdef"), ErrorKind::kInternal);  // fine
  EXPECT_EQ(kindOf("100", "50,3,0,3", "abcdef"), ErrorKind::kCorrupt);   // not in order
  EXPECT_EQ(kindOf("100", "0,3,2,3", "abcdef"), ErrorKind::kCorrupt);    // overlapping
  EXPECT_EQ(kindOf("100", "0,3,98,3", "abcdef"), ErrorKind::kCorrupt);   // beyond the end
  EXPECT_EQ(kindOf("100", "0,3,50,4", "abcdef"), ErrorKind::kCorrupt);   // more than there is
  EXPECT_EQ(kindOf("100", "0,3", "abcdef"), ErrorKind::kCorrupt);        // less than there is
  EXPECT_EQ(kindOf("100", "0,3,50", "abcdef"), ErrorKind::kCorrupt);
  EXPECT_EQ(kindOf("100", "0,-3", "abcdef"), ErrorKind::kCorrupt);
  EXPECT_EQ(kindOf("", "0,6", "abcdef"), ErrorKind::kCorrupt);
  EXPECT_EQ(kindOf("99999999999999999999", "0,6", "abcdef"), ErrorKind::kCorrupt);
  EXPECT_EQ(kindOf("100", "9223372036854775807,6", "abcdef"), ErrorKind::kCorrupt);
}

TEST(TarReader, EveryTruncationInsideAMemberIsAnError) {
  const std::string tar =
      TarBuilder().pax({{"path", "x"}}).file("f", std::string(600, 'c')).unfinished();
  for (size_t size = 1; size < tar.size(); ++size) {
    EXPECT_EQ(errorOf(std::string_view(tar).substr(0, size)).kind(), ErrorKind::kCorrupt) << size;
  }
}

}  // namespace
}  // namespace hull::image
