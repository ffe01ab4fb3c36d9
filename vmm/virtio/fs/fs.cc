#include "vmm/virtio/fs/fs.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"

namespace hull::vmm::virtio {

FsDevice::FsDevice(const FsConfig& config, EventLoop& loop, std::chrono::milliseconds reply_time,
                   Gone gone)
    : socket_(config.socket_fd),
      loop_(loop),
      back_end_(config.socket_fd, reply_time),
      gone_(std::move(gone)) {
  std::copy_n(config.tag.begin(), std::min(config.tag.size(), kMaxTagBytes), config_.tag.begin());
  for (Fd& kick : kicks_) {
    kick = Fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!kick) throw sysError("make virtio event");
  }
  if (!back_end_.greet(kQueues)) {
    throw Error(ErrorKind::kUnavailable,
                "set up shared folders: virtiofsd: " + back_end_.failure());
  }
  transport_features_ = back_end_.features() & kTransportFeatures;
  loop_.add(socket_, EPOLLIN | EPOLLRDHUP, [this](uint32_t) { onBackEnd(); });
}

FsDevice::~FsDevice() {
  if (!failed_) loop_.remove(socket_);
}

bool FsDevice::introduce(const Activation& activation) noexcept {
  if (!back_end_.setFeatures(activation.features) || !back_end_.setMemory(activation.memory)) {
    return false;
  }
  for (uint32_t i = 0; i < kQueues; ++i) {
    const Queue& queue = activation.queues[i];
    const VhostQueueEvents events{kicks_[i].get(), activation.host.interruptFd()};
    if (!back_end_.startQueue(i, queue.layout(), queue.position(), events)) return false;
  }
  return true;
}

void FsDevice::activate(Activation&& activation) noexcept {
  host_ = &activation.host;
  if (failed_) return host_->needsReset("fs");
  if (!introduce(activation)) fail(back_end_.failure());
}

void FsDevice::reset() noexcept {
  host_ = nullptr;
  for (uint32_t i = 0; i < kQueues && !failed_; ++i) {
    if (!back_end_.stopQueue(i)) fail(back_end_.failure());
  }
}

// The rings belong to the back end, which is not asked: canSave() is false.
std::vector<QueuePosition> FsDevice::queuePositions() const noexcept {
  return std::vector<QueuePosition>(kQueues);
}

// Between two requests of ours the back end has nothing to say: it ended, or it is broken.
void FsDevice::onBackEnd() noexcept {
  char byte = 0;
  const ssize_t got = recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  fail(got > 0 ? "it sent what nobody asked for" : "it ended");
}

void FsDevice::fail(std::string_view why) noexcept {
  if (failed_) return;
  failed_ = true;
  log::error(fmt::format("shared folders are gone: virtiofsd: {}", why));
  loop_.remove(socket_);
  shutdown(socket_, SHUT_RDWR);
  if (host_ != nullptr) host_->needsReset("fs");
  if (gone_) gone_(why);
}

}  // namespace hull::vmm::virtio
