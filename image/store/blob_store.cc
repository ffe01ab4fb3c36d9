#include "image/store/blob_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "image/store/abandoned.h"

namespace hull::image {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kAlgorithms[] = {"sha256", "sha512"};

std::string folderOf(const std::string& root, std::string_view algorithm) {
  return root + "/blobs/" + std::string(algorithm);
}

std::string_view nameOf(HashAlgorithm algorithm) {
  return algorithm == HashAlgorithm::kSha512 ? "sha512" : "sha256";
}

Error missing(const Digest& digest) {
  return Error(ErrorKind::kNotFound, "blob " + digest.text() + " is not in the store");
}

}  // namespace

BlobWriter::BlobWriter(BlobStore& store, HashAlgorithm algorithm)
    : store_(store),
      file_(makePendingFile(store.root_, folderOf(store.root_, nameOf(algorithm)))),
      algorithm_(algorithm),
      hasher_(algorithm) {}

void BlobWriter::write(std::span<const std::byte> bytes) {
  hasher_.update(bytes);
  inContext("write blob", [&] { writeFull(file_.fd(), bytes); });
  size_ += bytes.size();
}

Digest BlobWriter::commit(const Digest& expected) {
  const Digest actual = Digest::parse(std::string(nameOf(algorithm_)) + ":" + hasher_.finishHex());
  if (!expected.empty() && actual != expected) {
    throw Error(ErrorKind::kCorrupt,
                "verify blob " + expected.text() + ": digest mismatch (got " + actual.text() + ")");
  }
  if (!store_.has(actual)) file_.publish(store_.path(actual));
  return actual;
}

BlobStore::BlobStore(std::string root) : root_(std::move(root)) {
  for (const std::string_view algorithm : kAlgorithms) {
    makeDirectories(folderOf(root_, algorithm));
    sweepAbandoned(root_, folderOf(root_, algorithm));
  }
}

std::string BlobStore::path(const Digest& digest) const {
  if (digest.empty()) throw Error(ErrorKind::kInternal, "a blob without a digest was asked for");
  return folderOf(root_, digest.algorithmName()) + "/" + std::string(digest.hex());
}

bool BlobStore::has(const Digest& digest) const {
  return !digest.empty() && fileExists(path(digest));
}

uint64_t BlobStore::size(const Digest& digest) const {
  struct stat info;
  if (::stat(path(digest).c_str(), &info) == 0) return static_cast<uint64_t>(info.st_size);
  if (errno == ENOENT) throw missing(digest);
  throw sysError("examine blob " + digest.text());
}

Fd BlobStore::open(const Digest& digest) const {
  Fd fd(::open(path(digest).c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.valid()) return fd;
  if (errno == ENOENT) throw missing(digest);
  throw sysError("open blob " + digest.text());
}

std::string BlobStore::read(const Digest& digest, size_t limit) const {
  const Fd fd = open(digest);
  FdSource source(fd.get());
  HashingSource hashed(source, digest.algorithm());
  std::string content = readAll(hashed, limit, "blob " + digest.text());
  if (hashed.finishHex() != digest.hex()) {
    throw Error(ErrorKind::kCorrupt,
                "blob " + digest.text() + " is damaged on disk (remove the image, pull it again)");
  }
  return content;
}

BlobWriter BlobStore::create(HashAlgorithm algorithm) {
  return BlobWriter(*this, algorithm);
}

Digest BlobStore::put(std::string_view content) {
  const Digest digest = Digest::of(content);
  if (has(digest)) return digest;
  BlobWriter writer = create();
  writer.Sink::write(content);
  return writer.commit();
}

void BlobStore::remove(const Digest& digest) {
  if (::unlink(path(digest).c_str()) < 0 && errno != ENOENT) {
    throw sysError("remove blob " + digest.text());
  }
}

void BlobStore::forEach(const std::function<void(const Digest&, uint64_t size)>& visit) const {
  for (const std::string_view algorithm : kAlgorithms) {
    for (const auto& item : fs::directory_iterator(folderOf(root_, algorithm))) {
      const std::string name = item.path().filename().string();
      if (name.starts_with('.')) continue;
      std::error_code gone;  // removed meanwhile
      const uint64_t size = item.file_size(gone);
      if (gone) continue;
      Digest digest;
      try {
        digest = Digest::parse(std::string(algorithm) + ":" + name);
      } catch (const Error&) {
        continue;  // not ours
      }
      visit(digest, size);
    }
  }
}

}  // namespace hull::image
