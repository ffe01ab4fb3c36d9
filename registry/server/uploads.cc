#include "registry/server/uploads.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

#include "base/background_hasher.h"
#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "base/write_back.h"
#include "registry/server/message.h"
#include "registry/server/route.h"

namespace hull::registry {

namespace fs = std::filesystem;
using image::Digest;

// One session. `mutex` is held while bytes are written, never while waiting for them.
class Upload {
 public:
  Upload(std::string repository, std::string path, HashAlgorithm algorithm)
      : repository_(std::move(repository)), path_(std::move(path)), algorithm_(algorithm) {
    hasher_.emplace(algorithm);
  }

  const std::string& repository() const { return repository_; }
  const std::string& path() const { return path_; }

  uint64_t size() {
    const std::lock_guard lock(mutex_);
    return size_;
  }

  // A later writer takes over from one whose connection hangs. Returns what write() asks for.
  uint64_t takeOver(std::optional<uint64_t> offset) {
    const std::lock_guard lock(mutex_);
    if (offset && *offset != size_) throw outOfOrder();
    return ++writer_;
  }

  void write(uint64_t writer, int fd, std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    if (writer != writer_ || !hasher_) throw outOfOrder();
    pwriteFull(fd, bytes, size_);
    hasher_->update(bytes);
    size_ += bytes.size();
    write_back_.written(fd, size_);
  }

  // No more comes for now.
  void rest() {
    const std::lock_guard lock(mutex_);
    if (hasher_) hasher_->rest();
  }

  // Digests what is on disk already, after a restart or for another algorithm.
  void digestAgain(HashAlgorithm algorithm) {
    const std::lock_guard lock(mutex_);
    ++writer_;
    algorithm_ = algorithm;
    hasher_.emplace(algorithm);
    size_ = 0;
    const Fd fd = openFile(path_, O_RDONLY);
    FdSource source(fd.get());
    FunctionSink sink([&](std::span<const std::byte> bytes) {
      hasher_->update(bytes);
      size_ += bytes.size();
    });
    copy(source, sink);
    hasher_->rest();
  }

  Digest seal(HashAlgorithm algorithm) {
    {
      const std::lock_guard lock(mutex_);
      ++writer_;
      if (!hasher_) throw outOfOrder();  // finished by another request
    }
    if (algorithm != algorithm_) digestAgain(algorithm);
    const std::lock_guard lock(mutex_);
    if (!hasher_) throw outOfOrder();
    const std::string name = algorithm == HashAlgorithm::kSha512 ? "sha512:" : "sha256:";
    const Digest digest = Digest::parse(name + hasher_->finishHex());
    hasher_.reset();
    // Bytes behind the digested ones can be there after a crash only; they are not part of it.
    if (::truncate(path_.c_str(), static_cast<off_t>(size_)) < 0) throw sysError("truncate upload");
    return digest;
  }

 private:
  ApiError outOfOrder() const {
    const std::string last = std::to_string(size_ > 0 ? size_ - 1 : 0);
    return ApiError(416, code::kBlobUploadInvalid, "the upload continues at another offset",
                    {{"Range", "0-" + last}});
  }

  const std::string repository_;
  const std::string path_;
  std::mutex mutex_;
  HashAlgorithm algorithm_;  // guarded by mutex_, as all below
  std::optional<BackgroundHasher> hasher_;  // nothing once it is sealed
  uint64_t size_ = 0;
  WriteBack write_back_;
  uint64_t writer_ = 0;
};

Uploads::Uploads(RepositoryStore& store) : store_(store), root_(store.root() + "/uploads") {
  makeDirectories(root_);
  sweep();
}

Uploads::~Uploads() = default;

std::string Uploads::folder(const std::string& id) const {
  return root_ + "/" + id;
}

std::string Uploads::start(const std::string& repository, HashAlgorithm algorithm) {
  const std::string id = randomHex(kUploadIdDigits / 2);
  const std::string data = folder(id) + "/data";
  const std::lock_guard lock(mutex_);
  if (open_.size() >= kMaxUploads) {
    throw ApiError(429, code::kTooManyRequests, "too many uploads at a time",
                   {{"Retry-After", "10"}});
  }
  makeDirectories(folder(id), 0700);
  writeFileAtomic(folder(id) + "/repository", repository);
  openFile(data, O_WRONLY | O_CREAT | O_EXCL);
  open_[id] = std::make_shared<Upload>(repository, data, algorithm);
  return id;
}

std::shared_ptr<Upload> Uploads::find(const std::string& repository, const std::string& id) {
  const std::lock_guard lock(mutex_);
  const ApiError unknown(404, code::kBlobUploadUnknown, "no such upload");
  auto it = open_.find(id);
  if (it == open_.end()) {
    const std::string data = folder(id) + "/data";
    if (!fileExists(data) || !fileExists(folder(id) + "/repository")) throw unknown;
    auto upload =
        std::make_shared<Upload>(readFile(folder(id) + "/repository", kMaxRepositoryNameBytes),
                                 data, HashAlgorithm::kSha256);
    upload->digestAgain(HashAlgorithm::kSha256);
    it = open_.emplace(id, std::move(upload)).first;
  }
  if (it->second->repository() != repository) throw unknown;
  return it->second;
}

uint64_t Uploads::size(const std::string& repository, const std::string& id) {
  return find(repository, id)->size();
}

uint64_t Uploads::append(const std::string& repository, const std::string& id, const Append& how,
                         Source& body) {
  const auto upload = find(repository, id);
  const uint64_t writer = upload->takeOver(how.offset);
  const Fd fd = openFile(upload->path(), O_WRONLY);
  const struct Rest {
    Upload& upload;
    ~Rest() { upload.rest(); }
  } rest{*upload};
  std::vector<std::byte> buffer(kStreamChunkBytes);
  while (const size_t got = body.read(buffer)) {
    if (upload->size() + got > how.max_bytes) {
      drop(id);
      throw Error(ErrorKind::kTooLarge, "the upload is larger than allowed");
    }
    upload->write(writer, fd.get(), std::span(buffer).first(got));
  }
  return upload->size();
}

size_t Uploads::open() const {
  const std::lock_guard lock(mutex_);
  return open_.size();
}

void Uploads::finish(const std::string& repository, const std::string& id, const Digest& expected) {
  const auto upload = find(repository, id);
  const Digest actual = upload->seal(expected.algorithm());
  if (actual == expected) store_.publishBlob(repository, actual, upload->path());
  drop(id);
  if (actual != expected) {
    throw ApiError(400, code::kDigestInvalid,
                   "the content's digest is " + actual.text() + ", not " + expected.text());
  }
}

void Uploads::cancel(const std::string& repository, const std::string& id) {
  find(repository, id);
  drop(id);
}

void Uploads::drop(const std::string& id) {
  const std::lock_guard lock(mutex_);
  open_.erase(id);
  std::error_code ignored;  // the sweep comes back to it
  fs::remove_all(folder(id), ignored);
}

size_t Uploads::sweep(std::chrono::seconds age) {
  const std::lock_guard lock(mutex_);
  const auto now = fs::file_time_type::clock::now();
  size_t removed = 0;
  std::error_code error;
  for (fs::directory_iterator it(root_, error), end; !error && it != end; it.increment(error)) {
    const std::string id = it->path().filename().string();
    std::error_code gone;
    auto written = fs::last_write_time(it->path() / "data", gone);
    if (gone) written = fs::last_write_time(it->path(), gone);
    if (gone || now - written < age) continue;
    open_.erase(id);
    fs::remove_all(it->path(), gone);
    ++removed;
  }
  return removed;
}

}  // namespace hull::registry
