#include "vmm/virtio/net/net.h"

#include <fmt/format.h>
#include <linux/if_tun.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

namespace hull::vmm::virtio {

namespace {

constexpr size_t kFrameBufferBytes = kNetHeaderBytes + kMaxFrameBytes;

constexpr uint64_t kBaseFeatures = netBit(kNetMac) | netBit(kNetMtu) | netBit(kNetMergeBuffers);
// Guest to host: the tap takes these from the header of each frame.
constexpr uint64_t kHostOffloads =
    netBit(kNetChecksum) | netBit(kNetHostTso4) | netBit(kNetHostTso6);
// Host to guest: the tap must be told what the guest can cope with.
constexpr uint64_t kGuestOffloads =
    netBit(kNetGuestChecksum) | netBit(kNetGuestTso4) | netBit(kNetGuestTso6);

unsigned long tapOffloads(uint64_t features) {
  unsigned long flags = 0;
  // §5.1.3.1: segmentation offloads depend on the checksum offload.
  if ((features & netBit(kNetGuestChecksum)) == 0) return 0;
  flags |= TUN_F_CSUM;
  if ((features & netBit(kNetGuestTso4)) != 0) flags |= TUN_F_TSO4;
  if ((features & netBit(kNetGuestTso6)) != 0) flags |= TUN_F_TSO6;
  return flags;
}

}  // namespace

NetDevice::NetDevice(const NetConfig& config, EventLoop& loop)
    : tap_(config.tap_fd),
      mac_(config.mac),
      loop_(loop),
      frame_(std::make_unique<std::byte[]>(kFrameBufferBytes)) {
  int header_bytes = kNetHeaderBytes;
  if (ioctl(tap_, TUNSETVNETHDRSZ, &header_bytes) < 0) {
    throw sysError("set up network: tap_fd is not a tap device with IFF_VNET_HDR");
  }
  setNonBlocking(tap_);
  features_ = kBaseFeatures | kHostOffloads;
  if (ioctl(tap_, TUNSETOFFLOAD, tapOffloads(kGuestOffloads)) == 0) features_ |= kGuestOffloads;
  ioctl(tap_, TUNSETOFFLOAD, 0UL);
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
  if (ioctl(tap_, TUNSETOFFLOAD, tapOffloads(negotiated_)) < 0) {
    log::warning("net: the tap refused the negotiated offloads");
  }
  notify();
}

void NetDevice::reset() noexcept {
  watchTap(false);
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
  if (!transmit_throttle_.ready()) return rest(transmit_throttle_);
  bool go_on = true;
  const DrainResult result = drain(*transmit_, [&](Chain&& chain) {
    transmit_throttle_.take(chain.readableBytes());
    transmitFrame(chain);
    transmit_->push(std::move(chain), 0);
    go_on = transmit_throttle_.ready();
    return go_on;
  });
  if (!go_on) rest(transmit_throttle_);
  settle(*transmit_, result, *host_, "net");
}

// Both headers are copied, checked, and sent from the copy; the guest cannot change them
// afterwards. A frame that the tap does not take now is lost, as on a busy wire.
void NetDevice::transmitFrame(const Chain& chain) noexcept {
  struct {
    NetHeader net;
    std::array<std::byte, kEthernetHeaderBytes> ethernet;
  } head;
  const uint64_t head_bytes = kNetHeaderBytes + kEthernetHeaderBytes;
  if (!chain.read(0, std::as_writable_bytes(std::span(&head.net, 1))) ||
      !chain.read(kNetHeaderBytes, head.ethernet)) {
    return;
  }
  const uint64_t frame_bytes = chain.readableBytes() - kNetHeaderBytes;
  if (!checkTransmitHeader(head.net, frame_bytes, negotiated_)) return;
  if (!hasSource(head.ethernet, mac_)) return;
  slice_.clear();
  slice_.push_back({&head.net, kNetHeaderBytes});
  slice_.push_back({head.ethernet.data(), kEthernetHeaderBytes});
  appendSlice(chain.readable(), head_bytes, frame_bytes - kEthernetHeaderBytes, slice_);
  [[maybe_unused]] const ssize_t sent =
      writev(tap_, slice_.data(), static_cast<int>(slice_.size()));
}

// ---- host to guest ------------------------------------------------------------------------------

void NetDevice::receive() noexcept {
  if (!receive_ || receive_->broken()) return;
  receive_->disableNotifications();
  uint32_t frames = 0;
  bool wait_for_tap = false;
  while (frames < kMaxFramesPerTurn) {
    if (!receive_throttle_.ready()) {
      rest(receive_throttle_);
      break;
    }
    if (frame_bytes_ == 0 && !readFrame()) {
      wait_for_tap = true;
      break;
    }
    const size_t bytes = frame_bytes_;
    if (!deliverFrame()) break;
    receive_throttle_.take(bytes);
    ++frames;
  }
  if (receive_->takeInterrupt()) host_->interrupt();
  if (receive_->broken()) return host_->needsReset("net");
  watchTap(wait_for_tap);
  if (frames == kMaxFramesPerTurn) host_->notifyLater();
}

bool NetDevice::readFrame() noexcept {
  const ssize_t got = ::read(tap_, frame_.get(), kFrameBufferBytes);
  if (got <= static_cast<ssize_t>(kNetHeaderBytes)) return false;
  frame_bytes_ = static_cast<size_t>(got);
  return true;
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

void NetDevice::watchTap(bool on) noexcept {
  if (on == watching_) return;
  watching_ = on;
  if (!on) return loop_.remove(tap_);
  try {
    loop_.add(tap_, EPOLLIN, [this](uint32_t events) {
      if ((events & EPOLLERR) != 0) {  // the interface is gone
        log::warning("net: the tap device has gone");
        return watchTap(false);
      }
      receive();
    });
  } catch (const std::exception& error) {
    watching_ = false;
    log::error(fmt::format("net: watch the tap: {}", error.what()));
  }
}

}  // namespace hull::vmm::virtio
