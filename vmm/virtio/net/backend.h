// The host's end of a network card: a tap (tap.h), or a stream socket to a process that is the
// network (stream.h). Takes and gives whole Ethernet frames, each behind a virtio-net header.
// Owner: NetDevice. Device thread.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "vmm/config/vm_config.h"

namespace hull::vmm::virtio {

class NetBackend {
 public:
  virtual ~NetBackend() = default;

  virtual std::string_view name() const noexcept = 0;
  virtual int fd() const noexcept = 0;                      // what is waited for; non-blocking
  virtual uint64_t offloads() const noexcept { return 0; }  // features to offer a driver
  virtual void negotiated(uint64_t) noexcept {}

  // `parts`: a NetHeader and a frame, both checked. What cannot be sent is lost, as on a wire.
  virtual void send(std::span<const iovec> parts) noexcept = 0;
  // False: it takes no frame now, and is to be asked again when fd() is writable.
  virtual bool ready() noexcept { return true; }
  // The next frame, with its header; its size, or 0: none now.
  virtual size_t receive(std::span<std::byte> into) noexcept = 0;

  // Nobody is at the other end any more: frames to it are dropped, none come.
  bool ended() const noexcept { return ended_; }
  void end() noexcept { ended_ = true; }

 private:
  bool ended_ = false;
};

// By what the configuration names. Does not own the descriptor; makes it non-blocking. Throws when
// it is not of its kind.
std::unique_ptr<NetBackend> makeNetBackend(const NetConfig& config);

}  // namespace hull::vmm::virtio
