#include "base/tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <thread>

#include "base/error.h"

namespace hull {

namespace {

constexpr size_t kTunnelBytes = 32 * 1024;  // each way, between the two sockets

std::string sslError() {
  const unsigned long code = ERR_get_error();
  if (code == 0) return "connection closed";
  std::array<char, 256> text{};
  ERR_error_string_n(code, text.data(), text.size());
  ERR_clear_error();
  // "error:0A000086:SSL routines::certificate verify failed" → its last part.
  const std::string whole = text.data();
  const size_t colon = whole.rfind(':');
  return colon == std::string::npos ? whole : whole.substr(colon + 1);
}

using Ssl = std::unique_ptr<SSL, decltype(&SSL_free)>;

bool waitReady(int fd, short events, std::chrono::steady_clock::time_point until) {
  using namespace std::chrono;
  const auto left = duration_cast<milliseconds>(until - steady_clock::now()).count();
  pollfd waiting{fd, events, 0};
  return left > 0 && poll(&waiting, 1, static_cast<int>(left)) > 0;
}

void shakeHands(SSL* ssl, int fd) {
  const auto until = std::chrono::steady_clock::now() + kTlsHandshakeTimeout;
  for (;;) {
    const int done = SSL_do_handshake(ssl);
    if (done == 1) return;
    const int cause = SSL_get_error(ssl, done);
    if (cause == SSL_ERROR_WANT_READ || cause == SSL_ERROR_WANT_WRITE) {
      if (waitReady(fd, cause == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, until)) continue;
      throw Error(ErrorKind::kTimeout, "TLS handshake: the peer does not answer");
    }
    const long verdict = SSL_get_verify_result(ssl);
    throw Error(ErrorKind::kForbidden,
                "TLS handshake: " + (verdict != X509_V_OK
                                         ? std::string(X509_verify_cert_error_string(verdict))
                                         : sslError()));
  }
}

// One direction's bytes on their way.
struct Stage {
  std::array<char, kTunnelBytes> bytes;
  size_t begin = 0, end = 0;
  bool ended = false;       // nothing more comes in
  bool end_passed = false;  // and the other side knows

  bool empty() const { return begin == end; }
  bool done() const { return end_passed; }
};

// Plain bytes on `local`, TLS on `remote`; lives in a thread of its own.
class Tunnel {
 public:
  Tunnel(Ssl ssl, Fd remote, Fd local)
      : ssl_(std::move(ssl)), remote_(std::move(remote)), local_(std::move(local)) {}

  void run() {
    while (!failed_ && !(outgoing_.done() && incoming_.done())) {
      remote_wants_ = 0;
      while (!failed_ && step()) {
      }
      if (failed_ || (outgoing_.done() && incoming_.done())) break;
      wait();
    }
  }

 private:
  bool step() {
    bool moved = readLocal();
    moved = writeRemote() || moved;
    moved = readRemote() || moved;
    return writeLocal() || moved;
  }

  bool readLocal() {
    if (outgoing_.ended || !outgoing_.empty()) return false;
    const ssize_t got =
        recv(local_.get(), outgoing_.bytes.data(), outgoing_.bytes.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
    outgoing_.begin = 0;
    outgoing_.end = got > 0 ? static_cast<size_t>(got) : 0;
    outgoing_.ended = got <= 0;
    return true;
  }

  bool writeRemote() {
    if (outgoing_.empty()) {
      if (!outgoing_.ended || outgoing_.end_passed) return false;
      SSL_shutdown(ssl_.get());
      shutdown(remote_.get(), SHUT_WR);
      outgoing_.end_passed = true;
      return true;
    }
    const int put = SSL_write(ssl_.get(), outgoing_.bytes.data() + outgoing_.begin,
                              static_cast<int>(outgoing_.end - outgoing_.begin));
    if (put > 0) {
      outgoing_.begin += static_cast<size_t>(put);
      return true;
    }
    return note(put);
  }

  bool readRemote() {
    if (incoming_.ended || !incoming_.empty()) return false;
    const int got =
        SSL_read(ssl_.get(), incoming_.bytes.data(), static_cast<int>(incoming_.bytes.size()));
    if (got > 0) {
      incoming_.begin = 0;
      incoming_.end = static_cast<size_t>(got);
      return true;
    }
    const int cause = SSL_get_error(ssl_.get(), got);
    if (cause == SSL_ERROR_WANT_READ || cause == SSL_ERROR_WANT_WRITE) return note(got);
    ERR_clear_error();
    incoming_.ended = true;
    return true;
  }

  bool writeLocal() {
    if (incoming_.empty()) {
      if (!incoming_.ended || incoming_.end_passed) return false;
      shutdown(local_.get(), SHUT_WR);
      incoming_.end_passed = true;
      return true;
    }
    const ssize_t put = send(local_.get(), incoming_.bytes.data() + incoming_.begin,
                             incoming_.end - incoming_.begin, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (put > 0) incoming_.begin += static_cast<size_t>(put);
    if (put < 0 && errno != EAGAIN && errno != EINTR) failed_ = true;  // nobody reads any more
    return put > 0;
  }

  // What the engine of TLS waits for; other failures are the end.
  bool note(int result) {
    const int cause = SSL_get_error(ssl_.get(), result);
    if (cause == SSL_ERROR_WANT_READ) {
      remote_wants_ |= POLLIN;
    } else if (cause == SSL_ERROR_WANT_WRITE) {
      remote_wants_ |= POLLOUT;
    } else {
      ERR_clear_error();
      failed_ = true;
    }
    return false;
  }

  void wait() {
    short local_wants = 0;
    if (!outgoing_.ended && outgoing_.empty()) local_wants |= POLLIN;
    if (!incoming_.empty()) local_wants |= POLLOUT;
    std::array<pollfd, 2> waiting{{{local_wants != 0 ? local_.get() : -1, local_wants, 0},
                                   {remote_wants_ != 0 ? remote_.get() : -1, remote_wants_, 0}}};
    if (poll(waiting.data(), waiting.size(), -1) < 0 && errno != EINTR) failed_ = true;
  }

  Ssl ssl_;
  Fd remote_;
  Fd local_;
  Stage outgoing_, incoming_;
  short remote_wants_ = 0;
  bool failed_ = false;
};

}  // namespace

struct TlsIdentity::Impl {
  Role role;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context{nullptr, SSL_CTX_free};
};

TlsFiles tlsFilesIn(const std::string& folder) {
  return {folder + "/ca.pem", folder + "/cert.pem", folder + "/key.pem"};
}

TlsIdentity::TlsIdentity(Role role, const TlsFiles& files) : impl_(std::make_shared<Impl>()) {
  impl_->role = role;
  impl_->context.reset(
      SSL_CTX_new(role == Role::kServer ? TLS_server_method() : TLS_client_method()));
  SSL_CTX* context = impl_->context.get();
  if (!context) throw Error(ErrorKind::kInternal, "set up TLS: " + sslError());
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  const auto use = [](int result, const std::string& path) {
    if (result == 1) return;
    throw Error(ErrorKind::kInvalidArgument, "use " + path + " for TLS: " + sslError());
  };
  use(SSL_CTX_load_verify_file(context, files.authority.c_str()), files.authority);
  use(SSL_CTX_use_certificate_chain_file(context, files.certificate.c_str()), files.certificate);
  use(SSL_CTX_use_PrivateKey_file(context, files.key.c_str(), SSL_FILETYPE_PEM), files.key);
  use(SSL_CTX_check_private_key(context), files.key);
  if (role == Role::kServer) {
    SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(files.authority.c_str()));
  }
}

TlsIdentity::~TlsIdentity() = default;

Fd TlsIdentity::tunnel(Fd connection, const std::string& peer_name) const {
  setNonBlocking(connection.get());
  Ssl ssl(SSL_new(impl_->context.get()), SSL_free);
  if (!ssl || SSL_set_fd(ssl.get(), connection.get()) != 1) {
    throw Error(ErrorKind::kInternal, "set up TLS: " + sslError());
  }
  if (impl_->role == Role::kServer) {
    SSL_set_accept_state(ssl.get());
  } else {
    SSL_set_connect_state(ssl.get());
    in6_addr ignored;
    const bool address = inet_pton(AF_INET, peer_name.c_str(), &ignored) == 1 ||
                         inet_pton(AF_INET6, peer_name.c_str(), &ignored) == 1;
    if (address) {
      X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl.get()), peer_name.c_str());
    } else {
      // The macro for it has a cast of the old style.
      SSL_ctrl(ssl.get(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
               const_cast<char*>(peer_name.c_str()));
      SSL_set1_host(ssl.get(), peer_name.c_str());
    }
  }
  shakeHands(ssl.get(), connection.get());
  FdPair pair = makeSocketPair(SOCK_STREAM);
  // Keeps the identity: it may outlive the object that made it.
  std::thread([impl = impl_,
               tunnel = std::make_unique<Tunnel>(std::move(ssl), std::move(connection),
                                                 std::move(pair.second))]() mutable {
    tunnel->run();
    tunnel.reset();
  }).detach();
  return std::move(pair.first);
}

}  // namespace hull
