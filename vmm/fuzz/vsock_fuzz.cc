// vsock packets from a hostile guest, with two clients: one that reads, one that never does.
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/bytes.h"
#include "base/event_loop.h"
#include "base/fd.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/virtio/vsock/vsock.h"

namespace {

constexpr uint32_t kCid = 3;

// Listens on a name that the kernel chooses (autobind); gives it in `address`.
hull::Fd makeListener(sockaddr_un& address, socklen_t& length) {
  hull::Fd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  address.sun_family = AF_UNIX;
  length = sizeof(sa_family_t);
  if (bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length) < 0) abort();
  length = sizeof address;
  if (getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &length) < 0) abort();
  if (listen(listener.get(), 8) < 0) abort();
  return listener;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull;
  using namespace hull::vmm;
  using namespace hull::vmm::virtio::testing;
  sockaddr_un address{};
  socklen_t length = 0;
  const Fd listener = makeListener(address, length);
  GuestMemory memory(kTestMemoryBytes);
  FakeDriver to_guest(memory, 16, 0x10000);
  FakeDriver from_guest(memory, 16, 0x100000);
  FakeDriver events(memory, 16, 0x200000);
  FakeHost host;
  EventLoop loop;
  virtio::VsockDevice device({kCid, listener.get()}, loop);
  std::vector<virtio::Queue> queues;
  queues.push_back(to_guest.queue());
  queues.push_back(from_guest.queue());
  queues.push_back(events.queue());
  device.activate({memory, host, 0, std::move(queues)});

  std::array<Fd, 2> clients;
  for (Fd& client : clients) {
    client = Fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(client.get(), reinterpret_cast<sockaddr*>(&address), length) < 0) abort();
    writeFull(client.get(), "CONNECT 1000\nhello");
  }
  ByteReader in({reinterpret_cast<const char*>(data), size});
  for (int packets = 0; packets < 64 && in.ok() && !in.atEnd(); ++packets) {
    const uint8_t what = in.u8();
    if ((what & 1) != 0 && to_guest.usedIndex() % 16 < 8) {
      ChainBuilder(to_guest).writable(in.u16() % 4500).send();
    }
    virtio::PacketHeader header{};
    header.src_cid = (what & 2) != 0 ? in.u64() : kCid;
    header.dst_cid = virtio::kHostCid;
    header.src_port = (what & 4) != 0 ? in.u32() : 1000;
    header.dst_port = (what & 8) != 0 ? in.u32() : (1u << 30) + (what >> 7);
    header.type = in.u8() % 3;
    header.op = in.u8() % 10;
    header.flags = in.u8();
    header.len = (what & 16) != 0 ? in.u32() : in.u8();
    header.buf_alloc = in.u32();
    header.fwd_cnt = (what & 32) != 0 ? in.u32() : 0;
    ChainBuilder builder(from_guest);
    builder.readableValue(header);
    if (header.len > 0) builder.readable(std::string(std::min<uint32_t>(header.len, 9000), 'x'));
    builder.send();
    device.notify();
    loop.runOnce(std::chrono::milliseconds(0));
    char sink[4096];
    while (recv(clients[0].get(), sink, sizeof sink, MSG_DONTWAIT) > 0) {
    }
    if ((what & 64) != 0) shutdown(clients[1].get(), SHUT_WR);
    if (host.reset_reason) abort();  // the rings are in order
  }
  return 0;
}
