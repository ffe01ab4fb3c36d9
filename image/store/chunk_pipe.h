// A bounded queue of byte chunks between two threads: one fills, one reads it as a Source. Either
// side can give up; the other then stops at its next call. Chunks are recycled.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "base/stream.h"

namespace hull::image {

class ChunkPipe final : public Source {
 public:
  static constexpr size_t kChunks = 8;  // in flight: 2 MiB

  // The filling side. Both return false once the reader has given up.
  bool write(std::span<const std::byte> bytes);
  // Space in the current chunk to fill in place, then how much of it was filled.
  std::span<std::byte> space();  // empty once the reader has given up
  void filled(size_t bytes);
  void close();    // the end of the stream, after what is in the current chunk
  void abandon();  // the reader's next read throws kCancelled

  // The reading side.
  size_t read(std::span<std::byte> into) override;
  void stopReading();

 private:
  struct Chunk {
    std::vector<std::byte> bytes = std::vector<std::byte>(kStreamChunkBytes);
    size_t size = 0;
  };
  void push();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Chunk> full_;  // guarded by mutex_, as all below up to the next comment
  std::vector<Chunk> free_;
  size_t made_ = 0;
  bool closed_ = false, abandoned_ = false, stopped_ = false;

  Chunk current_;  // the filling side's
  bool have_current_ = false;
  Chunk reading_;  // the reading side's
  size_t read_ = 0;
};

}  // namespace hull::image
