#include "daemon/testing/local_socket.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <filesystem>
#include <thread>

#include "base/file.h"
#include "base/joined_sockets.h"
#include "guest-init/protocol/protocol.h"

namespace hull::engine::testing {

namespace {

// None when the host has gone.
Fd nextConnection(const Fd& listener, const Fd& host) {
  for (;;) {
    std::array<pollfd, 2> waiting{{{listener.get(), POLLIN, 0}, {host.get(), POLLIN, 0}}};
    if (poll(waiting.data(), waiting.size(), -1) < 0) continue;
    if (waiting[1].revents != 0) return {};
    Fd connection(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (connection) return connection;
  }
}

void relay(const Fd& listener, Fd host) {
  Fd connection = nextConnection(listener, host);
  if (!connection) return;
  send(host.get(), &guest::kConnected, 1, MSG_NOSIGNAL);
  EventLoop loop;
  const JoinedSockets joined(loop, std::move(host), std::move(connection), [&] { loop.stop(); });
  loop.run();
}

}  // namespace

LocalSocket::LocalSocket(const std::string& path) {
  makeDirectories(std::filesystem::path(path).parent_path().string());
  listener_ = std::make_shared<Fd>(listenUnix(path, 0660));
  setNonBlocking(listener_->get());
}

Fd LocalSocket::open() const {
  FdPair pair = makeSocketPair(SOCK_STREAM);
  std::thread([listener = listener_, host = std::move(pair.second)]() mutable {
    relay(*listener, std::move(host));
  }).detach();
  return std::move(pair.first);
}

}  // namespace hull::engine::testing
