// What a hostile vhost-user back end says, byte for byte, to each question the front end asks.
#include <sys/socket.h>

#include <cstdlib>

#include "base/fd.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/virtio/fs/vhost_user.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull;
  using namespace hull::vmm;
  using namespace std::chrono_literals;
  constexpr size_t kMaxInputBytes = 4096;  // fits the socket's buffer
  if (size > kMaxInputBytes) return 0;
  const auto pair = makeSocketPair(SOCK_STREAM);
  writeFull(pair.second.get(), std::as_bytes(std::span(data, size)));
  shutdown(pair.second.get(), SHUT_WR);  // the end of the input is the back end's

  static const GuestMemory memory(virtio::testing::kTestMemoryBytes, GuestMemory::Sharing::kShared);
  virtio::VhostUserClient client(pair.first.get(), 1s);
  const bool up = client.greet(2) && client.setFeatures(client.features()) &&
                  client.setMemory(memory) &&
                  client.startQueue(0, {16, 0x1000, 0x2000, 0x3000}, {}, {0, 0}) &&
                  client.stopQueue(0).has_value();
  if (up == client.failed()) abort();
  if (client.failed() == client.failure().empty()) abort();
  return 0;
}
