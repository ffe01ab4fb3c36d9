// The chunked framing of the protocol's tar streams: u32 size and that many bytes, repeated; size 0
// ends, followed by a u32-sized error text. Blocking sockets, in transfer processes; sendEnd also
// in hull-init itself, where the socket's buffer is known to be empty.
#pragma once

#include <string>
#include <string_view>

#include "base/stream.h"
#include "guest-init/protocol/protocol.h"

namespace hull::guest {

class ChunkSink final : public Sink {
 public:
  explicit ChunkSink(int socket) : socket_(socket) {}
  using Sink::write;
  void write(std::span<const std::byte> bytes) override;
  void flush();

 private:
  int socket_;
  std::string pending_;  // room for the size in front
};

class ChunkSource final : public Source {
 public:
  explicit ChunkSource(int socket) : socket_(socket) {}
  // Throws when the peer breaks off, sends an oversized chunk, or ends with an error.
  size_t read(std::span<std::byte> into) override;
  void drain();  // to the end

 private:
  uint32_t readSize();

  int socket_;
  uint32_t left_ = 0;
  bool ended_ = false;
};

void sendEnd(int socket, std::string_view error);

}  // namespace hull::guest
