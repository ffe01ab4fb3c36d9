// Chunked data streams (guest::OpenStream): ChunkSource and ChunkSink of vm.h.
#include <algorithm>

#include "base/bytes.h"
#include "base/error.h"
#include "daemon/vm/guest_wire.h"
#include "daemon/vm/vm.h"

namespace hull::engine {

namespace {

uint32_t readNumber(int fd) {
  uint32_t number = 0;
  if (readFull(fd, std::as_writable_bytes(std::span(&number, 1))) < sizeof number) {
    throw Error(ErrorKind::kUnavailable, "the guest's stream ended early");
  }
  return number;
}

// What follows the end marker: empty for success.
void readVerdict(int fd) {
  const uint32_t size = readNumber(fd);
  if (size == 0) return;
  if (size > kMaxChunkErrorBytes) {
    throw Error(ErrorKind::kCorrupt, "the guest's error message is too long");
  }
  std::string text(size, '\0');
  if (readFull(fd, std::as_writable_bytes(std::span(text))) < size) {
    throw Error(ErrorKind::kUnavailable, "the guest's stream ended early");
  }
  throw Error(ErrorKind::kInternal, printable(text));
}

}  // namespace

size_t ChunkSource::read(std::span<std::byte> into) {
  if (ended_ || into.empty()) return 0;
  if (left_in_chunk_ == 0) {
    left_in_chunk_ = readNumber(socket_.get());
    if (left_in_chunk_ > guest::kMaxChunkBytes) {
      throw Error(ErrorKind::kCorrupt, "the guest sent a chunk that is too long");
    }
    if (left_in_chunk_ == 0) {
      ended_ = true;
      readVerdict(socket_.get());
      return 0;
    }
  }
  const size_t got =
      readSome(socket_.get(), into.first(std::min<size_t>(into.size(), left_in_chunk_)));
  if (got == 0) throw Error(ErrorKind::kUnavailable, "the guest's stream ended early");
  left_in_chunk_ -= static_cast<uint32_t>(got);
  return got;
}

void ChunkSink::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto chunk = bytes.first(std::min<size_t>(bytes.size(), guest::kMaxChunkBytes));
    const auto size = static_cast<uint32_t>(chunk.size());
    try {
      sendBlocking(socket_.get(), std::as_bytes(std::span(&size, 1)));
      sendBlocking(socket_.get(), chunk);
    } catch (const Error&) {
      // A guest that cannot go on says why and closes: its reason beats "broken pipe".
      if (readNumber(socket_.get()) == 0) readVerdict(socket_.get());
      throw;
    }
    bytes = bytes.subspan(chunk.size());
  }
}

void ChunkSink::finish() {
  ByteWriter end;
  end.u32(0);
  end.u32(0);
  try {
    sendBlocking(socket_.get(), asBytes(end.bytes()));
  } catch (const Error&) {
    // As above: the reason is in what can still be read.
  }
  if (readNumber(socket_.get()) != 0) {
    throw Error(ErrorKind::kCorrupt, "the guest answered a written stream with data");
  }
  readVerdict(socket_.get());
}

}  // namespace hull::engine
