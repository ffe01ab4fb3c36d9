#include "vmm/virtio/vsock/vsock.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include "base/fd.h"

namespace hull::vmm::virtio {

namespace {

constexpr size_t kToGuest = 0;  // "rx" in §5.10.2, seen from the driver
constexpr size_t kFromGuest = 1;
constexpr size_t kEvents = 2;

}  // namespace

VsockDevice::VsockDevice(const VsockConfig& config, EventLoop& loop)
    : guest_cid_(config.guest_cid), listener_(config.listener_fd), loop_(loop) {
  config_.guest_cid = guest_cid_;
  slice_.reserve(kQueueSize);
  setNonBlocking(listener_);
  listen(true);
}

VsockDevice::~VsockDevice() {
  listen(false);
  for (const auto& [port, stream] : streams_) unwatch(*stream);
}

void VsockDevice::activate(Activation&& activation) noexcept {
  host_ = &activation.host;
  to_guest_ = std::move(activation.queues[kToGuest]);
  from_guest_ = std::move(activation.queues[kFromGuest]);
  events_ = std::move(activation.queues[kEvents]);
  notify();
}

// Connections the guest has heard of end with its driver; those still waiting to be asked for wait
// for the next one.
void VsockDevice::reset() noexcept {
  to_guest_.reset();
  from_guest_.reset();
  events_.reset();
  resets_.clear();
  reset_event_due_ = reset_event_unread_ = false;  // the next driver knows of none
  std::vector<VsockStream*> known;
  for (const auto& [port, stream] : streams_) {
    if (stream->state != State::kGreeting && !stream->request_due) known.push_back(stream.get());
  }
  for (VsockStream* stream : known) {
    if (stream->state == State::kRequested) stream->answer("ERR the guest's vsock was reset\n");
    startDraining(*stream);
  }
}

std::vector<QueuePosition> VsockDevice::queuePositions() const noexcept {
  return {to_guest_->position(), from_guest_->position(), events_->position()};
}

void VsockDevice::save(ByteWriter& out) const {
  out.u32(next_port_);
}

bool VsockDevice::load(ByteReader& in) {
  next_port_ = in.u32();  // a guest may still remember the last one
  reset_event_due_ = true;
  sendEvent();
  return in.ok();
}

// §5.10.6.6 VIRTIO_VSOCK_EVENT_TRANSPORT_RESET: all connections are gone.
void VsockDevice::sendEvent() noexcept {
  if (!reset_event_due_ || !events_) return;
  auto chain = events_->pop();
  if (!chain) {
    if (events_->broken()) return host_->needsReset("vsock");
    events_->enableNotifications();
    return;
  }
  const virtio_vsock_event event{VIRTIO_VSOCK_EVENT_TRANSPORT_RESET};
  const bool fits = chain->writeAs(0, event);
  events_->push(std::move(*chain), fits ? sizeof event : 0);
  reset_event_due_ = !fits;
  reset_event_unread_ = fits;
  event_buffers_left_ = events_->available();
  if (events_->takeInterrupt()) host_->interrupt();
}

// A connection that the guest hears of before the event would end with the others. Drivers give the
// buffer back when they have handled what was in it.
bool VsockDevice::guestHasForgotten() noexcept {
  if (reset_event_unread_ && events_->enableNotifications(event_buffers_left_)) {
    reset_event_unread_ = false;
  }
  return !reset_event_due_ && !reset_event_unread_;
}

void VsockDevice::notify() noexcept {
  if (!to_guest_) return;
  sendEvent();
  receiveFromGuest();
  sendToGuest();
}

// ---- from the guest -----------------------------------------------------------------------------

void VsockDevice::receiveFromGuest() noexcept {
  const DrainResult result = drain(*from_guest_, [this](Chain&& chain) {
    handlePacket(chain);
    from_guest_->push(std::move(chain), 0);
    return true;
  });
  settle(*from_guest_, result, *host_, "vsock");
}

void VsockDevice::handlePacket(const Chain& chain) noexcept {
  const auto header = chain.readAs<PacketHeader>(0);
  // §5.10.6.4.2: a foreign source would be a spoofed one; there is nobody to answer.
  if (!header || header->src_cid != guest_cid_ || header->dst_cid != kHostCid) return;
  const auto found = streams_.find(header->dst_port);
  const bool known = found != streams_.end() && found->second->guest_port == header->src_port &&
                     found->second->state != State::kGreeting &&
                     found->second->state != State::kDraining && !found->second->request_due;
  if (known) return handleForStream(*found->second, *header, chain);
  if (header->op != VIRTIO_VSOCK_OP_RST) queueReset(header->dst_port, header->src_port);
}

void VsockDevice::handleForStream(VsockStream& stream, const PacketHeader& header,
                                  const Chain& chain) noexcept {
  if (header.op == VIRTIO_VSOCK_OP_RST) {
    if (stream.state == State::kRequested) stream.answer("ERR connection refused by the guest\n");
    return startDraining(stream);
  }
  const bool valid = header.type == VIRTIO_VSOCK_TYPE_STREAM &&
                     header.len <= chain.readableBytes() - kPacketHeaderBytes &&
                     stream.send_credit.update(header.buf_alloc, header.fwd_cnt);
  const bool answers = header.op == VIRTIO_VSOCK_OP_RESPONSE;
  if (!valid || answers != (stream.state == State::kRequested)) return resetStream(stream);
  switch (header.op) {
    case VIRTIO_VSOCK_OP_RESPONSE:
      return onResponse(stream);
    case VIRTIO_VSOCK_OP_RW:
      return onData(stream, header, chain);
    case VIRTIO_VSOCK_OP_SHUTDOWN:
      return onShutdown(stream, header.flags);
    case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
      stream.credit_due = true;
      return enqueue(stream);
    case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
      return enqueue(stream);  // bytes may have waited for credit
    default:
      return resetStream(stream);
  }
}

void VsockDevice::onResponse(VsockStream& stream) noexcept {
  stream.state = State::kEstablished;
  stream.answer(fmt::format("OK {}\n", stream.host_port));
  watch(stream);
}

void VsockDevice::onData(VsockStream& stream, const PacketHeader& header,
                         const Chain& chain) noexcept {
  if (!stream.guest_sends || header.len > kMaxPacketDataBytes ||
      !stream.receive_credit.receive(header.len)) {
    return resetStream(stream);
  }
  slice_.clear();
  appendSlice(chain.readable(), kPacketHeaderBytes, header.len, slice_);
  stream.deliver(slice_);
  afterDelivery(stream);
}

// §5.10.6.5: flags are hints that only ever add up. Both: the guest has closed; answer with a
// reset.
void VsockDevice::onShutdown(VsockStream& stream, uint32_t flags) noexcept {
  if ((flags & kShutdownSend) != 0) stream.guest_sends = false;
  if ((flags & kShutdownReceive) != 0 && stream.guest_receives) {
    stream.guest_receives = false;
    if (stream.client) shutdown(stream.client.get(), SHUT_RD);
  }
  if (!stream.guest_sends && !stream.guest_receives) {
    queueReset(stream.host_port, stream.guest_port);
    return startDraining(stream);
  }
  afterDelivery(stream);
}

// Bytes have left for the client, or could not. The stream may be gone afterwards.
void VsockDevice::afterDelivery(VsockStream& stream) noexcept {
  if (stream.state == State::kDraining) {
    if (!stream.hasPending()) return destroy(stream);
    return watch(stream);
  }
  if (!stream.guest_sends) stream.endToClient();
  if (stream.receive_credit.worthAnnouncing()) stream.credit_due = true;
  if (wantsToSend(stream)) enqueue(stream);
  watch(stream);
}

// ---- to the guest -------------------------------------------------------------------------------

bool VsockDevice::wantsToSend(const VsockStream& stream) const noexcept {
  if (stream.request_due || stream.credit_due || stream.shutdown_due != 0) return true;
  return stream.state == State::kEstablished && stream.readable && !stream.client_ended &&
         stream.guest_receives;
}

void VsockDevice::enqueue(VsockStream& stream) noexcept {
  if (stream.queued || !wantsToSend(stream)) return;
  stream.queued = true;
  ready_.push_back(stream.host_port);
}

// The next stream in turn that has something to send; it leaves the list.
VsockStream* VsockDevice::nextReady() noexcept {
  while (!ready_.empty()) {
    const auto found = streams_.find(ready_.front());
    ready_.pop_front();
    if (found == streams_.end()) continue;
    found->second->queued = false;
    if (wantsToSend(*found->second)) return found->second.get();
  }
  return nullptr;
}

// Fills the guest's buffers, one packet per stream and turn, until nobody has anything to send or
// there are no buffers left (the guest's next notification goes on from here).
void VsockDevice::sendToGuest() noexcept {
  if (!to_guest_ || to_guest_->broken() || !guestHasForgotten()) return;
  to_guest_->disableNotifications();
  uint32_t packets = 0;
  while (packets < to_guest_->size() && !(resets_.empty() && ready_.empty())) {
    if (to_guest_->available() == 0) {
      if (to_guest_->broken() || !to_guest_->enableNotifications()) break;
      to_guest_->disableNotifications();
    }
    if (sendOne()) ++packets;
  }
  if (packets == to_guest_->size()) host_->notifyLater();
  if (to_guest_->takeInterrupt()) host_->interrupt();
  if (to_guest_->broken()) host_->needsReset("vsock");
}

bool VsockDevice::sendOne() noexcept {
  VsockStream* stream = resets_.empty() ? nextReady() : nullptr;
  if (resets_.empty() && stream == nullptr) return false;
  auto chain = to_guest_->pop();
  if (!chain || chain->writableBytes() < kPacketHeaderBytes) {
    if (chain) to_guest_->push(std::move(*chain), 0);  // a buffer that holds no header: wasted
    if (stream != nullptr) enqueue(*stream);
    return true;
  }
  if (stream == nullptr) {
    put(std::move(*chain), resets_.front());
    resets_.pop_front();
    return true;
  }
  if (const auto control = nextControl(*stream)) {
    put(std::move(*chain), *control);
    const bool told_all = stream->shutdown_told == kShutdownBoth;
    if (stream->state == State::kEstablished && stream->client_gone && told_all) {
      startClosing(*stream);
    } else {
      enqueue(*stream);
    }
    return true;
  }
  return sendData(*stream, std::move(*chain));
}

std::optional<PacketHeader> VsockDevice::nextControl(VsockStream& stream) noexcept {
  if (stream.request_due) {
    stream.request_due = false;
    return headerFor(stream, VIRTIO_VSOCK_OP_REQUEST);
  }
  if (stream.shutdown_due != 0) {
    stream.shutdown_told |= stream.shutdown_due;
    stream.shutdown_due = 0;
    PacketHeader header = headerFor(stream, VIRTIO_VSOCK_OP_SHUTDOWN);
    header.flags = stream.shutdown_told;
    return header;
  }
  if (!stream.credit_due) return std::nullopt;
  return headerFor(stream, VIRTIO_VSOCK_OP_CREDIT_UPDATE);
}

// Reads from the client straight into the guest's buffer behind the header. False when there was
// nothing to read: the buffer goes back.
bool VsockDevice::sendData(VsockStream& stream, Chain&& chain) noexcept {
  const uint64_t space = chain.writableBytes() - kPacketHeaderBytes;
  const uint64_t most =
      std::min<uint64_t>({space, stream.send_credit.available(), kMaxPacketDataBytes});
  slice_.clear();
  appendSlice(chain.writable(), kPacketHeaderBytes, most, slice_);
  // Without credit the end of the stream can still be told.
  const ssize_t got = most > 0 ? stream.receive(slice_) : stream.atEnd() ? 0 : -1;
  if (got > 0) {
    PacketHeader header = headerFor(stream, VIRTIO_VSOCK_OP_RW);
    header.len = static_cast<uint32_t>(got);
    stream.send_credit.spend(header.len);
    put(std::move(chain), header);
    enqueue(stream);
    return true;
  }
  to_guest_->unpop(std::move(chain));
  if (got == 0) {
    stream.client_ended = true;
    stream.shutdown_due |= stream.client_gone ? kShutdownBoth : kShutdownSend;
    stream.shutdown_due &= ~stream.shutdown_told;
    enqueue(stream);
  } else if (most > 0 && !stream.client_gone) {
    stream.readable = false;
  }
  watch(stream);
  return false;
}

void VsockDevice::put(Chain&& chain, const PacketHeader& header) noexcept {
  const bool written = chain.writeAs(0, header);
  const uint32_t bytes = static_cast<uint32_t>(kPacketHeaderBytes) + header.len;
  to_guest_->push(std::move(chain), written ? bytes : 0);
}

PacketHeader VsockDevice::headerFor(VsockStream& stream, uint16_t operation) noexcept {
  stream.credit_due = false;  // every header carries the credit
  PacketHeader header{};
  header.src_cid = kHostCid;
  header.dst_cid = guest_cid_;
  header.src_port = stream.host_port;
  header.dst_port = stream.guest_port;
  header.type = VIRTIO_VSOCK_TYPE_STREAM;
  header.op = operation;
  header.buf_alloc = ReceiveCredit::kBufferBytes;
  header.fwd_cnt = stream.receive_credit.announce();
  return header;
}

void VsockDevice::queueReset(uint32_t host_port, uint32_t guest_port) noexcept {
  if (resets_.size() >= kMaxResets) return;
  PacketHeader header{};
  header.src_cid = kHostCid;
  header.dst_cid = guest_cid_;
  header.src_port = host_port;
  header.dst_port = guest_port;
  header.type = VIRTIO_VSOCK_TYPE_STREAM;
  header.op = VIRTIO_VSOCK_OP_RST;
  resets_.push_back(header);
}

// The guest broke the protocol, or we cannot go on: both sides lose the stream.
void VsockDevice::resetStream(VsockStream& stream) noexcept {
  if (!stream.request_due) queueReset(stream.host_port, stream.guest_port);
  destroy(stream);
}

}  // namespace hull::vmm::virtio
