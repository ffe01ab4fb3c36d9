#include "machine/frame.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace hull::machine {

namespace {
// One whole frame and as much again, so that a read is large even when a frame is incomplete.
constexpr size_t kBufferBytes = 2 * (kFrameHeaderBytes + kMaxPayloadBytes);

bool hasPayload(FrameType type) {
  return type == FrameType::kOpen || type == FrameType::kData;
}

void appendHeader(std::string& out, FrameType type, uint32_t stream, uint32_t value) {
  const uint32_t numbers[3] = {static_cast<uint32_t>(type), stream, value};
  out.append(reinterpret_cast<const char*>(numbers), sizeof numbers);
}
}  // namespace

void appendFrame(std::string& out, FrameType type, uint32_t stream, uint32_t value) {
  appendHeader(out, type, stream, value);
}

void appendFrame(std::string& out, FrameType type, uint32_t stream, std::string_view payload) {
  appendHeader(out, type, stream, static_cast<uint32_t>(payload.size()));
  out.append(payload);
}

FrameParser::FrameParser() : buffer_(kBufferBytes) {}

std::span<std::byte> FrameParser::space() {
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  return std::as_writable_bytes(std::span(buffer_).subspan(end_));
}

void FrameParser::commit(size_t bytes) {
  end_ += std::min(bytes, buffer_.size() - end_);
}

std::optional<Frame> FrameParser::next() {
  if (failed() || end_ - begin_ < kFrameHeaderBytes) return std::nullopt;
  ByteReader header({buffer_.data() + begin_, kFrameHeaderBytes});
  const uint32_t type = header.u32();
  Frame frame;
  frame.stream = header.u32();
  frame.value = header.u32();
  if (type < static_cast<uint32_t>(FrameType::kOpen) ||
      type > static_cast<uint32_t>(FrameType::kReset)) {
    failure_ = "unknown frame type " + std::to_string(type);
    return std::nullopt;
  }
  frame.type = static_cast<FrameType>(type);
  if (!hasPayload(frame.type)) {
    begin_ += kFrameHeaderBytes;
    return frame;
  }
  if (frame.value > kMaxPayloadBytes) {
    failure_ = "frame of " + std::to_string(frame.value) + " bytes";
    return std::nullopt;
  }
  if (end_ - begin_ < kFrameHeaderBytes + frame.value) return std::nullopt;
  frame.payload = {buffer_.data() + begin_ + kFrameHeaderBytes, frame.value};
  begin_ += kFrameHeaderBytes + frame.value;
  return frame;
}

}  // namespace hull::machine
