#include "vmm/hostile/device_cases.h"

#include <endian.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "base/fd.h"
#include "base/file.h"
#include "vmm/testing/test_tap.h"
#include "vmm/virtio/balloon/balloon.h"
#include "vmm/virtio/block/block.h"
#include "vmm/virtio/console/console.h"
#include "vmm/virtio/net/net.h"
#include "vmm/virtio/rng/rng.h"
#include "vmm/virtio/vsock/vsock.h"

namespace hull::vmm::virtio::hostile {

namespace {

using testing::ChainBuilder;
using testing::TestTap;

template <typename S>
std::unique_ptr<Subject> make() {
  return std::make_unique<S>();
}

class BlockSubject final : public Subject {
 public:
  BlockSubject() {
    writeFull(disk_.get(), std::string(kDiskBytes, 'd'));
    read_only_ = openFile("/proc/self/fd/" + std::to_string(disk_.get()), O_RDONLY);
    engine_->start(std::nullopt);
    const DiskConfig config{"disk", kDiskBytes, true, {{read_only_.get(), 0, 0, kDiskBytes}}};
    device_.emplace(config, 1, *engine_, loop());
  }
  Device& device() override { return *device_; }
  void settle() override { engine_->drain(); }
  bool serves(Bench& bench) override {
    virtio_blk_outhdr header{};
    header.type = VIRTIO_BLK_T_IN;
    GuestAddress data = 0, status = 0;
    ChainBuilder(bench.queue(0))
        .readableValue(header)
        .writable(kSectorBytes, &data)
        .writable(1, &status)
        .send();
    bench.queue(0).put<uint8_t>(status, 0xee);
    bench.kick();
    return bench.queue(0).get<uint8_t>(status) == VIRTIO_BLK_S_OK &&
           bench.queue(0).text(data, kSectorBytes) == std::string(kSectorBytes, 'd');
  }

 private:
  static constexpr uint64_t kDiskBytes = 16 * kSectorBytes;
  Fd disk_ = makeMemfd("disk");
  Fd read_only_;
  std::unique_ptr<IoEngine> engine_ = makeIoEngine(loop());
  std::optional<BlockDevice> device_;
};

class BalloonSubject final : public Subject {
 public:
  Device& device() override { return device_; }
  // A page of free memory goes back.
  bool serves(Bench& bench) override {
    const uint64_t before = device_.reportedBytes();
    constexpr GuestAddress kFree = layout::kGapStart - layout::kMiB;
    ChainBuilder(bench.queue(2))
        .raw({kFree, BalloonDevice::kPageBytes, kDescriptorWrite, 0})
        .send();
    bench.kick();
    return device_.reportedBytes() == before + BalloonDevice::kPageBytes;
  }

 private:
  BalloonDevice device_;
};

class NetSubject final : public Subject {
 public:
  NetSubject() {
    if (tap_.missing().empty()) device_.emplace(NetConfig{tap_.tap(), kMac, 1500}, loop());
  }
  std::string missing() const override { return tap_.missing(); }
  Device& device() override { return *device_; }
  void stir() override { tap_.send(TestTap::frame({2, 0, 0, 0, 0, 9}, 100)); }
  bool serves(Bench& bench) override {
    while (!tap_.received().empty()) {
    }
    const std::string frame = TestTap::frame(kMac, 60);
    ChainBuilder(bench.queue(1)).readableValue(NetHeader{}).readable(frame).send();
    bench.kick();
    return tap_.received() == frame;
  }

 private:
  static constexpr MacAddress kMac{2, 0, 0, 0, 0, 1};
  TestTap tap_;
  std::optional<NetDevice> device_;
};

// The same card with a process at the other end; a full socket keeps nothing from being served.
class NetStreamSubject final : public Subject {
 public:
  Device& device() override { return device_; }
  void stir() override {
    const std::string frame = TestTap::frame({2, 0, 0, 0, 0, 9}, 100);
    const auto length = htobe32(static_cast<uint32_t>(frame.size()));
    std::string text(reinterpret_cast<const char*>(&length), sizeof length);
    text += frame;
    [[maybe_unused]] const ssize_t sent =
        ::send(wire_.second.get(), text.data(), text.size(), MSG_DONTWAIT);
  }
  bool serves(Bench& bench) override {
    while (!received().empty()) {
    }
    const std::string frame = TestTap::frame(kMac, 60);
    ChainBuilder(bench.queue(1)).readableValue(NetHeader{}).readable(frame).send();
    bench.kick();
    const std::string got = received();
    return got.size() == 4 + frame.size() && got.substr(4) == frame;
  }

 private:
  std::string received() {
    std::string text(1 << 17, '\0');
    const ssize_t got = ::recv(wire_.second.get(), text.data(), text.size(), MSG_DONTWAIT);
    return text.substr(0, got < 0 ? 0 : static_cast<size_t>(got));
  }
  static constexpr MacAddress kMac{2, 0, 0, 0, 0, 1};
  FdPair wire_ = makeSocketPair(SOCK_STREAM);
  NetDevice device_{NetConfig{-1, kMac, 1500, {}, {}, wire_.first.get(), {}}, loop()};
};

class VsockSubject final : public Subject {
 public:
  Device& device() override { return device_; }
  void stir() override { connect(1000); }
  // A client connects, and the guest hears of it.
  bool serves(Bench& bench) override {
    static uint32_t last_port = 5000;
    const uint32_t port = ++last_port;
    auto& queue = bench.queue(0);
    // Others may have left buffers, which are filled first.
    const auto waiting = static_cast<uint16_t>(queue.availableIndex() - queue.usedIndex());
    const int missing = waiting > Bench::kRingSize ? 4 : std::max(4 - waiting, 0);
    for (int i = 0; i < missing; ++i) {
      ChainBuilder(queue).writable(kPacketHeaderBytes).send();
    }
    // A restored device has an event for the guest first, whose buffer the guest then gives back.
    for (int i = 0; i < 2; ++i) {
      ChainBuilder(bench.queue(2)).writable(sizeof(virtio_vsock_event)).send();
      bench.kick();
    }
    connect(port);
    bench.kick();
    for (uint16_t i = 0; i < Bench::kRingSize; ++i) {
      const auto buffer =
          queue.get<Descriptor>(queue.layout().descriptors + i * sizeof(Descriptor));
      const auto header = bench.memory().read<PacketHeader>(buffer.address);
      if (header && header->op == VIRTIO_VSOCK_OP_REQUEST && header->dst_port == port) return true;
    }
    return false;
  }

 private:
  void connect(uint32_t port) {
    client_ = connectUnix(path_);  // the one before gives up
    writeFull(client_.get(), "CONNECT " + std::to_string(port) + "\n");
    for (int i = 0; i < 4; ++i) loop().runOnce(std::chrono::milliseconds(0));
  }
  TemporaryDirectory folder_;
  std::string path_ = folder_.path() + "/vsock";
  Fd listener_ = listenUnix(path_);
  VsockDevice device_{VsockConfig{3, listener_.get()}, loop()};
  Fd client_;
};

class ConsoleSubject final : public Subject {
 public:
  Device& device() override { return device_; }
  bool serves(Bench& bench) override {
    const uint64_t before = fileSize(output_.get());
    ChainBuilder(bench.queue(1)).readable("alive").send();
    bench.kick();
    std::string text(5, '\0');
    return fileSize(output_.get()) == before + text.size() &&
           preadFull(output_.get(), std::as_writable_bytes(std::span(text)), before) ==
               text.size() &&
           text == "alive";
  }

 private:
  Fd output_ = makeMemfd("console");
  ConsoleDevice device_{output_.get()};
};

class RngSubject final : public Subject {
 public:
  Device& device() override { return device_; }
  bool serves(Bench& bench) override {
    GuestAddress where = 0;
    ChainBuilder(bench.queue(0)).writable(32, &where).send();
    bench.kick();
    return bench.queue(0).text(where, 32) != std::string(32, '\0');
  }

 private:
  RngDevice device_;
};

}  // namespace

const std::vector<DeviceCase>& deviceCases() {
  static const std::vector<DeviceCase> kCases{
      {"Block", {{"Requests"}}, make<BlockSubject>},
      {"Net", {{"Receive"}, {"Transmit"}}, make<NetSubject>},
      {"NetStream", {{"Receive"}, {"Transmit"}}, make<NetStreamSubject>},
      {"Vsock", {{"ToGuest"}, {"FromGuest"}, {"Events", false}}, make<VsockSubject>},
      {"Console", {{"Receive", false}, {"Transmit"}}, make<ConsoleSubject>},
      {"Rng", {{"Requests"}}, make<RngSubject>},
      {"Balloon", {{"Inflate"}, {"Deflate"}, {"Reporting"}}, make<BalloonSubject>},
  };
  return kCases;
}

}  // namespace hull::vmm::virtio::hostile
