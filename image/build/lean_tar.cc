#include "image/build/lean_tar.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/error.h"

namespace hull::build {

namespace {

constexpr char kRaw = 'r', kNamed = 'n', kEnd = 'e';

[[noreturn]] void corrupt(const std::string& why) {
  throw Error(ErrorKind::kCorrupt, "read lean tar: " + why);
}

}  // namespace

void LeanTarWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t size = std::min(bytes.size(), kMaxRawBytes - raw_.size());
    raw_.append(reinterpret_cast<const char*>(bytes.data()), size);
    bytes = bytes.subspan(size);
    if (raw_.size() == kMaxRawBytes) flush();
  }
}

void LeanTarWriter::flush() {
  if (raw_.empty()) return;
  ByteWriter head;
  head.u8(kRaw);
  head.u32(static_cast<uint32_t>(raw_.size()));
  out_.write(head.bytes());
  out_.write(raw_);
  raw_.clear();
}

void LeanTarWriter::name(const Sha256& digest, uint64_t size) {
  flush();
  ByteWriter record;
  record.u8(kNamed);
  record.raw({reinterpret_cast<const char*>(digest.data()), digest.size()});
  record.u64(size);
  out_.write(record.bytes());
}

void LeanTarWriter::finish() {
  flush();
  out_.write(std::string_view(&kEnd, 1));
}

LeanTarSource::LeanTarSource(Source& in, OpenFunction open)
    : in_(in), open_(std::move(open)), buffer_(kStreamChunkBytes) {}

bool LeanTarSource::fill() {
  if (begin_ < end_) return true;
  begin_ = 0;
  end_ = in_.read(buffer_);
  return end_ > 0;
}

void LeanTarSource::take(std::span<std::byte> into) {
  while (!into.empty()) {
    if (!fill()) corrupt("it is cut off");
    const size_t size = std::min(into.size(), end_ - begin_);
    std::memcpy(into.data(), buffer_.data() + begin_, size);
    begin_ += size;
    into = into.subspan(size);
  }
}

void LeanTarSource::beginRecord() {
  char kind = 0;
  take(std::as_writable_bytes(std::span(&kind, 1)));
  if (kind == kRaw) {
    uint32_t length = 0;
    take(std::as_writable_bytes(std::span(&length, 1)));
    if (length == 0 || length > kMaxRawBytes) corrupt("a record of an impossible length");
    left_ = length;
    state_ = State::kRaw;
  } else if (kind == kNamed) {
    Sha256 digest;
    take(digest);
    take(std::as_writable_bytes(std::span(&left_, 1)));
    if (left_ == 0) corrupt("a content of no bytes");
    if (named_.size() == kMaxNamedContents) {
      throw Error(ErrorKind::kTooLarge, "read lean tar: more than " +
                                            std::to_string(kMaxNamedContents) + " named contents");
    }
    named_.push_back(digest);
    content_ = open_(digest, left_);
    state_ = State::kContent;
  } else if (kind == kEnd) {
    if (fill()) corrupt("something follows its end");
    state_ = State::kEnded;
  } else {
    corrupt("a record of an unknown kind");
  }
}

size_t LeanTarSource::readRaw(std::span<std::byte> into) {
  if (!fill()) corrupt("it is cut off");
  const size_t size = std::min({into.size(), end_ - begin_, static_cast<size_t>(left_)});
  std::memcpy(into.data(), buffer_.data() + begin_, size);
  begin_ += size;
  return size;
}

size_t LeanTarSource::readContent(std::span<std::byte> into) {
  const size_t size = content_->read(into.first(std::min<uint64_t>(left_, into.size())));
  if (size == 0) corrupt("a named content is shorter than it says");
  return size;
}

size_t LeanTarSource::read(std::span<std::byte> into) {
  if (into.empty()) return 0;
  while (state_ == State::kBetween) beginRecord();
  if (state_ == State::kEnded) return 0;
  const size_t size = state_ == State::kRaw ? readRaw(into) : readContent(into);
  left_ -= size;
  if (left_ == 0) {
    state_ = State::kBetween;
    content_.reset();
  }
  return size;
}

}  // namespace hull::build
