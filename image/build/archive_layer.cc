#include "image/build/archive_layer.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "image/build/stage_builder.h"
#include "image/build/window_source.h"

namespace hull::build {

using image::IngestedLayer;
using image::KeepBlob;

namespace {

constexpr size_t kHeadBytes = 512;  // a tar's first header

// xz and bzip2 archives of ADD, inflated by libarchive.
void inflateWithLibarchive(Source& from, Sink& to) {
  struct Reader {
    Source& source;
    std::vector<std::byte> buffer = std::vector<std::byte>(kStreamChunkBytes);
    static la_ssize_t read(archive*, void* self, const void** data) {
      auto* reader = static_cast<Reader*>(self);
      try {
        *data = reader->buffer.data();
        return static_cast<la_ssize_t>(reader->source.read(reader->buffer));
      } catch (...) {
        return ARCHIVE_FATAL;
      }
    }
  } reader{from};
  const std::unique_ptr<archive, int (*)(archive*)> input(archive_read_new(), &archive_read_free);
  archive_read_support_filter_xz(input.get());
  archive_read_support_filter_bzip2(input.get());
  archive_read_support_format_raw(input.get());
  archive_entry* entry = nullptr;
  if (archive_read_open(input.get(), &reader, nullptr, &Reader::read, nullptr) != ARCHIVE_OK ||
      archive_read_next_header(input.get(), &entry) != ARCHIVE_OK) {
    throw Error(ErrorKind::kCorrupt, "inflate an archive: it is damaged");
  }
  std::vector<std::byte> buffer(kStreamChunkBytes);
  for (;;) {
    const la_ssize_t got = archive_read_data(input.get(), buffer.data(), buffer.size());
    if (got < 0) throw Error(ErrorKind::kCorrupt, "inflate an archive: it is damaged");
    if (got == 0) return;
    to.write(std::span<const std::byte>(buffer.data(), static_cast<size_t>(got)));
  }
}

enum class ArchiveKind { kNone, kDirect, kLibarchive };

ArchiveKind archiveKind(std::string_view head) {
  if (head.starts_with("\x1f\x8b") || head.starts_with("\x28\xb5\x2f\xfd"))
    return ArchiveKind::kDirect;
  if (head.size() >= 262 && head.substr(257, 5) == "ustar") return ArchiveKind::kDirect;
  if (head.starts_with("BZh") || head.starts_with(std::string_view("\xfd"
                                                                   "7zXZ\0",
                                                                   6)))
    return ArchiveKind::kLibarchive;
  return ArchiveKind::kNone;
}

}  // namespace

std::optional<IngestedLayer> ingestArchive(image::LayerStore& layers, int fd, uint64_t offset,
                                           uint64_t size) {
  std::string head(std::min<uint64_t>(size, kHeadBytes), '\0');
  preadFull(fd, std::as_writable_bytes(std::span(head)), offset);
  const ArchiveKind kind = archiveKind(head);
  if (kind == ArchiveKind::kNone) return std::nullopt;
  try {
    WindowSource bytes(fd, offset, size);
    if (kind == ArchiveKind::kDirect) return layers.ingest(bytes, KeepBlob::kNo);
    return ingestTar(layers, KeepBlob::kNo, [&](Sink& tar) { inflateWithLibarchive(bytes, tar); });
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCorrupt || error.kind() == ErrorKind::kNotSupported)
      return std::nullopt;
    throw;
  }
}

}  // namespace hull::build
