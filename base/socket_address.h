// A socket address of IPv4 or IPv6, as value. Any thread.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>

namespace hull {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  // Numeric only ("127.0.0.53", "fe80::1%eth0"); nullopt when it is none.
  static std::optional<SocketAddress> parse(const std::string& host, uint16_t port);
  // Of a socket (getsockname).
  static SocketAddress local(int fd);

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
  uint16_t port() const;
  uint32_t ipv4() const;  // host byte order; 0 for another family
};

}  // namespace hull
