#include "registry/server/repositories.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <mutex>

#include "base/error.h"
#include "base/file.h"
#include "registry/server/pattern.h"

namespace hull::registry {

namespace fs = std::filesystem;
using image::Digest;

namespace {

constexpr size_t kMaxSmallFileBytes = size_t{8} << 20;  // a descriptor with its annotations
constexpr const char* kLayers = "/_layers/";
constexpr const char* kManifests = "/_manifests/";
constexpr const char* kTags = "/_tags/";
constexpr const char* kReferrers = "/_referrers/";

std::string fileName(const Digest& digest) {
  return std::string(digest.algorithmName()) + "-" + std::string(digest.hex());
}

Fd lockRoot(const std::string& root, RepositoryStore::Use use) {
  if (use == RepositoryStore::Use::kInspect) {
    if (fileExists(root + "/repositories")) return {};
    throw Error(ErrorKind::kNotFound, "open " + root + ": there is no registry in it");
  }
  makeDirectories(root);
  const std::string path = root + "/.registry-lock";
  Fd fd = openFile(path, O_RDWR | O_CREAT, 0600);
  if (flock(fd.get(), LOCK_EX | LOCK_NB) < 0) {
    if (errno != EWOULDBLOCK) throw sysError("lock " + path);
    throw Error(ErrorKind::kConflict,
                "open " + root +
                    ": another hull-registry uses this folder (stop it, or choose "
                    "another --root)");
  }
  return fd;
}

// Creates missing folders below `root` durably: each new name is synced into its parent.
void makeDurableDirectories(const std::string& root, const std::string& path) {
  std::vector<std::string> missing;
  for (fs::path at = path; at.string().size() > root.size() && !fileExists(at.string());
       at = at.parent_path()) {
    missing.push_back(at.string());
  }
  makeDirectories(path);
  for (auto it = missing.rbegin(); it != missing.rend(); ++it) {
    syncDirectory(fs::path(*it).parent_path().string());
  }
}

// The inverse of fileName(); nullopt for what is no digest.
std::optional<Digest> digestOfName(std::string name) {
  const size_t dash = name.find('-');
  if (dash == std::string::npos) return std::nullopt;
  name[dash] = ':';
  try {
    return Digest::parse(name);
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::optional<std::string> readIfThere(const std::string& path) {
  try {
    return readFile(path, kMaxSmallFileBytes);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kNotFound) return std::nullopt;
    throw;
  }
}

bool removeFile(const std::string& path) {
  if (::unlink(path.c_str()) == 0) {
    syncDirectory(fs::path(path).parent_path().string());
    return true;
  }
  if (errno == ENOENT || errno == ENOTDIR) return false;
  throw sysError("remove " + path);
}

void touch(const std::string& path) {
  // A time that cannot be set costs no more than a blob that collection takes early.
  [[maybe_unused]] const int ignored = ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
}

std::optional<FileTime> writtenAt(const std::string& path) {
  struct stat info;
  if (::lstat(path.c_str(), &info) < 0) return std::nullopt;
  return FileTime(std::chrono::duration_cast<FileTime::duration>(
      std::chrono::seconds(info.st_mtim.tv_sec) + std::chrono::nanoseconds(info.st_mtim.tv_nsec)));
}

// Creates an empty file durably; false when it was there, which counts as written now.
bool createMarker(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd) {
    if (errno != EEXIST) throw sysError("create " + path);
    touch(path);
    return false;
  }
  syncDirectory(fs::path(path).parent_path().string());
  return true;
}

std::vector<std::string> namesIn(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::string name = it->path().filename().string();
    if (!name.starts_with('.')) names.push_back(std::move(name));
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw sysError("list " + folder, error.value());
  }
  std::sort(names.begin(), names.end());
  return names;
}

void listBelow(const std::string& folder, const std::string& prefix,
               std::vector<std::string>& names) {
  bool listed = false;
  for (const std::string& name : namesIn(folder)) {
    const std::string path = folder + "/" + name;
    if (name == "_layers" || name == "_manifests") {
      if (!listed) names.push_back(prefix);
      listed = true;
    } else if (!name.starts_with('_')) {
      listBelow(path, prefix.empty() ? name : prefix + "/" + name, names);
    }
  }
}

}  // namespace

RepositoryStore::RepositoryStore(const std::string& root, Use use)
    : root_(root), lock_(lockRoot(root, use)), blobs_(root) {
  if (use == Use::kServe) makeDirectories(root_ + "/repositories");
}

std::string RepositoryStore::folder(const std::string& repository) const {
  return root_ + "/repositories/" + repository;
}

bool RepositoryStore::has(const std::string& repository) const {
  return fileExists(folder(repository) + kManifests) || fileExists(folder(repository) + kLayers);
}

std::vector<std::string> RepositoryStore::list() const {
  std::vector<std::string> names;
  listBelow(root_ + "/repositories", "", names);
  std::sort(names.begin(), names.end());
  return names;
}

std::string RepositoryStore::linkPath(const std::string& repository, const Digest& digest) const {
  return folder(repository) + kLayers + fileName(digest);
}

bool RepositoryStore::hasBlob(const std::string& repository, const Digest& digest) const {
  return fileExists(linkPath(repository, digest)) && blobs_.has(digest);
}

bool RepositoryStore::confirmBlob(const std::string& repository, const Digest& digest) {
  const std::shared_lock lock(changing_);
  if (!hasBlob(repository, digest)) return false;
  touch(linkPath(repository, digest));
  return true;
}

void RepositoryStore::linkBlob(const std::string& repository, const Digest& digest) {
  makeDurableDirectories(root_, folder(repository) + kLayers);
  if (createMarker(linkPath(repository, digest))) count(repository, digest, true);
}

void RepositoryStore::publishBlob(const std::string& repository, const Digest& digest,
                                  const std::string& path) {
  const std::shared_lock lock(changing_);
  const Fd fd = openFile(path, O_RDONLY);
  if (!blobs_.has(digest)) {
    if (fsync(fd.get()) < 0) throw sysError("sync blob " + digest.text());
    renameDurably(path, blobs_.path(digest));
  } else {
    touch(blobs_.path(digest));
  }
  linkBlob(repository, digest);
}

bool RepositoryStore::mountBlob(const std::string& from, const std::string& to,
                                const Digest& digest) {
  const std::shared_lock lock(changing_);
  if (!hasBlob(from, digest)) return false;
  touch(blobs_.path(digest));
  linkBlob(to, digest);
  return true;
}

bool RepositoryStore::removeBlob(const std::string& repository, const Digest& digest) {
  const std::unique_lock lock(changing_);
  const std::string path = linkPath(repository, digest);
  if (!fileExists(path)) return false;
  count(repository, digest, false);
  removeFile(path);
  collectBlob(digest);
  return true;
}

// Removes the content when no repository names it any more. Called with `changing_` held alone.
void RepositoryStore::collectBlob(const Digest& digest) {
  const std::string name = fileName(digest);
  std::error_code error;
  fs::recursive_directory_iterator it(root_ + "/repositories", error), end;
  for (; !error && it != end; it.increment(error)) {
    const std::string at = it->path().filename().string();
    if (at == "_layers" || at == "_manifests") {
      if (fileExists(it->path().string() + "/" + name)) return;
    }
    if (at.starts_with('_')) it.disable_recursion_pending();
  }
  if (error) throw sysError("look for users of blob " + digest.text(), error.value());
  blobs_.remove(digest);
}

std::optional<StoredManifest> RepositoryStore::findTag(const std::string& repository,
                                                       const std::string& tag) const {
  const auto text = readIfThere(folder(repository) + kTags + tag);
  if (!text) return std::nullopt;
  return findManifest(repository, Digest::parse(*text));
}

std::optional<StoredManifest> RepositoryStore::findManifest(const std::string& repository,
                                                            const Digest& digest) const {
  auto media_type = readIfThere(folder(repository) + kManifests + fileName(digest));
  if (!media_type || !blobs_.has(digest)) return std::nullopt;
  return StoredManifest{digest, std::move(*media_type)};
}

std::optional<Digest> RepositoryStore::putManifest(const std::string& repository,
                                                   const NewManifest& manifest, bool partial) {
  const std::shared_lock lock(changing_);
  for (const Digest& needed : manifest.needed_blobs) {
    if (partial) break;
    if (!hasBlob(repository, needed)) return needed;
    touch(linkPath(repository, needed));  // a collection that runs must see that it is needed
  }
  for (const Digest& needed : manifest.needed_manifests) {
    if (partial) break;
    if (!findManifest(repository, needed)) return needed;
    touch(folder(repository) + kManifests + fileName(needed));
  }
  if (!blobs_.has(manifest.digest)) {
    image::BlobWriter writer = blobs_.create(manifest.digest.algorithm());
    writer.write(manifest.bytes);
    writer.commit(manifest.digest);
  } else {
    touch(blobs_.path(manifest.digest));
  }
  const std::string at = folder(repository);
  if (!manifest.subject.empty()) {
    const std::string referrers = at + kReferrers + fileName(manifest.subject);
    makeDurableDirectories(root_, referrers);
    writeFileAtomic(referrers + "/" + fileName(manifest.digest), manifest.descriptor);
  }
  makeDurableDirectories(root_, at + kManifests);
  const std::string link = at + kManifests + fileName(manifest.digest);
  const bool known = fileExists(link);
  writeFileAtomic(link, manifest.media_type);
  if (!known) count(repository, manifest.digest, true);
  if (!manifest.tag.empty()) {
    makeDurableDirectories(root_, at + kTags);
    writeFileAtomic(at + kTags + manifest.tag, manifest.digest.text());
  }
  ++generation_;
  return std::nullopt;
}

bool RepositoryStore::removeManifest(const std::string& repository, const Digest& digest) {
  const std::unique_lock lock(changing_);
  if (!fileExists(folder(repository) + kManifests + fileName(digest))) return false;
  // Tags first: stopped in between, no tag points nowhere.
  for (const std::string& tag : tags(repository)) {
    if (readIfThere(folder(repository) + kTags + tag) == digest.text()) {
      removeFile(folder(repository) + kTags + tag);
    }
  }
  removeManifestFiles(repository, digest);
  collectBlob(digest);
  return true;
}

void RepositoryStore::removeManifestFiles(const std::string& repository, const Digest& digest) {
  forgetReferrer(repository, digest);
  count(repository, digest, false);
  removeFile(folder(repository) + kManifests + fileName(digest));
  ++generation_;
}

void RepositoryStore::forgetReferrer(const std::string& repository, const Digest& digest) {
  const std::string referrers = folder(repository) + kReferrers;
  for (const std::string& subject : namesIn(referrers)) {
    removeFile(referrers + subject + "/" + fileName(digest));
  }
}

bool RepositoryStore::removeTag(const std::string& repository, const std::string& tag) {
  const std::unique_lock lock(changing_);
  const bool removed = removeFile(folder(repository) + kTags + tag);
  ++generation_;
  return removed;
}

std::vector<std::string> RepositoryStore::tags(const std::string& repository) const {
  return namesIn(folder(repository) + kTags);
}

std::vector<Digest> RepositoryStore::manifests(const std::string& repository) const {
  std::vector<Digest> result;
  for (std::string& name : namesIn(folder(repository) + kManifests)) {
    if (const auto digest = digestOfName(std::move(name))) result.push_back(*digest);
  }
  return result;
}

std::vector<std::string> RepositoryStore::referrers(const std::string& repository,
                                                    const Digest& subject) const {
  const std::string referrers = folder(repository) + kReferrers + fileName(subject);
  std::vector<std::string> result;
  for (const std::string& name : namesIn(referrers)) {
    auto descriptor = readIfThere(referrers + "/" + name);
    if (descriptor) result.push_back(std::move(*descriptor));
  }
  return result;
}

void RepositoryStore::touchTag(const std::string& repository, const std::string& tag) {
  touch(folder(repository) + kTags + tag);
}

std::optional<FileTime> RepositoryStore::tagTime(const std::string& repository,
                                                 const std::string& tag) const {
  return writtenAt(folder(repository) + kTags + tag);
}

// With `changing_` held, either way.
void RepositoryStore::count(const std::string& repository, const Digest& digest, bool added) {
  const std::lock_guard lock(usage_mutex_);
  if (!usage_known_ || !blobs_.has(digest)) return;
  uint64_t& bytes = usage_[repository];
  const uint64_t size = blobs_.size(digest);
  bytes = added ? bytes + size : bytes - std::min(bytes, size);
}

uint64_t RepositoryStore::bytesOf(std::string_view pattern) {
  // Alone when it counts for the first time, or a blob could be counted twice.
  std::unique_lock alone(changing_, std::defer_lock);
  std::unique_lock lock(usage_mutex_);
  if (!usage_known_) {
    lock.unlock();
    alone.lock();
    lock.lock();
    usage_.clear();
    for (const std::string& repository : list()) {
      uint64_t bytes = 0;
      for (const char* kind : {kLayers, kManifests}) {
        for (const BlobLink& link : linksIn(folder(repository) + kind)) {
          if (blobs_.has(link.digest)) bytes += blobs_.size(link.digest);
        }
      }
      usage_[repository] = bytes;
    }
    usage_known_ = true;
  }
  uint64_t sum = 0;
  for (const auto& [repository, bytes] : usage_) {
    if (matchesPattern(pattern, repository)) sum += bytes;
  }
  return sum;
}

std::vector<BlobLink> RepositoryStore::linksIn(const std::string& at) const {
  std::vector<BlobLink> links;
  for (const std::string& name : namesIn(at)) {
    const auto digest = digestOfName(name);
    const auto written = writtenAt(at + name);
    if (digest && written) links.push_back({*digest, *written});
  }
  return links;
}

std::vector<NamedFile> RepositoryStore::tagTimes(const std::string& repository) const {
  std::vector<NamedFile> files;
  for (std::string& tag : tags(repository)) {
    if (const auto written = tagTime(repository, tag)) files.push_back({std::move(tag), *written});
  }
  return files;
}

std::vector<BlobLink> RepositoryStore::blobLinks(const std::string& repository) const {
  return linksIn(folder(repository) + kLayers);
}

std::vector<BlobLink> RepositoryStore::manifestLinks(const std::string& repository) const {
  return linksIn(folder(repository) + kManifests);
}

std::optional<FileTime> RepositoryStore::contentTime(const Digest& digest) const {
  return writtenAt(blobs_.path(digest));
}

bool RepositoryStore::dropBlob(const std::string& repository, const Digest& digest,
                               FileTime before) {
  const std::unique_lock lock(changing_);
  const std::string path = linkPath(repository, digest);
  const auto written = writtenAt(path);
  if (!written || *written > before) return false;
  count(repository, digest, false);
  return removeFile(path);
}

bool RepositoryStore::dropContent(const Digest& digest, FileTime before) {
  const std::unique_lock lock(changing_);
  const auto written = writtenAt(blobs_.path(digest));
  if (!written || *written > before) return false;
  blobs_.remove(digest);
  return true;
}

bool RepositoryStore::dropManifest(const std::string& repository, const Digest& digest,
                                   FileTime before) {
  const std::unique_lock lock(changing_);
  const auto written = writtenAt(folder(repository) + kManifests + fileName(digest));
  if (!written || *written > before) return false;
  for (const std::string& tag : tags(repository)) {
    if (readIfThere(folder(repository) + kTags + tag) == digest.text()) return false;
  }
  removeManifestFiles(repository, digest);
  return true;
}

}  // namespace hull::registry
