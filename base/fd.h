// File descriptors and the few system calls on them that everything uses. An Fd is the one owner
// of its descriptor; every descriptor made here is CLOEXEC from birth. Any thread; an Fd itself is
// not shared between threads without care.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hull {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  explicit operator bool() const { return valid(); }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);
  Fd duplicate() const;  // CLOEXEC; throws

 private:
  int fd_ = -1;
};

struct FdPair {
  Fd first;   // pipe: the read end
  Fd second;  // pipe: the write end
};

// All throw hull::Error naming `path` on failure.
Fd openFile(const std::string& path, int flags, mode_t mode = 0644);
Fd openFileAt(int directory, const std::string& name, int flags, mode_t mode = 0644);
FdPair makePipe(int flags = 0);   // flags: O_NONBLOCK
FdPair makeSocketPair(int type);  // AF_UNIX; type: SOCK_STREAM | SOCK_NONBLOCK …
Fd makeMemfd(const std::string& name);
void setNonBlocking(int fd, bool on = true);

// Unix stream sockets. `path` up to 107 bytes; longer paths go through /proc/self/fd of the
// directory, so any length works.
Fd listenUnix(const std::string& path, mode_t mode = 0600, int backlog = 128);
Fd connectUnix(const std::string& path);

// Loops over EINTR and short transfers. readFull returns less than asked only at end of file.
size_t readSome(int fd, std::span<std::byte> into);  // 0 at end of file
size_t readFull(int fd, std::span<std::byte> into);
void writeFull(int fd, std::span<const std::byte> from);
void writeFull(int fd, std::string_view text);
size_t preadFull(int fd, std::span<std::byte> into, uint64_t offset);
void pwriteFull(int fd, std::span<const std::byte> from, uint64_t offset);
uint64_t fileSize(int fd);

// SCM_RIGHTS over a unix socket with one message: at most kMaxPassedFds descriptors.
inline constexpr size_t kMaxPassedFds = 64;
void sendWithFds(int socket, std::span<const std::byte> bytes, std::span<const int> fds);
struct ReceivedFds {
  size_t bytes = 0;  // 0: the peer closed
  std::vector<Fd> fds;
};
ReceivedFds receiveWithFds(int socket, std::span<std::byte> into);

inline std::span<const std::byte> asBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace hull
