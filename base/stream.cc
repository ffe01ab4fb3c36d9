#include "base/stream.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/error.h"
#include "base/fd.h"

namespace hull {

size_t FdSource::read(std::span<std::byte> into) {
  return readSome(fd_, into);
}

void FdSink::write(std::span<const std::byte> bytes) {
  writeFull(fd_, bytes);
}

size_t StringSource::read(std::span<std::byte> into) {
  const size_t size = std::min(into.size(), rest_.size());
  std::memcpy(into.data(), rest_.data(), size);
  rest_.remove_prefix(size);
  return size;
}

void StringSink::write(std::span<const std::byte> bytes) {
  text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

size_t LimitedSource::read(std::span<std::byte> into) {
  if (left_ == 0) return 0;
  const size_t got =
      inner_.read(into.first(static_cast<size_t>(std::min<uint64_t>(left_, into.size()))));
  left_ -= got;
  return got;
}

uint64_t copy(Source& from, Sink& to) {
  const auto buffer = std::make_unique<std::byte[]>(kStreamChunkBytes);
  uint64_t total = 0;
  for (;;) {
    const size_t got = from.read({buffer.get(), kStreamChunkBytes});
    if (got == 0) return total;
    to.write(std::span<const std::byte>(buffer.get(), got));
    total += got;
  }
}

std::string readAll(Source& from, size_t limit, std::string_view what) {
  StringSink all;
  const auto buffer = std::make_unique<std::byte[]>(kStreamChunkBytes);
  for (;;) {
    const size_t got = from.read({buffer.get(), kStreamChunkBytes});
    if (got == 0) return std::move(all.text);
    if (got > limit - all.text.size()) {
      throw Error(ErrorKind::kTooLarge, "read " + std::string(what) + ": larger than " +
                                            std::to_string(limit) + " bytes");
    }
    all.write(std::span<const std::byte>(buffer.get(), got));
  }
}

}  // namespace hull
