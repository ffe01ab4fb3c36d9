#include "guest-init/server/chunks.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/error.h"
#include "base/fd.h"

namespace hull::guest {

namespace {

constexpr size_t kSizeBytes = sizeof(uint32_t);

void sendAll(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw sysError("send to the host");
    bytes.remove_prefix(static_cast<size_t>(put));
  }
}

}  // namespace

void ChunkSink::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (pending_.empty()) {
      pending_.reserve(kSizeBytes + kMaxChunkBytes);
      pending_.assign(kSizeBytes, '\0');
    }
    const size_t room = kSizeBytes + kMaxChunkBytes - pending_.size();
    const auto piece = bytes.first(std::min(room, bytes.size()));
    pending_.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    bytes = bytes.subspan(piece.size());
    if (pending_.size() == kSizeBytes + kMaxChunkBytes) flush();
  }
}

void ChunkSink::flush() {
  if (pending_.empty()) return;
  const auto size = static_cast<uint32_t>(pending_.size() - kSizeBytes);
  std::memcpy(pending_.data(), &size, sizeof size);
  sendAll(socket_, pending_);
  pending_.clear();
}

uint32_t ChunkSource::readSize() {
  uint32_t size = 0;
  if (readFull(socket_, std::as_writable_bytes(std::span(&size, 1))) != sizeof size) {
    throw Error(ErrorKind::kUnavailable, "receive from the host: broken off");
  }
  if (size > kMaxChunkBytes) {
    throw Error(ErrorKind::kInvalidArgument, "receive from the host: chunk too large");
  }
  return size;
}

size_t ChunkSource::read(std::span<std::byte> into) {
  if (ended_ || into.empty()) return 0;
  if (left_ == 0) {
    left_ = readSize();
    if (left_ == 0) {
      ended_ = true;
      std::string error(readSize(), '\0');
      readFull(socket_, std::as_writable_bytes(std::span(error)));
      if (!error.empty()) throw Error(ErrorKind::kCancelled, "the host gave up: " + error);
      return 0;
    }
  }
  const size_t got = readSome(socket_, into.first(std::min<size_t>(into.size(), left_)));
  if (got == 0) throw Error(ErrorKind::kUnavailable, "receive from the host: broken off");
  left_ -= static_cast<uint32_t>(got);
  return got;
}

void ChunkSource::drain() {
  std::array<std::byte, 16384> ignored;
  while (read(ignored) > 0) {
  }
}

void sendEnd(int socket, std::string_view error) {
  ByteWriter end;
  end.u32(0);
  end.string(error);
  sendAll(socket, end.bytes());
}

}  // namespace hull::guest
