// The part of the server that turns an OpenStream frame into a running stream.

#include <sys/socket.h>

#include "base/error.h"
#include "guest-init/server/connection_stream.h"
#include "guest-init/server/server.h"
#include "guest-init/server/tree_transfers.h"

namespace hull::guest {

namespace {

// The first bytes on the connection: they always fit its buffer.
bool answer(int socket, const Frame& frame, Message message) {
  const std::string bytes = encode({frame.request, frame.container, std::move(message)});
  return send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(bytes.size());
}

void checkOffset(const RetainedOutput& retained, uint64_t offset) {
  if (offset >= retained.begin() && offset <= retained.end()) return;
  throw Error(ErrorKind::kInvalidArgument,
              "open stream: offset " + std::to_string(offset) + " is not within what is kept (" +
                  std::to_string(retained.begin()) + " to " + std::to_string(retained.end()) + ")");
}

}  // namespace

void Server::openStream(Fd socket, const Frame& frame) {
  const auto& request = std::get<OpenStream>(frame.message);
  // Those below take the socket only when they cannot fail any more.
  const Fd spare = socket.duplicate();
  try {
    if (powering_off_) throw Error(ErrorKind::kConflict, "the machine is powering off");
    if (request.kind <= OpenStream::Kind::kStderr) {
      startStdio(std::move(socket), frame, request);
    } else if (request.kind == OpenStream::Kind::kConnection) {
      startConnection(std::move(socket), frame, request);
    } else {
      startTransfer(std::move(socket), frame, request);
    }
  } catch (const Error& error) {
    answer(spare.get(), frame, Failure{failureCodeOf(error.kind()), error.what()});
  }
}

void Server::startStdio(Fd socket, const Frame& frame, const OpenStream& request) {
  const Process& process = container(frame.container).process(request.process);
  if (request.kind == OpenStream::Kind::kStdin) {
    if (process.input->closed()) throw Error(ErrorKind::kConflict, "open stream: input is closed");
    if (!answer(socket.get(), frame, Ok{})) return;
    return streams_.add([&](StreamDone done) {
      return std::make_unique<InputStream>(loop_, std::move(socket), process.input,
                                           std::move(done));
    });
  }
  const auto& channel = request.kind == OpenStream::Kind::kStdout ? process.output : process.errors;
  checkOffset(channel->retained(), request.offset);
  if (!answer(socket.get(), frame, Ok{})) return;
  streams_.add([&](StreamDone done) {
    return std::make_unique<OutputStream>(loop_, std::move(socket), channel, request.offset,
                                          std::move(done));
  });
}

void Server::startConnection(Fd socket, const Frame& frame, const OpenStream& request) {
  if (streams_.full()) throw Error(ErrorKind::kTooLarge, "open stream: too many streams");
  ListeningSocket& listening = container(frame.container).sockets().get(request.path);
  if (!answer(socket.get(), frame, Ok{})) return;
  streams_.add([&](StreamDone done) {
    return std::make_unique<ConnectionStream>(loop_, std::move(socket), listening, std::move(done));
  });
}

void Server::startTransfer(Fd socket, const Frame& frame, const OpenStream& request) {
  Container& which = container(frame.container);
  if (request.kind == OpenStream::Kind::kWriteLayer) requireIdle(which, "write layer");
  auto transfer = makeTreeTransfer(which, frame, request, std::move(socket));
  const pid_t pid = transfer->pid();
  transfers_[pid] = std::move(transfer);
}

}  // namespace hull::guest
