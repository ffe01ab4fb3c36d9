#include "guest-init/archive/tar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"

namespace hull::guest {
namespace {

using testing::HasSubstr;

struct Read {
  std::vector<TarEntry> entries;
  std::vector<std::string> contents;
};

Read readTar(std::string_view bytes) {
  StringSource source(bytes);
  TarReader reader(source);
  Read read;
  while (const auto entry = reader.next()) {
    read.entries.push_back(*entry);
    std::string content(static_cast<size_t>(entry->size), '\0');
    for (size_t done = 0; done < content.size();) {
      done += reader.content(
          std::as_writable_bytes(std::span(content.data() + done, content.size() - done)));
    }
    read.contents.push_back(std::move(content));
  }
  return read;
}

std::string writeTar(const std::vector<TarEntry>& entries, std::string_view content = "") {
  StringSink sink;
  TarWriter writer(sink);
  for (const TarEntry& entry : entries) {
    writer.add(entry);
    if (entry.size != 0) writer.content(asBytes(content));
  }
  writer.finish();
  return sink.text;
}

std::string messageOf(std::string_view bytes) {
  try {
    readTar(bytes);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TarEntry file(const std::string& path, uint64_t size = 0) {
  TarEntry entry;
  entry.path = path;
  entry.mode = 0644;
  entry.size = size;
  return entry;
}

TEST(Tar, EverythingSurvivesTheWayOutAndIn) {
  TarEntry entry = file(std::string(300, 'p') + "/\xc3\xa4", 5);
  entry.uid = 3000000000U;
  entry.gid = 2097152;
  entry.mtime_s = -2;
  entry.mtime_ns = 750000000;
  entry.xattrs = {{"security.capability", std::string("\1\0\0\2", 4)}, {"user.a", "b=\nc"}};
  TarEntry link = file("l");
  link.type = TarType::kSymlink;
  link.link = std::string(200, 't');
  TarEntry device = file("d");
  device.type = TarType::kBlock;
  device.device_major = 8;
  device.device_minor = 300;
  TarEntry directory = file("dir");
  directory.type = TarType::kDirectory;
  const Read read = readTar(writeTar({entry, link, device, directory}, "12345"));
  ASSERT_EQ(read.entries.size(), 4u);
  EXPECT_EQ(read.entries[0].path, entry.path);
  EXPECT_EQ(read.entries[0].uid, entry.uid);
  EXPECT_EQ(read.entries[0].gid, entry.gid);
  EXPECT_EQ(read.entries[0].mtime_s, -2);
  EXPECT_EQ(read.entries[0].mtime_ns, 750000000u);
  EXPECT_EQ(read.entries[0].xattrs, entry.xattrs);
  EXPECT_EQ(read.contents[0], "12345");
  EXPECT_EQ(read.entries[1].link, link.link);
  EXPECT_EQ(read.entries[2].device_minor, 300u);
  EXPECT_EQ(read.entries[3].path, "dir");
  EXPECT_EQ(read.entries[3].type, TarType::kDirectory);
}

TEST(Tar, TheReferenceProgramReadsWhatWeWrite) {
  TarEntry entry = file(std::string(150, 'a') + "/b", 3);
  entry.mtime_s = 981173106;
  entry.mtime_ns = 123000000;
  const std::string listing =
      checkCommand({"tar", "--utc", "--full-time", "-tv"}, writeTar({entry}, "abc"));
  EXPECT_THAT(listing, HasSubstr("2001-02-03 04:05:06.123"));
  EXPECT_THAT(listing, HasSubstr(entry.path));
}

class TarFormats : public testing::TestWithParam<const char*> {};

TEST_P(TarFormats, WhatTheReferenceProgramWritesIsRead) {
  const TemporaryDirectory folder;
  const std::string deep = std::string(90, 'x') + "/" + std::string(90, 'y');
  checkCommand({"sh", "-ec",
                "cd " + folder.path() + "; mkdir -p " + deep + "; echo hi > " + deep +
                    "/f; ln -s target s; ln " + deep + "/f hard; mkfifo p; touch -d @1000 " + deep +
                    "/f"});
  const std::string tar = checkCommand({"tar", "-C", folder.path(), "--sort=name", "-c",
                                        std::string("--format=") + GetParam(), "."});
  const Read read = readTar(tar);
  std::map<std::string, size_t> by_path;
  for (size_t i = 0; i < read.entries.size(); ++i) by_path[read.entries[i].path] = i;
  const auto at = by_path.find("./" + deep + "/f");
  ASSERT_NE(at, by_path.end());
  ASSERT_TRUE(by_path.contains("./hard"));
  const bool first = at->second < by_path["./hard"];
  const size_t original = first ? at->second : by_path["./hard"];
  EXPECT_EQ(read.contents[original], "hi\n");
  EXPECT_EQ(read.entries[original].mtime_s, 1000);
  EXPECT_EQ(read.entries[by_path["./s"]].link, "target");
  EXPECT_EQ(read.entries[by_path["./p"]].type, TarType::kFifo);
}
INSTANTIATE_TEST_SUITE_P(All, TarFormats, testing::Values("ustar", "pax", "gnu"));

TEST(Tar, EveryTruncationIsAnErrorOrAShorterArchive) {
  const std::string tar = writeTar({file(std::string(120, 'n'), 700)}, std::string(700, 'c'));
  for (size_t size = 1; size + 1024 < tar.size(); ++size) {
    EXPECT_NE(messageOf(std::string_view(tar).substr(0, size)), "") << size;
  }
}

// One header with `change` applied and its checksum made right again.
template <typename Change>
std::string tampered(Change&& change) {
  std::string tar = writeTar({file("name", 10)}, "0123456789");
  change(tar);
  std::fill(tar.begin() + 148, tar.begin() + 156, ' ');
  unsigned sum = 0;
  for (size_t i = 0; i < 512; ++i) sum += static_cast<unsigned char>(tar[i]);
  char text[8];
  std::snprintf(text, sizeof text, "%06o", sum);
  std::copy(text, text + 7, tar.begin() + 148);
  return tar;
}

TEST(Tar, HostileHeadersAreRefused) {
  EXPECT_EQ(messageOf(tampered([](std::string&) {})), "");
  EXPECT_THAT(messageOf(tampered([](std::string& t) { t[124] = '9'; })), HasSubstr("bad number"));
  EXPECT_THAT(messageOf(tampered([](std::string& t) { t.replace(124, 12, 12, '\xff'); })),
              HasSubstr("number"));
  EXPECT_THAT(messageOf(tampered([](std::string& t) {
                t.replace(124, 12, std::string("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12));
              })),
              HasSubstr("too large"));
  EXPECT_THAT(messageOf(tampered([](std::string& t) { t[156] = 'S'; })),
              HasSubstr("unknown entry type"));
  EXPECT_THAT(messageOf(tampered([](std::string& t) {
                t[156] = 'x';
                t.replace(124, 11, "77777777777");
              })),
              HasSubstr("too large"));
  std::string wrong = tampered([](std::string&) {});
  wrong[0] ^= 1;
  EXPECT_THAT(messageOf(wrong), HasSubstr("checksum"));
}

// A pax header with these records in front of an empty file.
std::string withPax(const std::string& records) {
  std::string tar = writeTar({file("PaxHeader", records.size())}, records);
  tar.resize(512 + (records.size() + 511) / 512 * 512);
  std::string head = tar.substr(0, 512);
  head[156] = 'x';
  std::fill(head.begin() + 148, head.begin() + 156, ' ');
  unsigned sum = 0;
  for (const char c : head) sum += static_cast<unsigned char>(c);
  char text[8];
  std::snprintf(text, sizeof text, "%06o", sum);
  std::copy(text, text + 7, head.begin() + 148);
  return head + tar.substr(512) + writeTar({file("f")});
}

TEST(Tar, HostilePaxRecordsAreRefused) {
  EXPECT_EQ(readTar(withPax("11 path=ab\n")).entries.at(0).path, "ab");
  for (const char* records :
       {"x", "5 a=", "99 path=a\n", "0 path=a\n", "3 a\n", "5 =a\n", "18446744073709551616 a=b\n",
        "11 size=-1\n", "12 mtime=xy\n", "15 mtime=1.2.3\n", "30 GNU.sparse.major=1234567890\n"}) {
    EXPECT_NE(messageOf(withPax(records)), "") << records;
  }
  EXPECT_THAT(messageOf(withPax("5012 path=" + std::string(5001, 'p') + "\n")),
              HasSubstr("path too long"));
  EXPECT_THAT(messageOf(withPax(std::string("11 path=a\0\n", 11))), HasSubstr("zero byte"));
}

TEST(Tar, TheWriterRefusesWrongContent) {
  StringSink sink;
  TarWriter writer(sink);
  writer.add(file("f", 2));
  EXPECT_THROW(writer.content(asBytes("abc")), Error);
  EXPECT_THROW(writer.finish(), Error);
}

}  // namespace
}  // namespace hull::guest
