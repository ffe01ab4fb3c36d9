// A digest that a thread of its own computes while its owner goes on receiving and writing. The
// thread is there between the first kInlineBytes of update() and rest(), so that what is small, or
// waits for its next piece, costs none. One owner; one thread at a time calls it. Target
// hull_crypto.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/hash.h"
#include "base/stream.h"

namespace hull {

class BackgroundHasher {
 public:
  static constexpr size_t kInlineBytes =
      1 << 20;                                // digested by the caller before a thread is worth it
  static constexpr size_t kQueuedChunks = 4;  // of kStreamChunkBytes at most; more wait

  explicit BackgroundHasher(HashAlgorithm algorithm = HashAlgorithm::kSha256);
  ~BackgroundHasher();
  BackgroundHasher(const BackgroundHasher&) = delete;
  BackgroundHasher& operator=(const BackgroundHasher&) = delete;

  // Copies `bytes`; waits while kQueuedChunks are not digested yet.
  void update(std::span<const std::byte> bytes);
  // Everything is digested when it returns, and the thread is gone.
  void rest();
  std::string finishHex();  // rests; as Hasher::finishHex()

 private:
  bool start();  // false: the host gives no thread now
  void work();

  Hasher hasher_;      // the caller's while there is no thread, then the thread's
  size_t inline_ = 0;  // digested by the caller since the last rest
  std::thread thread_;
  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  std::deque<std::vector<std::byte>> queue_;   // front first; the front is being digested
  std::vector<std::vector<std::byte>> spare_;  // buffers to use again
  bool resting_ = false;                       // the thread ends when the queue is empty
};

}  // namespace hull
