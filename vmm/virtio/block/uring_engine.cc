#include "vmm/virtio/block/uring_engine.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <array>
#include <cerrno>

#include "base/error.h"

namespace hull::vmm::virtio {

namespace {

void check(int result, const char* operation) {
  if (result < 0) throw sysError(std::string("io_uring: ") + operation, -result);
}

}  // namespace

UringEngine::UringEngine(EventLoop& loop) : loop_(loop) {
  check(io_uring_queue_init(kEntries, &ring_, IORING_SETUP_R_DISABLED), "make a ring");
  try {
    if ((ring_.features & IORING_FEAT_NODROP) == 0) {
      throw Error(ErrorKind::kNotSupported, "io_uring: this kernel's may lose completions");
    }
    restrict();
    // liburing sets CLOEXEC itself (io_uring_setup(2): the descriptor is made with O_CLOEXEC).
    loop_.add(ring_.ring_fd, EPOLLIN, [this](uint32_t) { kick(); });
  } catch (...) {
    io_uring_queue_exit(&ring_);
    throw;
  }
}

UringEngine::~UringEngine() {
  drain();
  loop_.remove(ring_.ring_fd);
  io_uring_queue_exit(&ring_);
}

void UringEngine::restrict() {
  std::array<io_uring_restriction, 4> allowed{};
  constexpr std::array<uint8_t, 4> kOperations{IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC,
                                               IORING_OP_FALLOCATE};
  for (size_t i = 0; i < allowed.size(); ++i) {
    allowed[i].opcode = IORING_RESTRICTION_SQE_OP;
    allowed[i].sqe_op = kOperations[i];
  }
  check(io_uring_register_restrictions(&ring_, allowed.data(), allowed.size()),
        "restrict the ring");
  check(io_uring_enable_rings(&ring_), "enable the ring");
}

void UringEngine::submit(IoOperation& operation) noexcept {
  waiting_.push_back(&operation);
}

void UringEngine::enqueueWaiting() noexcept {
  while (!waiting_.empty() && in_flight_ < kMaxInFlight && enqueue(*waiting_.front())) {
    waiting_.pop_front();
    ++in_flight_;
  }
}

bool UringEngine::enqueue(IoOperation& operation) noexcept {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  if (entry == nullptr) {
    io_uring_submit(&ring_);
    entry = io_uring_get_sqe(&ring_);
    if (entry == nullptr) return false;
  }
  switch (operation.kind) {
    case IoOperation::Kind::kRead:
    case IoOperation::Kind::kWrite: {
      const auto buffers = nextBuffers(operation);
      const auto count = static_cast<unsigned>(buffers.size());
      if (operation.kind == IoOperation::Kind::kRead) {
        io_uring_prep_readv(entry, operation.fd, buffers.data(), count, operation.offset);
      } else {
        io_uring_prep_writev(entry, operation.fd, buffers.data(), count, operation.offset);
      }
      break;
    }
    case IoOperation::Kind::kSync:
      io_uring_prep_fsync(entry, operation.fd, IORING_FSYNC_DATASYNC);
      break;
    case IoOperation::Kind::kPunchHole:
    case IoOperation::Kind::kZeroRange:
      io_uring_prep_fallocate(entry, operation.fd, allocateMode(operation.kind),
                              static_cast<off_t>(operation.offset),
                              static_cast<off_t>(operation.length));
      break;
  }
  io_uring_sqe_set_data(entry, &operation);
  return true;
}

void UringEngine::kick() noexcept {
  enqueueWaiting();
  if (io_uring_sq_ready(&ring_) > 0) io_uring_submit(&ring_);
  reap();
  reports_.endBatch();
}

// Bounded by what was in flight at the start: a client that submits more has its turn later.
void UringEngine::reap() noexcept {
  for (unsigned left = in_flight_; left > 0; --left) {
    io_uring_cqe* entry = nullptr;
    if (io_uring_peek_cqe(&ring_, &entry) != 0 || entry == nullptr) break;
    auto& operation = *static_cast<IoOperation*>(io_uring_cqe_get_data(entry));
    const int moved = entry->res;
    io_uring_cqe_seen(&ring_, entry);
    --in_flight_;
    if (applyResult(operation, moved)) {
      reports_.done(operation);
    } else {
      waiting_.push_front(&operation);
    }
  }
  enqueueWaiting();
  if (io_uring_sq_ready(&ring_) > 0) io_uring_submit(&ring_);
}

void UringEngine::drain() noexcept {
  while (in_flight_ > 0 || !waiting_.empty()) {
    enqueueWaiting();
    const int result = io_uring_submit_and_wait(&ring_, 1);
    if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY) break;
    reap();
  }
  reports_.endBatch();
}

}  // namespace hull::vmm::virtio
