// File operations that do not hold up the device thread: handed in with submit(), reported back to
// their client when done. Two kinds: io_uring, which needs no thread of ours, and a few threads
// with plain system calls where the host has no io_uring or forbids it (containers, sysctl
// kernel.io_uring_disabled). Shared by all disks of a VM.
//
// Owner: Machine. Device thread, but for the constructor (before the jail) and start() (main
// thread, after the jail, before any filter). Nothing throws after start().
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/event_loop.h"
#include "vmm/jail/seccomp.h"

namespace hull::vmm::virtio {

enum class DiskResult : uint8_t { kOk, kError, kUnsupported };

class IoClient;

// One operation on one file. Belongs to its client and stays where it is until reported.
struct IoOperation {
  enum class Kind : uint8_t { kRead, kWrite, kSync, kPunchHole, kZeroRange };
  Kind kind = Kind::kRead;
  int fd = -1;
  uint64_t offset = 0;           // bytes; moves on as parts of the transfer complete
  uint64_t length = 0;           // kPunchHole, kZeroRange: bytes
  std::vector<iovec> buffers{};  // kRead, kWrite; consumed
  size_t first_buffer = 0;       // of those that are left
  IoClient* client = nullptr;
  void* request = nullptr;  // the client's own
  DiskResult result = DiskResult::kOk;
};

class IoClient {
 public:
  virtual ~IoClient() = default;
  virtual void onIoDone(IoOperation& operation) noexcept = 0;
  virtual void onIoBatchEnd() noexcept = 0;  // after some onIoDone(): time for one interrupt
};

class IoEngine {
 public:
  virtual ~IoEngine() = default;
  IoEngine() = default;
  IoEngine(const IoEngine&) = delete;
  IoEngine& operator=(const IoEngine&) = delete;

  virtual const char* name() const noexcept = 0;
  // `filter`: for threads of the engine's own.
  virtual void start(const std::optional<SeccompFilter>& filter) = 0;
  virtual void submit(IoOperation& operation) noexcept = 0;
  // Begins what was submitted, and reports what is done at once (a page cache hit).
  virtual void kick() noexcept = 0;
  // Waits for everything under way, and reports it. For resets and saving.
  virtual void drain() noexcept = 0;
};

// io_uring where it works, threads elsewhere. The reason for the latter is logged.
std::unique_ptr<IoEngine> makeIoEngine(EventLoop& loop);

// What the kinds of engines share: what `moved` (bytes, or a negative errno) means for an
// operation. True: it is over, with `result` set; false: only a part was moved, the rest is to be
// submitted. A file that ends before its segment does is an error: zeros would hide a truncated
// layer.
bool applyResult(IoOperation& operation, int64_t moved) noexcept;

// The buffers of the next system call: at most IOV_MAX of those left.
std::span<iovec> nextBuffers(IoOperation& operation) noexcept;

int allocateMode(IoOperation::Kind kind) noexcept;  // fallocate(2)'s

// Calls onIoDone(), and remembers whom to tell of the end of the batch.
class IoReports {
 public:
  void done(IoOperation& operation) noexcept;
  void endBatch() noexcept;

 private:
  std::vector<IoClient*> clients_;
};

}  // namespace hull::vmm::virtio
