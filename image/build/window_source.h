// A part of a file as a stream. One thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/fd.h"
#include "base/stream.h"

namespace hull::build {

class WindowSource final : public Source {
 public:
  WindowSource(int fd, uint64_t offset, uint64_t size) : fd_(fd), at_(offset), left_(size) {}
  size_t read(std::span<std::byte> into) override {
    const size_t got = preadFull(fd_, into.first(std::min<uint64_t>(left_, into.size())), at_);
    at_ += got;
    left_ -= got;
    return got;
  }

 private:
  int fd_;  // not owned
  uint64_t at_, left_;
};

}  // namespace hull::build
