#include "vmm/hostile/bench.h"

#include <cstring>

namespace hull::vmm::virtio::hostile {

using testing::FakeDriver;

Bench::Bench(Subject& subject)
    : subject_(&subject),
      transport_(std::make_unique<MmioTransport>(memory_, subject.device(), thread_)) {
  freshRings();
}

void Bench::freshRings() {
  constexpr GuestAddress kFirst = 0x10000;
  const size_t count = subject_->device().queueSizes().size();
  drivers_.clear();
  for (size_t i = 0; i < count; ++i) {
    const GuestAddress base = kFirst + i * kQueueSpacing;
    const auto ring = memory_.iovecOf(base, 0x10000);
    std::memset(ring->iov_base, 0, ring->iov_len);
    drivers_.push_back(std::make_unique<FakeDriver>(memory_, kRingSize, base));
  }
}

uint32_t Bench::get(uint64_t offset) {
  uint32_t value = 0;
  transport_->read(offset, std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

void Bench::set(uint64_t offset, uint32_t value) {
  transport_->write(offset, std::as_bytes(std::span(&value, 1)));
}

uint64_t Bench::offered() {
  set(kFeaturesSelect, 0);
  const uint64_t low = get(kFeatures);
  set(kFeaturesSelect, 1);
  return low | uint64_t{get(kFeatures)} << 32;
}

void Bench::negotiate(uint64_t features) {
  set(kStatus, kAcknowledge);
  set(kStatus, kAcknowledge | kDriver);
  set(kDriverFeaturesSelect, 0);
  set(kDriverFeatures, static_cast<uint32_t>(features));
  set(kDriverFeaturesSelect, 1);
  set(kDriverFeatures, static_cast<uint32_t>(features >> 32));
  set(kStatus, kAcknowledge | kDriver | kFeaturesOk);
}

void Bench::setQueue(uint32_t index, const QueueLayout& queue_layout) {
  const auto address = [&](uint64_t offset, GuestAddress value) {
    set(offset, static_cast<uint32_t>(value));
    set(offset + 4, static_cast<uint32_t>(value >> 32));
  };
  set(kQueueSelect, index);
  set(kQueueSize, queue_layout.size);
  address(kQueueDesc, queue_layout.descriptors);
  address(kQueueAvailable, queue_layout.available);
  address(kQueueUsed, queue_layout.used);
  set(kQueueReady, 1);
}

void Bench::driverOk() {
  set(kStatus, kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
  turn();
}

void Bench::start(uint64_t without) {
  reset();
  freshRings();
  negotiate(offered() & ~without);
  for (uint32_t i = 0; i < queues(); ++i) setQueue(i, queue(i).layout());
  driverOk();
}

void Bench::reset() {
  set(kStatus, 0);
  turn();
}

void Bench::kick() {
  for (uint32_t i = 0; i < queues(); ++i) set(kQueueNotify, i);
  turn();
}

void Bench::turn() {
  constexpr int kTurns = 8;
  for (int i = 0; i < kTurns; ++i) {
    transport_->onNotify();
    subject_->settle();
    subject_->loop().runOnce(std::chrono::milliseconds(0));
    thread_.runPosted();
  }
}

std::string Bench::save() {
  ByteWriter out;
  transport_->save(out);
  return out.take();
}

bool Bench::goOnWith(Subject& next, std::string_view state) {
  reset();
  subject_ = &next;
  transport_ = std::make_unique<MmioTransport>(memory_, next.device(), thread_);
  ByteReader in(state);
  return transport_->load(in) && in.complete();
}

}  // namespace hull::vmm::virtio::hostile
