// Tar, as container layers use it: POSIX pax interchange format written; ustar, pax and GNU's long
// names read. Streams: no seeking, one entry at a time. The reader's input is hostile: every size
// is bounded before anything is allocated. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/stream.h"

namespace hull::guest {

inline constexpr size_t kTarBlockBytes = 512;
inline constexpr size_t kMaxTarPathBytes = 4096;       // PATH_MAX
inline constexpr size_t kMaxPaxHeaderBytes = 1 << 20;  // all records of one entry
inline constexpr size_t kMaxEntryXattrs = 256;
inline constexpr uint64_t kMaxTarFileBytes = uint64_t{1} << 50;

enum class TarType : char {
  kFile = '0',
  kHardLink = '1',
  kSymlink = '2',
  kCharacter = '3',
  kBlock = '4',
  kDirectory = '5',
  kFifo = '6',
};

struct TarEntry {
  std::string path;  // as in the archive; a directory's without its trailing slash
  TarType type = TarType::kFile;
  uint32_t mode = 0;  // 07777
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t size = 0;  // of the content that follows; 0 unless kFile
  int64_t mtime_s = 0;
  uint32_t mtime_ns = 0;
  std::string link;  // hard link: a path of the archive; symlink: its target
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::map<std::string, std::string> xattrs;
};

// What ustar's fields cannot hold goes into a pax header in front. Same entries, same bytes.
class TarWriter {
 public:
  explicit TarWriter(Sink& out) : out_(out) {}
  void add(const TarEntry& entry);  // then exactly entry.size bytes through content()
  void content(std::span<const std::byte> bytes);
  void finish();  // the end-of-archive blocks

 private:
  void header(const TarEntry& entry, std::string_view path, std::string_view link, char type,
              uint64_t size);
  void pad();

  Sink& out_;
  uint64_t left_ = 0;     // of the current entry's content
  uint64_t written_ = 0;  // of the current entry's content
};

class TarReader {
 public:
  explicit TarReader(Source& in) : in_(in) {}
  // The next entry; what is left of the former one's content is skipped. nullopt at the end of the
  // archive. Throws Error(kCorrupt) or Error(kTooLarge).
  std::optional<TarEntry> next();
  size_t content(std::span<std::byte> into);  // 0 at the end of this entry's content

 private:
  struct Extended {  // what pax and GNU headers say about the entry behind them
    std::optional<std::string> path;
    std::optional<std::string> link;
    std::map<std::string, std::string> records;
  };
  bool readBlock(char* block);
  void skip(uint64_t bytes);
  std::string readMember(uint64_t size, const char* what);
  void parsePax(std::string_view text, std::map<std::string, std::string>& records);
  TarEntry makeEntry(const char* block, Extended extended);

  Source& in_;
  std::map<std::string, std::string> global_;  // records of the last 'g' header
  uint64_t left_ = 0;
  uint64_t padding_ = 0;
};

}  // namespace hull::guest
