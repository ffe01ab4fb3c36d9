// However a stream is cut, it holds the same messages, and none is beyond the bounds.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/ssh_agent.h"

namespace {

using namespace hull::ssh_agent;

std::vector<std::string> messagesOf(std::string_view stream, size_t piece, bool& broken) {
  std::vector<std::string> messages;
  Framer framer;
  for (size_t at = 0; at < stream.size() && !framer.broken(); at += piece) {
    framer.feed(stream.substr(at, piece));
    while (auto message = framer.next()) messages.push_back(std::move(*message));
  }
  broken = framer.broken();
  return messages;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view stream(reinterpret_cast<const char*>(data), size);
  bool broken = false, broken_in_pieces = false;
  const auto messages = messagesOf(stream, size + 1, broken);
  if (messages != messagesOf(stream, 3, broken_in_pieces) || broken != broken_in_pieces)
    std::abort();
  std::string again;
  for (const std::string& message : messages) {
    if (message.empty() || message.size() > kMaxMessageBytes) std::abort();
    if (mayPass(message) && message[0] != 11 && message[0] != 13) std::abort();
    again += framed(message);
  }
  if (stream.substr(0, again.size()) != again) std::abort();
  return 0;
}
