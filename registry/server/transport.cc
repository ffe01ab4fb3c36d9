#include "registry/server/transport.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "base/error.h"
#include "base/stream.h"

namespace hull::registry {

namespace {

constexpr uint64_t kMaxSendfileBytes = uint64_t{1} << 30;  // of one call
constexpr std::chrono::milliseconds kLingerLimit{2000};
constexpr size_t kMaxLingerBytes = size_t{64} << 20;

struct SslDeleter {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};

std::string sslErrors() {
  std::string text;
  while (const unsigned long number = ERR_get_error()) {
    char line[256];
    ERR_error_string_n(number, line, sizeof line);
    if (text.empty()) text = line;  // the first one is the cause
  }
  return text.empty() ? "the peer closed the connection" : text;
}

class PlainTransport final : public Transport {
 public:
  using Transport::Transport;
  using Transport::write;

  size_t read(std::span<std::byte> into) override {
    while (true) {
      const ssize_t got = ::recv(fd(), into.data(), into.size(), MSG_DONTWAIT);
      if (got >= 0) return static_cast<size_t>(got);
      if (errno == EINTR) continue;
      if (errno != EAGAIN) throw sysError("receive");
      wait(POLLIN);
    }
  }

  void write(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent >= 0) {
        bytes = bytes.subspan(static_cast<size_t>(sent));
      } else if (errno == EAGAIN) {
        wait(POLLOUT);
      } else if (errno != EINTR) {
        throw sysError("send");
      }
    }
  }

  void sendFile(int file, uint64_t offset, uint64_t length) override {
    auto at = static_cast<off_t>(offset);
    while (length > 0) {
      const ssize_t sent =
          ::sendfile(fd(), file, &at, static_cast<size_t>(std::min(length, kMaxSendfileBytes)));
      if (sent > 0) {
        length -= static_cast<uint64_t>(sent);
      } else if (sent == 0) {
        throw Error(ErrorKind::kCorrupt, "send: the file is shorter than it was");
      } else if (errno == EAGAIN) {
        wait(POLLOUT);
      } else if (errno != EINTR) {
        throw sysError("send");
      }
    }
  }
};

}  // namespace

struct TlsContext::State {
  SSL_CTX* context = SSL_CTX_new(TLS_server_method());
  ~State() { SSL_CTX_free(context); }
};

namespace {

class TlsTransport final : public Transport {
 public:
  TlsTransport(int socket, std::chrono::milliseconds limit, SSL_CTX* context)
      : Transport(socket, limit), ssl_(SSL_new(context)) {
    if (!ssl_ || SSL_set_fd(ssl_.get(), fd()) != 1) {
      throw Error(ErrorKind::kInternal, "start TLS: " + sslErrors());
    }
    repeat("TLS handshake", [&] { return SSL_accept(ssl_.get()); });
  }
  using Transport::write;

  size_t read(std::span<std::byte> into) override {
    const int size = static_cast<int>(std::min<size_t>(into.size(), INT_MAX));
    return repeat("receive", [&] { return SSL_read(ssl_.get(), into.data(), size); });
  }

  void write(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const int size = static_cast<int>(std::min<size_t>(bytes.size(), kStreamChunkBytes));
      const size_t sent = repeat("send", [&] { return SSL_write(ssl_.get(), bytes.data(), size); });
      if (sent == 0) throw Error(ErrorKind::kUnavailable, "send: the peer closed the connection");
      bytes = bytes.subspan(sent);
    }
  }

 protected:
  void sayGoodbye() override { SSL_shutdown(ssl_.get()); }

 private:
  template <typename Call>
  size_t repeat(const char* what, Call call) {
    while (true) {
      ERR_clear_error();
      const int result = call();
      if (result > 0) return static_cast<size_t>(result);
      switch (SSL_get_error(ssl_.get(), result)) {
        case SSL_ERROR_WANT_READ:
          wait(POLLIN);
          break;
        case SSL_ERROR_WANT_WRITE:
          wait(POLLOUT);
          break;
        case SSL_ERROR_ZERO_RETURN:
          return 0;
        default:
          throw Error(ErrorKind::kUnavailable, std::string(what) + ": " + sslErrors());
      }
    }
  }

  std::unique_ptr<SSL, SslDeleter> ssl_;
};

}  // namespace

Transport::Transport(int socket, std::chrono::milliseconds limit) : socket_(socket), limit_(limit) {
  setNonBlocking(socket_);
}

void Transport::wait(short events) {
  auto left = limit_;
  if (deadline_) {
    left = std::min(
        left, std::chrono::duration_cast<std::chrono::milliseconds>(*deadline_ - Clock::now()));
  }
  pollfd entry{socket_, events, 0};
  const int ready = left.count() > 0 ? ::poll(&entry, 1, static_cast<int>(left.count())) : 0;
  if (ready < 0 && errno != EINTR) throw sysError("wait for the peer");
  if (ready == 0) throw Error(ErrorKind::kTimeout, "the peer is silent");
}

void Transport::sendFile(int file, uint64_t offset, uint64_t length) {
  std::vector<std::byte> buffer(static_cast<size_t>(std::min<uint64_t>(length, kStreamChunkBytes)));
  while (length > 0) {
    const size_t size = static_cast<size_t>(std::min<uint64_t>(length, buffer.size()));
    if (preadFull(file, std::span(buffer).first(size), offset) != size) {
      throw Error(ErrorKind::kCorrupt, "send: the file is shorter than it was");
    }
    write(std::span<const std::byte>(buffer).first(size));
    offset += size;
    length -= size;
  }
}

void Transport::finish() {
  sayGoodbye();
  ::shutdown(socket_, SHUT_WR);
  // Closing with unread bytes would send a reset, which can destroy our answer on its way.
  limit_ = kLingerLimit;
  setDeadline(Clock::now() + kLingerLimit);
  std::array<std::byte, 16384> rest;
  for (size_t total = 0; total < kMaxLingerBytes;) {
    const ssize_t got = ::recv(socket_, rest.data(), rest.size(), MSG_DONTWAIT);
    if (got > 0) {
      total += static_cast<size_t>(got);
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      return;
    } else {
      wait(POLLIN);
    }
  }
}

namespace {

std::shared_ptr<TlsContext::State> readTls(const std::string& certificate_file,
                                           const std::string& key_file) {
  auto state = std::make_shared<TlsContext::State>();
  SSL_CTX* context = state->context;
  if (!context) throw Error(ErrorKind::kInternal, "start TLS: " + sslErrors());
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_mode(context, SSL_MODE_AUTO_RETRY | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                SSL_MODE_RELEASE_BUFFERS);
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(context, certificate_file.c_str()) != 1) {
    throw Error(ErrorKind::kInvalidArgument,
                "read certificate " + certificate_file + ": " + sslErrors());
  }
  if (SSL_CTX_use_PrivateKey_file(context, key_file.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(context) != 1) {
    throw Error(ErrorKind::kInvalidArgument, "read private key " + key_file + ": " + sslErrors());
  }
  return state;
}

}  // namespace

TlsContext::TlsContext(const std::string& certificate_file, const std::string& key_file)
    : state_(readTls(certificate_file, key_file)) {}

TlsContext::~TlsContext() = default;

void TlsContext::reload(const std::string& certificate_file, const std::string& key_file) {
  auto fresh = readTls(certificate_file, key_file);
  const std::lock_guard lock(mutex_);
  state_ = std::move(fresh);
}

std::shared_ptr<TlsContext::State> TlsContext::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

std::unique_ptr<Transport> makePlainTransport(int socket, std::chrono::milliseconds limit) {
  return std::make_unique<PlainTransport>(socket, limit);
}

std::unique_ptr<Transport> makeTlsTransport(int socket, std::chrono::milliseconds limit,
                                            const TlsContext& context) {
  // SSL_new() takes a reference of its own.
  return std::make_unique<TlsTransport>(socket, limit, context.state()->context);
}

}  // namespace hull::registry
