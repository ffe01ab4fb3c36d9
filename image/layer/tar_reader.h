// A bounded, streaming tar reader for untrusted archives: ustar, PAX, GNU and old formats; long
// names, base-256 numbers, sparse files (GNU old, PAX 0.0, 0.1, 1.0), extended attributes,
// sub-second times. Written for layers rather than taken from a library because names and
// attributes must pass through as bytes in any locale, because a cut-off archive must be an error,
// and because PAX sizes must be applied in exactly one way (CVE-2025-62518). Where the formats
// leave room it decides as Go's archive/tar, which made most images. One thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/stream.h"
#include "image/layer/index.h"

namespace hull::image {

inline constexpr size_t kTarBlockBytes = 512;
inline constexpr size_t kMaxTarSpecialBytes = 1 << 20;  // a PAX header or long name; as Go's reader
inline constexpr size_t kMaxTarSparseParts = 1 << 18;   // of one file

// One member as the archive has it: names verbatim (they may be absolute or contain ".."), any
// byte but NUL.
struct TarEntry {
  EntryType type = EntryType::kFile;  // kFile … kFifo
  std::string path;
  std::string link;
  uint16_t mode = 0;  // 07777
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t mtime_seconds = 0;
  uint32_t mtime_nanoseconds = 0;
  uint64_t size = 0;  // files: logical size, holes included
  uint32_t device_major = 0;
  uint32_t device_minor = 0;
  std::map<std::string, std::string> xattrs;
};

class TarReader {
 public:
  // `in` must outlive the reader. It is read in large chunks, beyond the end of the archive too.
  explicit TarReader(Source& in);
  ~TarReader();

  // The next member, or nullopt at the end of the archive. Content not read is skipped. Throws
  // kCorrupt (malformed, truncated), kNotSupported (unknown type), kTooLarge (a bound above).
  std::optional<TarEntry> next();

  // The content of the current file in order; what no call covers is zero. Once per member.
  using ContentFunction = std::function<void(uint64_t offset, std::span<const std::byte> bytes)>;
  void content(const ContentFunction& take);
  std::string contentText(size_t limit);  // throws kTooLarge

  // After the end: whether it was marked by a zero block (an archive may just stop at a header).
  bool endMarked() const { return end_marked_; }
  // Reads what follows the archive up to the end of the input.
  void drain();

 private:
  using Block = std::array<char, kTarBlockBytes>;
  using PaxRecords = std::vector<std::pair<std::string, std::string>>;
  struct Part {
    uint64_t offset = 0;
    uint64_t length = 0;
  };
  struct Pending;

  [[noreturn]] void corrupt(const std::string& why) const;
  bool fill();
  bool readBlock(Block& block);
  void readExactly(std::span<char> into);
  void skip(uint64_t bytes);
  std::string readSpecial(const Block& header);
  void readPax(const Block& header, Pending& pending);
  TarEntry interpret(const Block& header, const Pending& pending);
  void applyPax(TarEntry& entry, const PaxRecords& records);
  void sparseFromPax(TarEntry& entry, const PaxRecords& records);
  void sparseFromGnuHeader(TarEntry& entry, const Block& header);
  void sparseFromContent();
  void checkSparse(const TarEntry& entry);

  Source& in_;
  std::unique_ptr<std::byte[]> buffer_;
  size_t begin_ = 0, end_ = 0;  // unread part of the buffer
  uint64_t position_ = 0;       // bytes of the archive consumed
  uint64_t left_ = 0;           // of the current member's stored bytes
  uint64_t padding_ = 0;        // after them
  bool sparse_ = false;
  std::vector<Part> parts_;  // of the current sparse file
  bool end_marked_ = false;
};

}  // namespace hull::image
