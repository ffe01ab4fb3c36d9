// A tap interface for tests, with a packet socket as the other end of the wire. Needs /dev/net/tun
// and the right to use it; missing() says why there is none. Test code; one thread.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <span>
#include <stdexcept>
#include <string>

#include "base/fd.h"
#include "vmm/virtio/net/frame.h"

namespace hull::vmm::virtio::testing {

class TestTap {
 public:
  static constexpr uint16_t kProtocol = 0x88b5;  // IEEE 802, local experiments

  TestTap() : missing_(open()) {}

  const std::string& missing() const { return missing_; }  // empty: it is there
  int tap() const { return tap_.get(); }

  static std::string frame(const MacAddress& source, size_t payload) {
    std::string text(6, '\xff');
    text.append(reinterpret_cast<const char*>(source.data()), source.size());
    text += "\x88\xb5";
    for (size_t i = 0; i < payload; ++i) text.push_back(static_cast<char>('a' + i % 26));
    return text;
  }
  // From the host to the guest.
  void send(const std::string& frame) {
    if (::send(socket_.get(), frame.data(), frame.size(), 0) !=
        static_cast<ssize_t>(frame.size())) {
      throw std::logic_error("send a frame to the test's tap");
    }
  }
  // The next frame from the guest; empty: none.
  std::string received() {
    std::string text(4096, '\0');
    const ssize_t got = recv(socket_.get(), text.data(), text.size(), MSG_DONTWAIT);
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return text;
  }

 private:
  std::string open() {
    tap_ = Fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    if (!tap_) return "no /dev/net/tun";
    ifreq request{};
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if (ioctl(tap_.get(), TUNSETIFF, &request) < 0) return "may not make a tap";
    socket_ = Fd(socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(kProtocol)));
    if (!socket_) return "may not open a packet socket";
    silenceHost(request.ifr_name);
    request.ifr_flags = IFF_UP;
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(kProtocol);
    if (ioctl(socket_.get(), SIOCSIFFLAGS, &request) < 0 ||
        ioctl(socket_.get(), SIOCGIFINDEX, &request) < 0) {
      throw std::logic_error("set up the test's tap");
    }
    address.sll_ifindex = request.ifr_ifindex;
    if (bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) {
      throw std::logic_error("bind the test's packet socket");
    }
    return {};
  }
  // The host's IPv6 would greet its neighbours on the new interface and use up buffers of the test.
  static void silenceHost(const std::string& interface) {
    const Fd setting(::open(("/proc/sys/net/ipv6/conf/" + interface + "/disable_ipv6").c_str(),
                            O_WRONLY | O_CLOEXEC));
    if (setting) writeFull(setting.get(), "1");
  }

  Fd tap_;
  Fd socket_;
  std::string missing_;  // last: open() fills the others
};

}  // namespace hull::vmm::virtio::testing
