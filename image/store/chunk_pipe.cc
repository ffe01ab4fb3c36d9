#include "image/store/chunk_pipe.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace hull::image {

std::span<std::byte> ChunkPipe::space() {
  if (!have_current_) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_ || !free_.empty() || made_ < kChunks; });
    if (stopped_) return {};
    if (free_.empty()) {
      ++made_;
      current_ = Chunk();
    } else {
      current_ = std::move(free_.back());
      free_.pop_back();
    }
    current_.size = 0;
    have_current_ = true;
  }
  return std::span(current_.bytes).subspan(current_.size);
}

void ChunkPipe::filled(size_t bytes) {
  current_.size += bytes;
  if (current_.size == current_.bytes.size()) push();
}

bool ChunkPipe::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::span<std::byte> room = space();
    if (room.empty()) return false;
    const size_t size = std::min(room.size(), bytes.size());
    std::memcpy(room.data(), bytes.data(), size);
    bytes = bytes.subspan(size);
    filled(size);
  }
  return true;
}

void ChunkPipe::push() {
  {
    const std::lock_guard lock(mutex_);
    full_.push_back(std::move(current_));
  }
  have_current_ = false;
  changed_.notify_all();
}

void ChunkPipe::close() {
  if (have_current_ && current_.size > 0) push();
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
}

void ChunkPipe::abandon() {
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
  }
  changed_.notify_all();
}

size_t ChunkPipe::read(std::span<std::byte> into) {
  if (into.empty()) return 0;
  if (read_ == reading_.size) {
    std::unique_lock lock(mutex_);
    if (reading_.size > 0) free_.push_back(std::move(reading_));
    reading_.size = read_ = 0;
    changed_.notify_all();
    changed_.wait(lock, [&] { return abandoned_ || closed_ || !full_.empty(); });
    if (abandoned_) throw Error(ErrorKind::kCancelled, "the stream was given up");
    if (full_.empty()) return 0;
    reading_ = std::move(full_.front());
    full_.pop_front();
  }
  const size_t size = std::min(into.size(), reading_.size - read_);
  std::memcpy(into.data(), reading_.bytes.data() + read_, size);
  read_ += size;
  return size;
}

void ChunkPipe::stopReading() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

}  // namespace hull::image
