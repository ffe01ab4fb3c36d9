#include "base/background_hasher.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace hull {

BackgroundHasher::BackgroundHasher(HashAlgorithm algorithm) : hasher_(algorithm) {}

BackgroundHasher::~BackgroundHasher() {
  rest();
}

void BackgroundHasher::update(std::span<const std::byte> bytes) {
  if (!thread_.joinable() && (inline_ < kInlineBytes || !start())) {
    inline_ += bytes.size();
    return hasher_.update(bytes);
  }
  while (!bytes.empty()) {
    const auto chunk = bytes.first(std::min(bytes.size(), kStreamChunkBytes));
    bytes = bytes.subspan(chunk.size());
    std::vector<std::byte> buffer;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return queue_.size() < kQueuedChunks; });
      if (!spare_.empty()) {
        buffer = std::move(spare_.back());
        spare_.pop_back();
      }
    }
    buffer.assign(chunk.begin(), chunk.end());
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(std::move(buffer));
    }
    changed_.notify_one();
  }
}

bool BackgroundHasher::start() {
  resting_ = false;
  try {
    thread_ = std::thread([this] { work(); });
  } catch (const std::system_error&) {
    return false;
  }
  return true;
}

void BackgroundHasher::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return resting_ || !queue_.empty(); });
    if (queue_.empty()) return;
    // Its place stays taken, so that kQueuedChunks bounds all that there is.
    std::vector<std::byte> buffer = std::move(queue_.front());
    lock.unlock();
    hasher_.update(buffer);
    lock.lock();
    queue_.pop_front();
    spare_.push_back(std::move(buffer));
    changed_.notify_one();
  }
}

void BackgroundHasher::rest() {
  inline_ = 0;
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    resting_ = true;
  }
  changed_.notify_one();
  thread_.join();
  spare_.clear();
}

std::string BackgroundHasher::finishHex() {
  rest();
  return hasher_.finishHex();
}

}  // namespace hull
