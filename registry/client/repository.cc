#include "registry/client/repository.h"

#include <algorithm>
#include <charconv>

#include "base/hash.h"

namespace hull::registry {

using image::Descriptor;
using image::Digest;
using image::Reference;

namespace {

std::string acceptHeader() {
  namespace type = image::media_type;
  return std::string("Accept: ") + type::kOciIndex + ", " + type::kOciManifest + ", " +
         type::kDockerList + ", " + type::kDockerManifest;
}

[[noreturn]] void throwManifestError(Transfer& answer, const Reference& shown) {
  const int status = answer.head().status;
  const RegistryError error = readError(answer);
  if (status == 401 || status == 403 || error.code == "DENIED" || error.code == "UNAUTHORIZED") {
    throw DockerError(ErrorKind::kNotFound,
                      "pull access denied for " + shown.familiarName() +
                          ", repository does not exist or may require 'hull login': " + error.text);
  }
  if (status == 404) {
    throw DockerError(ErrorKind::kNotFound,
                      "manifest for " + shown.familiar() + " not found: " + error.text);
  }
  throw Error(ErrorKind::kUnavailable, "get manifest: the registry answered " +
                                           std::to_string(status) + " (" + error.text + ")");
}

Digest digestOf(std::string_view bytes, HashAlgorithm algorithm) {
  Hasher hasher(algorithm);
  hasher.update(bytes);
  return Digest::parse((algorithm == HashAlgorithm::kSha512 ? "sha512:" : "sha256:") +
                       hasher.finishHex());
}

void verify(std::string_view bytes, const Digest& expected) {
  const Digest got = digestOf(bytes, expected.algorithm());
  if (got != expected) {
    throw Error(ErrorKind::kCorrupt, "verify manifest " + expected.text() +
                                         ": digest mismatch (got " + got.text() + ")");
  }
}

// A header's digest; empty when it is absent or makes no sense.
Digest headerDigest(const ResponseHead& head) {
  try {
    return Digest::parse(head.header("docker-content-digest"));
  } catch (const Error&) {
    return {};
  }
}

std::string mediaType(const ResponseHead& head) {
  std::string type = head.header("content-type");
  type.resize(std::min(type.find(';'), type.size()));
  return type;
}

std::optional<uint64_t> contentLength(const ResponseHead& head) {
  const std::string text = head.header("content-length");
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return value;
}

class BlobReader final : public Source {
 public:
  BlobReader(Session& session, std::string target, const Descriptor& blob)
      : session_(session), target_(std::move(target)), blob_(blob) {
    openAt();  // so that a missing blob shows at once
  }

  size_t read(std::span<std::byte> into) override {
    while (true) {
      std::string why = "the answer ended early";
      try {
        if (!transfer_) openAt();
        const size_t got = transfer_->read(into);
        if (got > 0) {
          progressed(got);
          return got;
        }
        if (received_ >= blob_.size) return 0;
      } catch (const TransferError& error) {
        if (!error.retryable()) throw;
        why = error.what();
      }
      transfer_.reset();
      if (++resumes_ > kMaxResumes) {
        throw Error(ErrorKind::kUnavailable, "fetch blob " + blob_.digest.text() + ": " + why +
                                                 " after " + std::to_string(received_) + " of " +
                                                 std::to_string(blob_.size) + " bytes");
      }
      session_.pause(resumes_ - 1, {});
    }
  }

 private:
  void openAt() {
    Call call;
    call.target = target_;
    if (received_ > 0) call.headers.push_back("Range: bytes=" + std::to_string(received_) + "-");
    auto answer = session_.send(call);
    const int status = answer->head().status;
    if (status == 206 && received_ > 0) {
      const std::string range = answer->head().header("content-range");
      if (!range.starts_with("bytes " + std::to_string(received_) + "-")) {
        throw Error(ErrorKind::kCorrupt, "fetch blob " + blob_.digest.text() +
                                             ": the registry continued at another place");
      }
    } else if (status == 200) {
      skip(*answer);
    } else {
      throw unexpected(*answer, "fetch blob " + blob_.digest.text());
    }
    transfer_ = std::move(answer);
  }

  // A server without ranges begins anew: what came already is read again and dropped.
  void skip(Transfer& answer) const {
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

  void progressed(size_t bytes) {
    received_ += bytes;
    if (received_ - resumed_at_ < kResumeProgressBytes) return;
    resumed_at_ = received_;
    resumes_ = 0;
  }

  Session& session_;
  const std::string target_;
  const Descriptor blob_;
  std::unique_ptr<Transfer> transfer_;
  uint64_t received_ = 0;
  uint64_t resumed_at_ = 0;
  int resumes_ = 0;
};

}  // namespace

FetchedManifest Repository::manifest(const std::string& reference, const Reference& shown) {
  Call call;
  call.target = path("/manifests/" + reference);
  call.headers.push_back(acceptHeader());
  const auto answer = session_.send(call);
  if (answer->head().status != 200) throwManifestError(*answer, shown);
  FetchedManifest manifest;
  manifest.bytes = answer->text(image::kMaxManifestBytes, "manifest");
  manifest.media_type = mediaType(answer->head());
  manifest.digest = headerDigest(answer->head());
  if (!manifest.digest.empty()) verify(manifest.bytes, manifest.digest);
  if (reference.find(':') != std::string::npos) {
    manifest.digest = Digest::parse(reference);
    verify(manifest.bytes, manifest.digest);
  }
  if (manifest.digest.empty()) manifest.digest = Digest::of(manifest.bytes);
  return manifest;
}

std::optional<Descriptor> Repository::describe(const std::string& reference,
                                               const Reference& shown) {
  Call call;
  call.method = "HEAD";
  call.target = path("/manifests/" + reference);
  call.headers.push_back(acceptHeader());
  const auto answer = session_.send(call);
  const ResponseHead& head = answer->head();
  if (head.status == 405) return std::nullopt;
  if (head.status != 200) throwManifestError(*answer, shown);
  const auto size = contentLength(head);
  const Digest digest = headerDigest(head);
  if (digest.empty() || !size || mediaType(head).empty()) return std::nullopt;
  return Descriptor{mediaType(head), digest, *size, {}, {}};
}

std::unique_ptr<Source> Repository::open(const Descriptor& blob) {
  return std::make_unique<BlobReader>(session_, path("/blobs/" + blob.digest.text()), blob);
}

bool Repository::hasBlob(const Digest& digest) {
  Call call;
  call.method = "HEAD";
  call.target = path("/blobs/" + digest.text());
  const auto answer = session_.send(call);
  if (answer->head().status == 200) return true;
  if (answer->head().status == 404) return false;
  throw unexpected(*answer, "look for blob " + digest.text());
}

Repository::Started Repository::start(const Digest& digest, const std::string& from) {
  Call call;
  call.method = "POST";
  call.target = path("/blobs/uploads/");
  if (!from.empty()) {
    addQuery(call.target, "mount", digest.text());
    addQuery(call.target, "from", from);
  }
  const auto answer = session_.send(call);
  const int status = answer->head().status;
  if (status == 201) return {true, {}};
  if (status != 202) throw unexpected(*answer, "start uploading blob " + digest.text());
  return {false, session_.location(*answer)};
}

void Repository::upload(const Digest& digest, const std::string& from, int file, uint64_t bytes,
                        const std::function<void(uint64_t)>& sent, bool& mounted) {
  for (int attempt = 0;; ++attempt) {
    const bool last = attempt + 1 >= kMaxAttempts;
    std::string retry_after;
    try {
      const Started started = start(digest, attempt == 0 ? from : std::string());
      mounted = started.mounted;
      if (mounted) return;
      Call call;
      call.method = "PUT";
      call.url = started.upload;
      addQuery(call.url->target, "digest", digest.text());
      call.headers.push_back("Content-Type: application/octet-stream");
      call.file = file;
      call.file_bytes = bytes;
      call.sent = sent;
      call.retry = false;  // a half received upload cannot be repeated: begin a new one
      const auto answer = session_.send(call);
      const int status = answer->head().status;
      if (status == 201 || status == 204) return;
      if (last || (status != 429 && status < 500)) {
        throw unexpected(*answer, "upload blob " + digest.text());
      }
      retry_after = answer->head().header("retry-after");
    } catch (const TransferError& error) {
      if (last || !error.retryable()) throw;
    }
    session_.pause(attempt, retry_after);
  }
}

void Repository::putManifest(const std::string& reference, const std::string& bytes,
                             const std::string& media_type) {
  Call call;
  call.method = "PUT";
  call.target = path("/manifests/" + reference);
  call.headers.push_back("Content-Type: " + media_type);
  call.body = bytes;
  const auto answer = session_.send(call);
  if (answer->head().status == 201) {
    const Digest stored = headerDigest(answer->head());
    if (!stored.empty()) verify(bytes, stored);
    return;
  }
  throw unexpected(*answer, "put manifest");
}

}  // namespace hull::registry
