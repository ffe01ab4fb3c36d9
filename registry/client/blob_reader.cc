#include "registry/client/blob_reader.h"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

namespace hull::registry {

namespace {

uint64_t contentLength(const ResponseHead& head, const std::string& shown) {
  const std::string text = head.header("content-length");
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    throw Error(ErrorKind::kUnavailable,
                "fetch blob " + shown + ": the registry does not say how large it is");
  }
  return value;
}

}  // namespace

BlobReader::BlobReader(Session& session, std::string target, std::string shown,
                       std::optional<uint64_t> size)
    : session_(session), target_(std::move(target)), shown_(std::move(shown)) {
  openAt();  // so that a missing blob shows at once
  size_ = size ? *size : contentLength(transfer_->head(), shown_);
}

BlobReader::~BlobReader() = default;

size_t BlobReader::read(std::span<std::byte> into) {
  while (true) {
    std::string why = "the answer ended early";
    try {
      if (!transfer_) openAt();
      const size_t got = transfer_->read(into);
      if (got > 0) {
        progressed(got);
        return got;
      }
      if (received_ >= size_) return 0;
    } catch (const TransferError& error) {
      if (!error.retryable()) throw;
      why = error.what();
    }
    transfer_.reset();
    if (++resumes_ > kMaxResumes) {
      throw Error(ErrorKind::kUnavailable, "fetch blob " + shown_ + ": " + why + " after " +
                                               std::to_string(received_) + " of " +
                                               std::to_string(size_) + " bytes");
    }
    session_.pause(resumes_ - 1, {});
  }
}

void BlobReader::openAt() {
  Call call;
  call.target = target_;
  if (received_ > 0) call.headers.push_back("Range: bytes=" + std::to_string(received_) + "-");
  auto answer = session_.send(call);
  const int status = answer->head().status;
  if (status == 206 && received_ > 0) {
    const std::string range = answer->head().header("content-range");
    if (!range.starts_with("bytes " + std::to_string(received_) + "-")) {
      throw Error(ErrorKind::kCorrupt,
                  "fetch blob " + shown_ + ": the registry continued at another place");
    }
  } else if (status == 200) {
    skip(*answer);
  } else {
    throw unexpected(*answer, "fetch blob " + shown_);
  }
  transfer_ = std::move(answer);
}

// A server without ranges begins anew: what came already is read again and dropped.
void BlobReader::skip(Transfer& answer) const {
  if (received_ == 0) return;
  std::vector<std::byte> buffer(kStreamChunkBytes);
  for (uint64_t left = received_; left > 0;) {
    const size_t size = static_cast<size_t>(std::min<uint64_t>(left, buffer.size()));
    const size_t got = answer.read(std::span(buffer).first(size));
    if (got == 0) {
      throw TransferError(ErrorKind::kUnavailable, "the answer ended early", true);
    }
    left -= got;
  }
}

void BlobReader::progressed(size_t bytes) {
  received_ += bytes;
  if (received_ - resumed_at_ < kResumeProgressBytes) return;
  resumed_at_ = received_;
  resumes_ = 0;
}

}  // namespace hull::registry
