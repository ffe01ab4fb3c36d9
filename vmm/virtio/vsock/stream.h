// One connection between a host client (unix socket) and a guest port: its state, credit, and the
// bytes from the guest that the client has not taken yet. Moves bytes on the socket; what goes into
// packets is the VsockDevice's business.
//
// Owner: VsockDevice. Device thread only. Nothing throws.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "vmm/virtio/vsock/packet.h"

namespace hull::vmm::virtio {

class VsockStream {
 public:
  enum class State {
    kGreeting,     // waiting for the client's "CONNECT <port>\n"
    kRequested,    // OP_REQUEST is to be sent or is on its way
    kEstablished,  // the guest has accepted
    kClosing,      // the client is gone; waiting for the guest's OP_RST
    kDraining,     // the guest is gone; the client still gets what it has sent
  };

  VsockStream(uint32_t port, Fd socket) : host_port(port), client(std::move(socket)) {}

  const uint32_t host_port;
  uint32_t guest_port = 0;
  Fd client;
  State state = State::kGreeting;
  SendCredit send_credit;
  ReceiveCredit receive_credit;

  // Control packets that wait for a receive buffer of the guest. At most one of each.
  bool request_due = false;
  bool credit_due = false;
  uint32_t shutdown_due = 0;   // kShutdown… bits not yet told to the guest
  uint32_t shutdown_told = 0;  // … and those that were

  bool readable = false;       // the socket may have bytes or its end for the guest
  bool client_ended = false;   // read 0: no more bytes from the client
  bool client_gone = false;    // closed, not merely shut down for writing
  bool deaf = false;           // the client no longer reads: bytes from the guest are dropped
  bool guest_sends = true;     // no SHUTDOWN_SEND from the guest yet
  bool guest_receives = true;  // no SHUTDOWN_RCV from the guest yet
  bool queued = false;         // in the device's list of streams with something to send

  enum class Greeting { kIncomplete, kOk, kBad };
  // Consumes exactly the greeting line, never a byte behind it.
  Greeting readGreeting() noexcept;
  // A short line to the client; best effort.
  void answer(std::string_view line) noexcept;

  // From the guest: straight to the socket while it takes them, the rest kept. The caller has
  // checked the receive credit, so the rest is at most ReceiveCredit::kBufferBytes.
  void deliver(std::span<const iovec> bytes) noexcept;
  // Tries to get rid of what deliver() kept.
  void flush() noexcept;
  bool hasPending() const noexcept { return pending_start_ < pending_.size(); }
  // After the guest's SHUTDOWN_SEND and the last pending byte: the client reads the end.
  void endToClient() noexcept;

  // To the guest: at most the sum of `into`. -1: nothing now; 0: the end.
  ssize_t receive(std::span<const iovec> into) noexcept;
  // Nothing more will come; takes nothing.
  bool atEnd() noexcept;

 private:
  void stopDelivering() noexcept;

  std::string greeting_;
  std::vector<std::byte> pending_;
  size_t pending_start_ = 0;
  bool end_sent_ = false;
};

}  // namespace hull::vmm::virtio
