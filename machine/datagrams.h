// Datagrams over a stream of the mux, both ways: each travels as its length (16 bits, little
// endian) and its bytes. One stream is one conversation: on the host each sender to a published UDP
// port has one, in the machine a socket connected to the target. A datagram for which a stream has
// no room is lost, as datagrams may be. One thread, that of the mux's event loop.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/udp_relay.h"
#include "machine/mux.h"

namespace hull::machine {

// Conversations leave this many streams to everything else.
inline constexpr size_t kStreamsKeptFromDatagrams = kMaxStreams / 2;

// A conversation over a stream of its own to `target` ("udp:127.0.0.1:49153"); null when there are
// too many streams.
std::unique_ptr<UdpRelay::Conversation> converseOver(Mux& mux, const std::string& target,
                                                     UdpRelay::Answer answer);

// Serves a stream that converseOver opened: its datagrams go to `target` ("127.0.0.1:49153").
// Throws kInvalidArgument for what is no address, kUnavailable when there can be no socket.
std::shared_ptr<StreamEvents> serveDatagrams(EventLoop& loop, Mux& mux, uint32_t stream,
                                             std::string_view target);

}  // namespace hull::machine
