// Mutual TLS around a TCP connection, for the engine's remote clients: either end gets a local
// socket that carries the plain bytes, and a thread of the tunnel's own does the rest. TLS 1.2 or
// newer; both ends must show a certificate of the authority. Any thread.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/fd.h"

namespace hull {

// Docker's names: ca.pem, cert.pem, key.pem in one folder.
struct TlsFiles {
  std::string authority;
  std::string certificate;
  std::string key;
};
TlsFiles tlsFilesIn(const std::string& folder);

inline constexpr std::chrono::seconds kTlsHandshakeTimeout{10};

class TlsIdentity {
 public:
  enum class Role { kClient, kServer };
  // Throws kInvalidArgument naming the file that cannot be used.
  TlsIdentity(Role role, const TlsFiles& files);
  ~TlsIdentity();

  // Shakes hands on `connection` (blocking, bounded) and returns the local end of the tunnel, which
  // ends when either side does; half-closing it half-closes the connection. A client checks that
  // the peer's certificate is for `peer_name` (host name or address). Throws kForbidden when the
  // peer is not trusted, kUnavailable, kTimeout.
  Fd tunnel(Fd connection, const std::string& peer_name = {}) const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace hull
