// Running a command inside the machine over one stream. The request is JSON in the stream's name
// ("exec:" + request); the command's input goes up as plain bytes (fin ends it); what comes down is
// a row of messages: a byte (channel), a 32-bit little-endian length, that many bytes. The parser
// is the host's end and bounded. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "machine/mux.h"

namespace hull::machine {

struct ExecRequest {
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // "K=V", added to the machine's own
  std::string working_directory;         // empty: /root
};

std::string encodeExecRequest(const ExecRequest& request);
ExecRequest decodeExecRequest(std::string_view text);  // throws kInvalidArgument

enum class ExecChannel : uint8_t {
  kOutput = 1,
  kErrors = 2,
  kExit = 3,     // four bytes: the exit status; last
  kFailure = 4,  // text: it could not be started; last
};
inline constexpr size_t kExecHeaderBytes = 5;

void appendExecMessage(std::string& out, ExecChannel channel, std::string_view payload);

// Reads messages out of a byte stream; output is passed on in pieces as it comes.
class ExecParser {
 public:
  using Piece = std::function<void(ExecChannel channel, std::string_view bytes)>;
  explicit ExecParser(Piece piece) : piece_(std::move(piece)) {}
  bool feed(std::string_view bytes);  // false: not the protocol, or more after the end
  std::optional<int> status() const { return status_; }
  const std::string& failure() const { return failure_; }

 private:
  bool endMessage();

  Piece piece_;
  std::string header_;
  std::string short_payload_;  // of kExit and kFailure
  uint32_t left_ = 0;
  bool ended_ = false;
  std::optional<int> status_;
  std::string failure_;
};

// The machine's end: starts the command for `stream`. Never throws: a command that cannot be
// started is a kFailure message.
std::shared_ptr<StreamEvents> serveExec(EventLoop& loop, Mux& mux, uint32_t stream,
                                        std::string_view request);

}  // namespace hull::machine
