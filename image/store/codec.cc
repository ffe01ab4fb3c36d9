#include "image/store/codec.h"

#include <isa-l/igzip_lib.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "base/error.h"

namespace hull::image {

namespace {

constexpr int kMaxZstdWindowLog = 27;  // 128 MiB; what zstd itself allows without --long
constexpr size_t kGzipInputBytes = 256 * 1024;
constexpr size_t kGzipOutputBytes = 256 * 1024;

[[noreturn]] void corrupt(const std::string& why) {
  throw Error(ErrorKind::kCorrupt, "unpack: " + why);
}

uint8_t* pointer(std::span<const std::byte> bytes) {
  // ISA-L takes its input through a pointer to non-const and does not write to it.
  return const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(bytes.data()));
}

class PlainDecoder final : public Decoder {
 public:
  size_t decode(std::span<const std::byte>& in, std::span<std::byte> out) override {
    const size_t size = std::min(in.size(), out.size());
    std::memcpy(out.data(), in.data(), size);
    in = in.subspan(size);
    return size;
  }
  bool complete() const override { return true; }
};

class GzipDecoder final : public Decoder {
 public:
  GzipDecoder() : state_(std::make_unique<inflate_state>()) { reset(); }

  size_t decode(std::span<const std::byte>& in, std::span<std::byte> out) override {
    size_t filled = 0;
    while (filled < out.size()) {
      if (phase_ != Phase::kMember && !readHeader(in)) return filled;
      filled += inflate(in, out.subspan(filled));
      if (phase_ == Phase::kMember && in.empty() && state_->avail_out > 0) return filled;
    }
    return filled;
  }

  bool complete() const override { return phase_ == Phase::kBetween || phase_ == Phase::kPadding; }

 private:
  enum class Phase { kBetween, kHeader, kMember, kPadding };

  void reset() {
    isal_inflate_init(state_.get());
    isal_gzip_header_init(&header_);
    state_->crc_flag = ISAL_GZIP_NO_HDR_VER;
  }

  // A header (RFC 1952 §2.3) may arrive in pieces. Read by isal_inflate() it may not: that keeps
  // how much of an extra field is still to come on its stack only.
  bool readHeader(std::span<const std::byte>& in) {
    if (phase_ != Phase::kHeader && !beginMember(in)) return false;
    while (!in.empty()) {
      const size_t given = std::min<size_t>(in.size(), kMaxHeaderPiece);
      state_->next_in = pointer(in);
      state_->avail_in = static_cast<uint32_t>(given);
      const int result = isal_read_gzip_header(state_.get(), &header_);
      in = in.subspan(given - state_->avail_in);
      if (result == ISAL_DECOMP_OK) {
        phase_ = Phase::kMember;
        return true;
      }
      if (result != ISAL_END_INPUT) corrupt("the gzip header is malformed");
    }
    return false;
  }

  // Zeros may follow the last member (tape padding); anything else must be another member.
  bool beginMember(std::span<const std::byte>& in) {
    while (!in.empty() && any_member_ && in.front() == std::byte{0}) {
      phase_ = Phase::kPadding;
      in = in.subspan(1);
    }
    if (in.empty()) return false;
    if (phase_ == Phase::kPadding || in.front() != std::byte{0x1f}) {
      corrupt("data after the end of the gzip stream");
    }
    reset();
    phase_ = Phase::kHeader;
    any_member_ = true;
    return true;
  }

  size_t inflate(std::span<const std::byte>& in, std::span<std::byte> out) {
    constexpr size_t kMost = 1U << 30;  // the library counts in 32 bits
    const size_t given = std::min(in.size(), kMost);
    const size_t room = std::min(out.size(), kMost);
    state_->next_in = pointer(in);
    state_->avail_in = static_cast<uint32_t>(given);
    state_->next_out = reinterpret_cast<uint8_t*>(out.data());
    state_->avail_out = static_cast<uint32_t>(room);
    const int result = isal_inflate(state_.get());
    if (result < 0) corrupt("the gzip data is damaged (error " + std::to_string(result) + ")");
    in = in.subspan(given - state_->avail_in);
    if (state_->block_state == ISAL_BLOCK_FINISH) phase_ = Phase::kBetween;
    return room - state_->avail_out;
  }

  static constexpr size_t kMaxHeaderPiece = size_t{1} << 20;  // bytes at a time

  std::unique_ptr<inflate_state> state_;
  isal_gzip_header header_{};
  Phase phase_ = Phase::kBetween;
  bool any_member_ = false;
};

class ZstdDecoder final : public Decoder {
 public:
  ZstdDecoder() : context_(ZSTD_createDCtx()) {
    if (!context_) throw Error(ErrorKind::kInternal, "start zstd: out of memory");
    ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, kMaxZstdWindowLog);
  }

  size_t decode(std::span<const std::byte>& in, std::span<std::byte> out) override {
    ZSTD_inBuffer input{in.data(), in.size(), 0};
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    while (output.pos < output.size) {
      const size_t out_before = output.pos;
      if (input.pos == input.size && !inside_) break;
      const size_t in_before = input.pos;
      const size_t result = ZSTD_decompressStream(context_.get(), &output, &input);
      if (ZSTD_isError(result)) {
        corrupt(std::string("the zstd data is damaged: ") + ZSTD_getErrorName(result));
      }
      inside_ = result != 0;
      if (input.pos == in_before && output.pos == out_before) break;  // it wants more input
    }
    in = in.subspan(input.pos);
    return output.pos;
  }

  bool complete() const override { return !inside_; }

 private:
  struct Free {
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };
  std::unique_ptr<ZSTD_DCtx, Free> context_;
  bool inside_ = false;
};

}  // namespace

Compression detectCompression(std::span<const std::byte> first) {
  const std::string_view head(reinterpret_cast<const char*>(first.data()), first.size());
  if (head.starts_with("\x1f\x8b")) return Compression::kGzip;
  if (head.starts_with("\x28\xb5\x2f\xfd")) return Compression::kZstd;
  // A skippable frame: 0x184D2A50 to 5F, little-endian.
  if (head.size() >= 4 && (static_cast<unsigned char>(head[0]) & 0xf0) == 0x50 &&
      head.substr(1, 3) == "\x2a\x4d\x18") {
    return Compression::kZstd;
  }
  if (head.starts_with("\xfd"
                       "7zXZ") ||
      head.starts_with("BZh")) {
    throw Error(ErrorKind::kNotSupported,
                "unpack: xz and bzip2 are not supported (compress it with gzip or zstd)");
  }
  return Compression::kNone;
}

std::unique_ptr<Decoder> makeDecoder(Compression compression) {
  switch (compression) {
    case Compression::kGzip:
      return std::make_unique<GzipDecoder>();
    case Compression::kZstd:
      return std::make_unique<ZstdDecoder>();
    case Compression::kNone:
      break;
  }
  return std::make_unique<PlainDecoder>();
}

DecodingSource::DecodingSource(Source& inner) : inner_(inner), buffer_(kStreamChunkBytes) {
  size_t size = 0;
  while (size < kCompressionMagicBytes) {
    const size_t got = inner_.read(std::span(buffer_).subspan(size));
    if (got == 0) break;
    size += got;
  }
  rest_ = std::span(buffer_).first(size);
  compression_ = detectCompression(rest_);
  decoder_ = makeDecoder(compression_);
}

size_t DecodingSource::read(std::span<std::byte> into) {
  if (into.empty()) return 0;
  for (;;) {
    if (const size_t got = decoder_->decode(rest_, into); got > 0) return got;
    const size_t more = inner_.read(buffer_);
    if (more == 0) {
      if (!decoder_->complete()) corrupt("the compressed data is cut off");
      return 0;
    }
    rest_ = std::span(buffer_).first(more);
  }
}

struct GzipWriter::State {
  isal_zstream stream;
  std::vector<uint8_t> level_buffer = std::vector<uint8_t>(ISAL_DEF_LVL1_DEFAULT);
  std::vector<std::byte> input;
  std::vector<std::byte> output = std::vector<std::byte>(kGzipOutputBytes);
};

GzipWriter::GzipWriter(Sink& out) : out_(out), state_(std::make_unique<State>()) {
  isal_zstream& stream = state_->stream;
  isal_deflate_init(&stream);
  stream.level = 1;
  stream.level_buf = state_->level_buffer.data();
  stream.level_buf_size = static_cast<uint32_t>(state_->level_buffer.size());
  stream.gzip_flag = IGZIP_GZIP;  // a header without name and with time 0
  stream.flush = NO_FLUSH;
  state_->input.reserve(kGzipInputBytes);
}

GzipWriter::~GzipWriter() = default;

// The library's output depends on how its input is cut, so it always gets full pieces.
void GzipWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t size = std::min(bytes.size(), kGzipInputBytes - state_->input.size());
    state_->input.insert(state_->input.end(), bytes.begin(),
                         bytes.begin() + static_cast<std::ptrdiff_t>(size));
    bytes = bytes.subspan(size);
    if (state_->input.size() == kGzipInputBytes) compress(false);
  }
}

void GzipWriter::finish() {
  compress(true);
}

void GzipWriter::compress(bool last) {
  isal_zstream& stream = state_->stream;
  stream.next_in = pointer(state_->input);
  stream.avail_in = static_cast<uint32_t>(state_->input.size());
  stream.end_of_stream = last ? 1 : 0;
  do {
    stream.next_out = reinterpret_cast<uint8_t*>(state_->output.data());
    stream.avail_out = static_cast<uint32_t>(state_->output.size());
    if (isal_deflate(&stream) != COMP_OK) {
      throw Error(ErrorKind::kInternal, "compress: ISA-L refused");
    }
    out_.write(
        std::span<const std::byte>(state_->output).first(state_->output.size() - stream.avail_out));
  } while (stream.avail_out == 0 || stream.avail_in > 0 ||
           (last && stream.internal_state.state != ZSTATE_END));
  state_->input.clear();
}

}  // namespace hull::image
