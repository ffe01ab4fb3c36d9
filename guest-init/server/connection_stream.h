// One connection to a socket in the guest that the host serves (OpenStream::Kind::kConnection):
// waits for somebody to connect, says so with one byte, and then joins the two. What is said is the
// host's affair. A stream of the StreamSet; the event loop's thread.
#pragma once

#include <optional>

#include "base/joined_sockets.h"
#include "guest-init/container/sockets.h"
#include "guest-init/server/streams.h"

namespace hull::guest {

class ConnectionStream final : public Stream {
 public:
  ConnectionStream(EventLoop& loop, Fd host, ListeningSocket& socket, StreamDone done);
  ~ConnectionStream() override;

 private:
  void connected(Fd client);
  void finish();

  EventLoop& loop_;
  Fd host_;
  ListeningSocket* socket_;  // while it waits
  uint64_t ticket_ = 0;
  StreamDone done_;
  std::optional<JoinedSockets> joined_;
};

}  // namespace hull::guest
