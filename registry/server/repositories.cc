#include "registry/server/repositories.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <mutex>

#include "base/error.h"
#include "base/file.h"

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

Fd lockRoot(const std::string& root) {
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
  for (const std::string& name : namesIn(folder)) {
    const std::string path = folder + "/" + name;
    if (name == "_manifests") {
      names.push_back(prefix);
    } else if (!name.starts_with('_')) {
      listBelow(path, prefix.empty() ? name : prefix + "/" + name, names);
    }
  }
}

}  // namespace

RepositoryStore::RepositoryStore(const std::string& root)
    : root_(root), lock_(lockRoot(root)), blobs_(root) {
  makeDirectories(root_ + "/repositories");
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

bool RepositoryStore::hasBlob(const std::string& repository, const Digest& digest) const {
  return fileExists(folder(repository) + kLayers + fileName(digest)) && blobs_.has(digest);
}

void RepositoryStore::publishBlob(const std::string& repository, const Digest& digest,
                                  const std::string& path) {
  const std::shared_lock lock(changing_);
  const Fd fd = openFile(path, O_RDONLY);
  if (!blobs_.has(digest)) {
    if (fsync(fd.get()) < 0) throw sysError("sync blob " + digest.text());
    renameDurably(path, blobs_.path(digest));
  }
  makeDurableDirectories(root_, folder(repository) + kLayers);
  writeFileAtomic(folder(repository) + kLayers + fileName(digest), "");
}

bool RepositoryStore::mountBlob(const std::string& from, const std::string& to,
                                const Digest& digest) {
  const std::shared_lock lock(changing_);
  if (!hasBlob(from, digest)) return false;
  makeDurableDirectories(root_, folder(to) + kLayers);
  writeFileAtomic(folder(to) + kLayers + fileName(digest), "");
  return true;
}

bool RepositoryStore::removeBlob(const std::string& repository, const Digest& digest) {
  const std::unique_lock lock(changing_);
  if (!removeFile(folder(repository) + kLayers + fileName(digest))) return false;
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
                                                   const NewManifest& manifest) {
  const std::shared_lock lock(changing_);
  for (const Digest& needed : manifest.needed_blobs) {
    if (!hasBlob(repository, needed)) return needed;
  }
  for (const Digest& needed : manifest.needed_manifests) {
    if (!findManifest(repository, needed)) return needed;
  }
  if (!blobs_.has(manifest.digest)) {
    image::BlobWriter writer = blobs_.create(manifest.digest.algorithm());
    writer.write(manifest.bytes);
    writer.commit(manifest.digest);
  }
  const std::string at = folder(repository);
  if (!manifest.subject.empty()) {
    const std::string referrers = at + kReferrers + fileName(manifest.subject);
    makeDurableDirectories(root_, referrers);
    writeFileAtomic(referrers + "/" + fileName(manifest.digest), manifest.descriptor);
  }
  makeDurableDirectories(root_, at + kManifests);
  writeFileAtomic(at + kManifests + fileName(manifest.digest), manifest.media_type);
  if (!manifest.tag.empty()) {
    makeDurableDirectories(root_, at + kTags);
    writeFileAtomic(at + kTags + manifest.tag, manifest.digest.text());
  }
  return std::nullopt;
}

bool RepositoryStore::removeManifest(const std::string& repository, const Digest& digest) {
  const std::unique_lock lock(changing_);
  const std::string path = folder(repository) + kManifests + fileName(digest);
  if (!fileExists(path)) return false;
  // Tags first: stopped in between, no tag points nowhere.
  for (const std::string& tag : tags(repository)) {
    if (readIfThere(folder(repository) + kTags + tag) == digest.text()) {
      removeFile(folder(repository) + kTags + tag);
    }
  }
  forgetReferrer(repository, digest);
  removeFile(path);
  collectBlob(digest);
  return true;
}

void RepositoryStore::forgetReferrer(const std::string& repository, const Digest& digest) {
  const std::string referrers = folder(repository) + kReferrers;
  for (const std::string& subject : namesIn(referrers)) {
    removeFile(referrers + subject + "/" + fileName(digest));
  }
}

bool RepositoryStore::removeTag(const std::string& repository, const std::string& tag) {
  const std::unique_lock lock(changing_);
  return removeFile(folder(repository) + kTags + tag);
}

std::vector<std::string> RepositoryStore::tags(const std::string& repository) const {
  return namesIn(folder(repository) + kTags);
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

}  // namespace hull::registry
