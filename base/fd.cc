#include "base/fd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace hull {

namespace {

// sockaddr_un holds 108 bytes; a longer path is reached through an fd of its directory.
struct UnixAddress {
  sockaddr_un address{};
  Fd directory;

  explicit UnixAddress(const std::string& path) {
    address.sun_family = AF_UNIX;
    std::string usable = path;
    if (usable.size() >= sizeof address.sun_path) {
      const size_t slash = path.rfind('/');
      if (slash == std::string::npos) {
        throw Error(ErrorKind::kInvalidArgument, "unix socket " + path + ": name too long");
      }
      directory = openFile(path.substr(0, slash), O_PATH | O_DIRECTORY);
      usable = "/proc/self/fd/" + std::to_string(directory.get()) + path.substr(slash);
      if (usable.size() >= sizeof address.sun_path) {
        throw Error(ErrorKind::kInvalidArgument, "unix socket " + path + ": name too long");
      }
    }
    std::memcpy(address.sun_path, usable.c_str(), usable.size() + 1);
  }

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&address); }
};

}  // namespace

void Fd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Fd Fd::duplicate() const {
  const int copy = fcntl(fd_, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) throw sysError("duplicate file descriptor");
  return Fd(copy);
}

Fd openFile(const std::string& path, int flags, mode_t mode) {
  return openFileAt(AT_FDCWD, path, flags, mode);
}

Fd openFileAt(int directory, const std::string& name, int flags, mode_t mode) {
  int fd;
  do {
    fd = openat(directory, name.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) throw sysError("open " + name);
  return Fd(fd);
}

FdPair makePipe(int flags) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | flags) < 0) throw sysError("create pipe");
  return {Fd(ends[0]), Fd(ends[1])};
}

FdPair makeSocketPair(int type) {
  int ends[2];
  if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) < 0) throw sysError("create socket pair");
  return {Fd(ends[0]), Fd(ends[1])};
}

Fd makeMemfd(const std::string& name) {
  const int fd = memfd_create(name.c_str(), MFD_CLOEXEC);
  if (fd < 0) throw sysError("create memory file " + name);
  return Fd(fd);
}

void setNonBlocking(int fd, bool on) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0) throw sysError("read descriptor flags");
  if (fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) < 0) {
    throw sysError("set descriptor flags");
  }
}

Fd listenUnix(const std::string& path, mode_t mode, int backlog) {
  Fd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!listener) throw sysError("create socket");
  const UnixAddress address(path);
  ::unlink(path.c_str());
  // The mode set on the socket before bind is the mode of the file: no window with a wider one.
  fchmod(listener.get(), mode);
  if (bind(listener.get(), address.get(), sizeof(sockaddr_un)) < 0) {
    throw sysError("bind unix socket " + path);
  }
  if (chmod(path.c_str(), mode) < 0) throw sysError("set mode of unix socket " + path);
  if (listen(listener.get(), backlog) < 0) throw sysError("listen on unix socket " + path);
  return listener;
}

Fd connectUnix(const std::string& path) {
  Fd client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!client) throw sysError("create socket");
  const UnixAddress address(path);
  int result;
  do {
    result = connect(client.get(), address.get(), sizeof(sockaddr_un));
  } while (result < 0 && errno == EINTR);
  if (result < 0) throw sysError("connect to unix socket " + path);
  return client;
}

size_t readSome(int fd, std::span<std::byte> into) {
  for (;;) {
    const ssize_t got = ::read(fd, into.data(), into.size());
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) throw sysError("read");
  }
}

size_t readFull(int fd, std::span<std::byte> into) {
  size_t done = 0;
  while (done < into.size()) {
    const size_t got = readSome(fd, into.subspan(done));
    if (got == 0) break;
    done += got;
  }
  return done;
}

void writeFull(int fd, std::span<const std::byte> from) {
  while (!from.empty()) {
    const ssize_t put = ::write(fd, from.data(), from.size());
    if (put < 0) {
      if (errno == EINTR) continue;
      throw sysError("write");
    }
    from = from.subspan(static_cast<size_t>(put));
  }
}

void writeFull(int fd, std::string_view text) {
  writeFull(fd, asBytes(text));
}

size_t preadFull(int fd, std::span<std::byte> into, uint64_t offset) {
  size_t done = 0;
  while (done < into.size()) {
    const ssize_t got =
        ::pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (got < 0) {
      if (errno == EINTR) continue;
      throw sysError("read");
    }
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return done;
}

void pwriteFull(int fd, std::span<const std::byte> from, uint64_t offset) {
  size_t done = 0;
  while (done < from.size()) {
    const ssize_t put =
        ::pwrite(fd, from.data() + done, from.size() - done, static_cast<off_t>(offset + done));
    if (put < 0) {
      if (errno == EINTR) continue;
      throw sysError("write");
    }
    done += static_cast<size_t>(put);
  }
}

uint64_t fileSize(int fd) {
  struct stat info;
  if (fstat(fd, &info) < 0) throw sysError("read file size");
  return static_cast<uint64_t>(info.st_size);
}

void sendWithFds(int socket, std::span<const std::byte> bytes, std::span<const int> fds) {
  if (fds.size() > kMaxPassedFds) throw Error(ErrorKind::kTooLarge, "pass descriptors: too many");
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxPassedFds)] = {};
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
    std::memcpy(CMSG_DATA(header), fds.data(), sizeof(int) * fds.size());
  }
  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) throw sysError("pass descriptors");
  if (static_cast<size_t>(sent) < bytes.size())
    writeFull(socket, bytes.subspan(static_cast<size_t>(sent)));
}

ReceivedFds receiveWithFds(int socket, std::span<std::byte> into) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxPassedFds)] = {};
  iovec part{into.data(), into.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got;
  do {
    got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) throw sysError("receive descriptors");
  ReceivedFds received;
  received.bytes = static_cast<size_t>(got);
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      received.fds.emplace_back(fd);
    }
  }
  return received;
}

}  // namespace hull
