// Pushing: what the registry lacks of an image, then its manifest.
#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <set>
#include <thread>

#include "base/error.h"
#include "registry/client/client.h"
#include "registry/client/repository.h"

namespace hull::registry {

using image::Descriptor;
using image::Digest;
using image::Image;
using image::Manifest;
using image::Reference;

namespace {

constexpr size_t kParallelUploads = 4;
constexpr uint64_t kProgressStepBytes = 512 << 10;
constexpr size_t kMaxMountSources = 4;  // repositories a token is asked for

// Repositories of the same registry that images with this layer are known under, by layer.
std::map<Digest, std::string> mountSources(const image::ImageStore& store, const Image& pushed,
                                           const Reference& name) {
  std::map<Digest, std::string> sources;
  std::set<std::string> repositories;
  for (const Image& known : store.list()) {
    std::vector<Reference> names = known.digests;  // those were pulled or pushed
    const auto other = std::find_if(names.begin(), names.end(), [&](const Reference& candidate) {
      return candidate.registry == name.registry && candidate.repository != name.repository;
    });
    if (other == names.end()) continue;
    for (const Descriptor& layer : known.layer_blobs) {
      const bool needed =
          std::any_of(pushed.layer_blobs.begin(), pushed.layer_blobs.end(),
                      [&](const Descriptor& mine) { return mine.digest == layer.digest; });
      if (!needed || sources.contains(layer.digest)) continue;
      if (!repositories.contains(other->repository) && repositories.size() == kMaxMountSources) {
        continue;
      }
      repositories.insert(other->repository);
      sources[layer.digest] = other->repository;
    }
  }
  return sources;
}

std::vector<std::string> pushScopes(const Reference& name,
                                    const std::map<Digest, std::string>& sources) {
  std::vector<std::string> scopes{"repository:" + name.repository + ":pull,push"};
  std::set<std::string> repositories;
  for (const auto& [digest, repository] : sources) repositories.insert(repository);
  for (const std::string& repository : repositories) {
    scopes.push_back("repository:" + repository + ":pull");
  }
  return scopes;
}

class Pusher {
 public:
  Pusher(image::BlobStore& blobs, Repository& repository,
         const std::map<Digest, std::string>& sources, const image::ProgressFunction& progress)
      : blobs_(blobs), repository_(repository), sources_(sources), progress_(progress) {}

  void layers(const std::vector<Descriptor>& layers) {
    std::vector<Descriptor> jobs;
    for (const Descriptor& layer : layers) {
      const bool twice = std::any_of(jobs.begin(), jobs.end(), [&](const Descriptor& job) {
        return job.digest == layer.digest;
      });
      if (!twice) jobs.push_back(layer);
    }
    for (const Descriptor& job : jobs) report(job, "Preparing", 0);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < std::min(kParallelUploads, jobs.size()); ++i) {
      threads.emplace_back([&] { work(jobs); });
    }
    for (std::thread& thread : threads) thread.join();
    if (error_) std::rethrow_exception(error_);
  }

  void blob(const Descriptor& blob, bool shown) {
    if (repository_.hasBlob(blob.digest)) {
      if (shown) report(blob, "Layer already exists", 0);
      return;
    }
    const Fd file = blobs_.open(blob.digest);
    const uint64_t bytes = fileSize(file.get());
    const auto from = sources_.find(blob.digest);
    const std::string source = from == sources_.end() ? std::string() : from->second;
    uint64_t reported = 0;
    const auto sent = [&](uint64_t now) {
      if (!shown || (now < reported + kProgressStepBytes && now != bytes)) return;
      reported = now;
      report(blob, "Pushing", now);
    };
    bool mounted = false;
    repository_.upload(blob.digest, source, file.get(), bytes, sent, mounted);
    if (shown) report(blob, mounted ? "Mounted from " + source : "Pushed", 0);
  }

 private:
  void work(const std::vector<Descriptor>& jobs) {
    try {
      for (size_t i = next_++; i < jobs.size() && !failed_; i = next_++) blob(jobs[i], true);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      failed_ = true;
    }
  }

  void report(const Descriptor& blob, const std::string& status, uint64_t current) {
    if (progress_) progress_({blob.digest, status, current, blob.size});
  }

  image::BlobStore& blobs_;
  Repository& repository_;
  const std::map<Digest, std::string>& sources_;
  const image::ProgressFunction& progress_;
  std::atomic<size_t> next_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  std::exception_ptr error_;  // guarded by mutex_
};

PushResult pushFrom(image::ImageStore& store, const Reference& name, const Credentials& credentials,
                    const ClientOptions& options, const image::ProgressFunction& progress) {
  const auto image = store.find(name.text());
  if (!image) {
    throw DockerError(ErrorKind::kNotFound,
                      "An image does not exist locally with the tag: " + name.familiarName());
  }
  const std::string bytes = store.blobs().read(image->manifest, image::kMaxManifestBytes);
  const auto manifest = std::get<Manifest>(image::parseManifest(bytes));
  const auto sources = mountSources(store, *image, name);
  Session session(name.registry, pushScopes(name, sources), credentials, options);
  Repository repository(session, name.repository);
  Pusher pusher(store.blobs(), repository, sources, progress);
  pusher.layers(manifest.layers);
  pusher.blob(manifest.config, false);
  repository.putManifest(name.tag, bytes, manifest.media_type);

  Reference by_digest = name;
  by_digest.tag.clear();
  by_digest.digest = image->manifest;
  store.recordDigest(image->id, by_digest);
  return {image->manifest, bytes.size()};
}

}  // namespace

PushResult push(image::ImageStore& store, const Reference& name, const Credentials& credentials,
                const ClientOptions& options, const image::ProgressFunction& progress) {
  if (!name.digest.empty() || name.tag.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "cannot push a digest reference");
  }
  try {
    return pushFrom(store, name, credentials, options, progress);
  } catch (const DockerError&) {
    throw;
  } catch (const Error& error) {
    const bool denied =
        error.kind() == ErrorKind::kUnauthorized || error.kind() == ErrorKind::kForbidden;
    if (!denied) throw error.within("push " + name.familiar());
    throw Error(error.kind(), "push access denied for " + name.familiarName() +
                                  ", it may require 'hull login': " + error.what());
  }
}

}  // namespace hull::registry
