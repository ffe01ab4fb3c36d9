// Compresses what is written, fast rather than well, as one zstd frame. One thread.
#pragma once

#include <memory>
#include <vector>

#include "base/stream.h"

struct ZSTD_CCtx_s;

namespace hull::cli {

class ZstdSink final : public Sink {
 public:
  explicit ZstdSink(Sink& out);
  ~ZstdSink() override;
  ZstdSink(const ZstdSink&) = delete;
  ZstdSink& operator=(const ZstdSink&) = delete;
  using Sink::write;
  void write(std::span<const std::byte> bytes) override;
  void finish();

 private:
  void compress(std::span<const std::byte> bytes, bool last);
  Sink& out_;
  ZSTD_CCtx_s* context_;
  std::vector<std::byte> buffer_;
};

}  // namespace hull::cli
