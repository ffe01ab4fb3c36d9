#include "cli/client/zstd_sink.h"

#include <zstd.h>

#include <string>

#include "base/error.h"

namespace hull::cli {

namespace {
constexpr int kFastLevel = 1;
}  // namespace

ZstdSink::ZstdSink(Sink& out)
    : out_(out), context_(ZSTD_createCCtx()), buffer_(ZSTD_CStreamOutSize()) {
  if (!context_) throw Error(ErrorKind::kInternal, "start zstd: out of memory");
  ZSTD_CCtx_setParameter(context_, ZSTD_c_compressionLevel, kFastLevel);
}

ZstdSink::~ZstdSink() {
  ZSTD_freeCCtx(context_);
}

void ZstdSink::write(std::span<const std::byte> bytes) {
  compress(bytes, false);
}

void ZstdSink::finish() {
  compress({}, true);
}

void ZstdSink::compress(std::span<const std::byte> bytes, bool last) {
  ZSTD_inBuffer in{bytes.data(), bytes.size(), 0};
  for (bool done = false; !done;) {
    ZSTD_outBuffer out{buffer_.data(), buffer_.size(), 0};
    const size_t left =
        ZSTD_compressStream2(context_, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
    if (ZSTD_isError(left) != 0)
      throw Error(ErrorKind::kInternal, std::string("compress: ") + ZSTD_getErrorName(left));
    if (out.pos > 0) out_.write(std::span<const std::byte>(buffer_).first(out.pos));
    done = last ? left == 0 : in.pos == in.size;
  }
}

}  // namespace hull::cli
