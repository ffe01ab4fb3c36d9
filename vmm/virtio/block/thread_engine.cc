#include "vmm/virtio/block/thread_engine.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace hull::vmm::virtio {

namespace {

// Bytes moved, or a negative errno.
int64_t performOnce(IoOperation& operation) noexcept {
  int64_t result = -1;
  const auto offset = static_cast<off_t>(operation.offset);
  const auto buffers = nextBuffers(operation);
  const auto count = static_cast<int>(buffers.size());
  switch (operation.kind) {
    case IoOperation::Kind::kRead:
      result = preadv(operation.fd, buffers.data(), count, offset);
      break;
    case IoOperation::Kind::kWrite:
      result = pwritev(operation.fd, buffers.data(), count, offset);
      break;
    case IoOperation::Kind::kSync:
      result = fdatasync(operation.fd);
      break;
    case IoOperation::Kind::kPunchHole:
    case IoOperation::Kind::kZeroRange:
      result = fallocate(operation.fd, allocateMode(operation.kind), offset,
                         static_cast<off_t>(operation.length));
      break;
  }
  return result < 0 ? -errno : result;
}

}  // namespace

ThreadEngine::ThreadEngine(EventLoop& loop)
    : loop_(loop), done_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!done_event_) throw sysError("make the disk threads' event");
  loop_.add(done_event_.get(), EPOLLIN, [this](uint32_t) { kick(); });
}

ThreadEngine::~ThreadEngine() {
  drain();
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  work_arrived_.notify_all();
  for (auto& thread : threads_) thread.join();
  loop_.remove(done_event_.get());
}

void ThreadEngine::start(const std::optional<SeccompFilter>& filter) {
  for (size_t i = 0; i < kThreads; ++i) {
    threads_.emplace_back([this, filter] {
      pthread_setname_np(pthread_self(), "disk");
      if (filter) filter->applyToThisThread();
      work();
    });
  }
}

void ThreadEngine::work() noexcept {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_arrived_.wait(lock, [this] { return closing_ || !queue_.empty(); });
    if (queue_.empty()) return;
    IoOperation& operation = *queue_.front();
    queue_.pop_front();
    lock.unlock();
    while (!applyResult(operation, performOnce(operation))) {
    }
    lock.lock();
    done_.push_back(&operation);
    work_done_.notify_all();
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t put = write(done_event_.get(), &one, sizeof one);
  }
}

void ThreadEngine::submit(IoOperation& operation) noexcept {
  submitted_.push_back(&operation);
}

void ThreadEngine::kick() noexcept {
  if (!submitted_.empty()) {
    const std::lock_guard lock(mutex_);
    queue_.insert(queue_.end(), submitted_.begin(), submitted_.end());
    in_flight_ += submitted_.size();
    submitted_.clear();
    work_arrived_.notify_all();
  }
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = read(done_event_.get(), &count, sizeof count);
  if (report()) reports_.endBatch();
}

bool ThreadEngine::report() noexcept {
  std::vector<IoOperation*> done;
  {
    const std::lock_guard lock(mutex_);
    done.swap(done_);
  }
  in_flight_ -= done.size();
  for (IoOperation* operation : done) reports_.done(*operation);
  return !done.empty();
}

void ThreadEngine::drain() noexcept {
  kick();
  while (in_flight_ > 0 || !submitted_.empty()) {
    {
      std::unique_lock lock(mutex_);
      work_done_.wait(lock, [this] { return !done_.empty(); });
    }
    kick();
  }
}

}  // namespace hull::vmm::virtio
