#include "registry/client/repository.h"

#include <algorithm>
#include <charconv>

#include "base/hash.h"
#include "registry/client/blob_reader.h"

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
  return std::make_unique<BlobReader>(session_, path("/blobs/" + blob.digest.text()),
                                      blob.digest.text(), blob.size);
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
