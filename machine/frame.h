// The frames that travel between the host's supervisor and the agent in the emulated machine, over
// one byte stream. A frame is a 12-byte little-endian header (type, three zero bytes, stream
// number, value) and, for kOpen and kData, `value` bytes of payload. The machine is on the other
// side of a trust boundary: the parser is bounded and never believes a length beyond
// kMaxPayloadBytes. One parser, one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace hull::machine {

inline constexpr size_t kFrameHeaderBytes = 12;
inline constexpr size_t kMaxPayloadBytes = 64 * 1024;

enum class FrameType : uint8_t {
  kOpen = 1,    // a new stream; payload: what it should reach (mux.h)
  kData = 2,    // payload: bytes, within the window
  kWindow = 3,  // value: bytes the sender of this frame has consumed
  kFin = 4,     // the sender writes no more
  kClose = 5,   // the sender writes no more and reads no more; what came before counts
  kReset = 6,   // the stream is dead; what is in flight is dropped
};

struct Frame {
  FrameType type = FrameType::kReset;
  uint32_t stream = 0;
  uint32_t value = 0;
  std::string_view payload;  // into the parser's buffer, until its next call
};

void appendFrame(std::string& out, FrameType type, uint32_t stream, uint32_t value);
void appendFrame(std::string& out, FrameType type, uint32_t stream, std::string_view payload);

// Bytes go in through space() and commit(), frames come out of next().
class FrameParser {
 public:
  FrameParser();
  std::span<std::byte> space();  // never empty
  void commit(size_t bytes);
  std::optional<Frame> next();  // nullopt: more bytes are needed, or failed()
  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }  // why; for good

 private:
  std::vector<char> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  std::string failure_;
};

}  // namespace hull::machine
