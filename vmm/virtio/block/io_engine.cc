#include "vmm/virtio/block/io_engine.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>

#include <algorithm>
#include <cerrno>

#include "base/error.h"
#include "base/log.h"
#include "vmm/virtio/block/thread_engine.h"
#include "vmm/virtio/block/uring_engine.h"

namespace hull::vmm::virtio {

std::unique_ptr<IoEngine> makeIoEngine(EventLoop& loop) {
  try {
    return std::make_unique<UringEngine>(loop);
  } catch (const Error& error) {
    log::debug(fmt::format("disks use threads: {}", error.what()));
    return std::make_unique<ThreadEngine>(loop);
  }
}

bool applyResult(IoOperation& operation, int64_t moved) noexcept {
  const bool transfer =
      operation.kind == IoOperation::Kind::kRead || operation.kind == IoOperation::Kind::kWrite;
  if (moved == -EINTR || moved == -EAGAIN) return false;
  if (moved < 0 || (transfer && moved == 0)) {
    operation.result = moved == -EOPNOTSUPP ? DiskResult::kUnsupported : DiskResult::kError;
    return true;
  }
  if (!transfer) return true;
  operation.offset += static_cast<uint64_t>(moved);
  while (moved > 0 && operation.first_buffer < operation.buffers.size()) {
    iovec& buffer = operation.buffers[operation.first_buffer];
    const size_t part = std::min(static_cast<size_t>(moved), buffer.iov_len);
    buffer.iov_base = static_cast<std::byte*>(buffer.iov_base) + part;
    buffer.iov_len -= part;
    moved -= static_cast<int64_t>(part);
    if (buffer.iov_len == 0) ++operation.first_buffer;
  }
  return operation.first_buffer == operation.buffers.size();
}

std::span<iovec> nextBuffers(IoOperation& operation) noexcept {
  const auto left = std::span(operation.buffers).subspan(operation.first_buffer);
  return left.first(std::min<size_t>(left.size(), IOV_MAX));
}

int allocateMode(IoOperation::Kind kind) noexcept {
  return FALLOC_FL_KEEP_SIZE |
         (kind == IoOperation::Kind::kPunchHole ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
}

void IoReports::done(IoOperation& operation) noexcept {
  IoClient* client = operation.client;
  if (std::find(clients_.begin(), clients_.end(), client) == clients_.end()) {
    clients_.push_back(client);
  }
  client->onIoDone(operation);
}

// A client may submit and kick again in here, so the list is taken first.
void IoReports::endBatch() noexcept {
  for (IoClient* client : std::exchange(clients_, {})) client->onIoBatchEnd();
}

}  // namespace hull::vmm::virtio
