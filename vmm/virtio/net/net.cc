#include "vmm/virtio/net/net.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "vmm/virtio/net/stream.h"
#include "vmm/virtio/net/tap.h"

namespace hull::vmm::virtio {

namespace {

constexpr size_t kFrameBufferBytes = kNetHeaderBytes + kMaxFrameBytes;

constexpr uint64_t kBaseFeatures = netBit(kNetMac) | netBit(kNetMtu) | netBit(kNetMergeBuffers);

}  // namespace

std::unique_ptr<NetBackend> makeNetBackend(const NetConfig& config) {
  if (config.stream_fd >= 0) return std::make_unique<StreamBackend>(config.stream_fd);
  return std::make_unique<TapBackend>(config.tap_fd);
}

NetDevice::NetDevice(const NetConfig& config, EventLoop& loop)
    : backend_(makeNetBackend(config)),
      mac_(config.mac),
      blocked_(config.blocked),
      loop_(loop),
      features_(kBaseFeatures | backend_->offloads()),
      frame_(std::make_unique<std::byte[]>(kFrameBufferBytes)) {
  setLimits(config.receive, config.transmit);
  config_.mac = mac_;
  config_.mtu = config.mtu;
  slice_.reserve(kQueueSize);
  buffers_.reserve(kQueueSize);
}

NetDevice::~NetDevice() {
  reset();
}

void NetDevice::setLimits(const IoLimits& receive, const IoLimits& transmit) noexcept {
  receive_throttle_.configure(receive);
  transmit_throttle_.configure(transmit);
  if (timer_) loop_.cancel(*std::exchange(timer_, std::nullopt));
  notify();
}

void NetDevice::rest(Throttle& throttle) noexcept {
  if (timer_) return;  // it looks at both directions
  timer_ = loop_.after(throttle.wait(), [this] {
    timer_.reset();
    notify();
  });
}

void NetDevice::activate(Activation&& activation) noexcept {
  host_ = &activation.host;
  negotiated_ = activation.features;
  receive_ = std::move(activation.queues[0]);
  transmit_ = std::move(activation.queues[1]);
  backend_->negotiated(negotiated_);
  notify();
}

void NetDevice::reset() noexcept {
  stopWaiting();
  if (timer_) loop_.cancel(*std::exchange(timer_, std::nullopt));
  frame_bytes_ = 0;
  receive_.reset();
  transmit_.reset();
}

std::vector<QueuePosition> NetDevice::queuePositions() const noexcept {
  return {receive_->position(), transmit_->position()};
}

void NetDevice::notify() noexcept {
  if (!transmit_) return;
  transmit();
  receive();
}

// ---- guest to host ------------------------------------------------------------------------------

void NetDevice::transmit() noexcept {
  if (!transmit_ || transmit_->broken()) return;
  if (!transmit_throttle_.ready()) return rest(transmit_throttle_);
  bool has_room = backend_->ready();
  if (has_room) {
    bool go_on = true;
    const DrainResult result = drain(*transmit_, [&](Chain&& chain) {
      transmit_throttle_.take(chain.readableBytes());
      transmitFrame(chain);
      transmit_->push(std::move(chain), 0);
      has_room = backend_->ready();
      go_on = transmit_throttle_.ready();
      return go_on && has_room;
    });
    if (!go_on) rest(transmit_throttle_);
    settle(*transmit_, result, *host_, "net");
  }
  wants_room_ = !has_room;
  wait();
}

// The headers are copied, checked, and sent from the copy; the guest cannot change them afterwards.
void NetDevice::transmitFrame(const Chain& chain) noexcept {
  NetHeader net;
  std::array<std::byte, kCheckedFrameBytes> copy;
  if (!chain.read(0, std::as_writable_bytes(std::span(&net, 1)))) return;
  const uint64_t frame_bytes = chain.readableBytes() - kNetHeaderBytes;
  if (!checkTransmitHeader(net, frame_bytes, negotiated_)) return;
  const auto head = std::span(copy).first(std::min<uint64_t>(frame_bytes, copy.size()));
  if (!chain.read(kNetHeaderBytes, head)) return;
  if (!hasSource(head.first<kEthernetHeaderBytes>(), mac_)) return;
  if (!blocked_.empty() && !mayGoOut(head, blocked_)) return;
  slice_.clear();
  slice_.push_back({&net, kNetHeaderBytes});
  slice_.push_back({head.data(), head.size()});
  appendSlice(chain.readable(), kNetHeaderBytes + head.size(), frame_bytes - head.size(), slice_);
  backend_->send(slice_);
}

// ---- host to guest ------------------------------------------------------------------------------

void NetDevice::receive() noexcept {
  if (!receive_ || receive_->broken()) return;
  receive_->disableNotifications();
  uint32_t frames = 0;
  bool wait_for_frames = false;
  while (frames < kMaxFramesPerTurn) {
    if (!receive_throttle_.ready()) {
      rest(receive_throttle_);
      break;
    }
    if (frame_bytes_ == 0 && !readFrame()) {
      wait_for_frames = true;
      break;
    }
    const size_t bytes = frame_bytes_;
    if (!deliverFrame()) break;
    receive_throttle_.take(bytes);
    ++frames;
  }
  if (receive_->takeInterrupt()) host_->interrupt();
  wants_frames_ = wait_for_frames && !receive_->broken();
  wait();
  if (receive_->broken()) return host_->needsReset("net");
  if (frames == kMaxFramesPerTurn) host_->notifyLater();
}

bool NetDevice::readFrame() noexcept {
  frame_bytes_ = backend_->ended() ? 0 : backend_->receive({frame_.get(), kFrameBufferBytes});
  return frame_bytes_ != 0;
}

// False: no buffers for it now; the frame waits, and the driver's next notification goes on. A
// frame that does not fit all buffers together is dropped.
bool NetDevice::deliverFrame() noexcept {
  for (;;) {
    const uint16_t known = receive_->available();
    if (collectBuffers()) break;
    if (receive_->broken()) return false;
    if (known == receive_->size()) {
      frame_bytes_ = 0;
      return true;
    }
    if (!receive_->enableNotifications(known)) return false;
    receive_->disableNotifications();
  }
  scatterFrame();
  frame_bytes_ = 0;
  return true;
}

// Pops buffers for the waiting frame; without MRG_RXBUF it must fit the first (§5.1.6.4).
bool NetDevice::collectBuffers() noexcept {
  const bool mergeable = (negotiated_ & netBit(kNetMergeBuffers)) != 0;
  uint64_t space = 0;
  while (space < frame_bytes_) {
    auto chain = receive_->pop();
    if (!chain) {
      giveBuffersBack();
      return false;
    }
    space += chain->writableBytes();
    buffers_.push_back(std::move(*chain));
    if (mergeable || space >= frame_bytes_) continue;
    receive_->push(std::move(buffers_.back()), 0);  // too small for any frame like this one
    buffers_.clear();
    space = 0;
  }
  return true;
}

void NetDevice::giveBuffersBack() noexcept {
  while (!buffers_.empty()) {
    receive_->unpop(std::move(buffers_.back()));
    buffers_.pop_back();
  }
}

void NetDevice::scatterFrame() noexcept {
  const auto count = static_cast<uint16_t>(buffers_.size());
  constexpr size_t kNumBuffersOffset = offsetof(NetHeader, num_buffers);
  std::memcpy(frame_.get() + kNumBuffersOffset, &count, sizeof count);
  std::span<const std::byte> rest(frame_.get(), frame_bytes_);
  for (Chain& chain : buffers_) {
    const auto part = rest.first(std::min<uint64_t>(rest.size(), chain.writableBytes()));
    const bool written = chain.write(0, part);
    receive_->push(std::move(chain), written ? static_cast<uint32_t>(part.size()) : 0);
    rest = rest.subspan(part.size());
  }
  buffers_.clear();
}

// ---- waiting for the host -----------------------------------------------------------------------

void NetDevice::wait() noexcept {
  if (backend_->ended() && !std::exchange(told_end_, true)) {
    log::warning(fmt::format("net: the {} has gone: the guest has no network", backend_->name()));
  }
  uint32_t events = 0;
  if (wants_frames_ && !backend_->ended()) events |= EPOLLIN;
  if (wants_room_ && !backend_->ended()) events |= EPOLLOUT;
  if (events == waits_for_) return;
  if (events == 0) return stopWaiting();
  try {
    if (waits_for_ != 0) {
      loop_.modify(backend_->fd(), events);
    } else {
      loop_.add(backend_->fd(), events, [this](uint32_t ready) { onReady(ready); });
    }
    waits_for_ = events;
  } catch (const std::exception& error) {
    log::error(fmt::format("net: watch the {}: {}", backend_->name(), error.what()));
  }
}

void NetDevice::stopWaiting() noexcept {
  if (std::exchange(waits_for_, 0) != 0) loop_.remove(backend_->fd());
}

void NetDevice::onReady(uint32_t events) noexcept {
  if ((events & (EPOLLOUT | EPOLLHUP)) != 0) transmit();
  if ((events & (EPOLLIN | EPOLLHUP)) != 0) receive();
  if ((events & EPOLLERR) == 0) return;
  backend_->end();
  wait();
}

}  // namespace hull::vmm::virtio
