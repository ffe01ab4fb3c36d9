#include "registry/server/pull_through.h"

#include <fcntl.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "registry/client/blob_reader.h"
#include "registry/server/api.h"
#include "registry/server/manifest_document.h"

namespace hull::registry {

using image::Digest;

namespace {

constexpr size_t kMaxForwardedBytes = size_t{8} << 20;
constexpr const char* kHits = "hull_registry_cache_hits_total";
constexpr const char* kHitsHelp = "Manifests served without fetching them.";
constexpr const char* kMisses = "hull_registry_cache_misses_total";
constexpr const char* kMissesHelp = "Manifests and blobs fetched from the other registry.";
constexpr const char* kAcceptManifests =
    "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

ApiError unreachable(const std::string& upstream, const std::string& why) {
  log::warning("ask " + upstream + ": " + why);
  return ApiError(502, code::kUnknown, "the registry that this one caches cannot be asked");
}

Digest digestOf(std::string_view bytes, const Digest& like) {
  Hasher hasher(like.empty() ? HashAlgorithm::kSha256 : like.algorithm());
  hasher.update(bytes);
  return Digest::parse((like.empty() ? "sha256" : std::string(like.algorithmName())) + ":" +
                       hasher.finishHex());
}

}  // namespace

// One blob on its way in: a file that grows, and who waits for it.
class PullThrough::Fill {
 public:
  Fill(std::string in, Digest what) : repository(std::move(in)), digest(std::move(what)) {}

  const std::string repository;
  const Digest digest;

  void opened(Fd file, uint64_t total) {
    change([&] {
      file_ = std::move(file);
      total_ = total;
      state_ = State::kFilling;
    });
  }
  void grew(uint64_t bytes) {
    change([&] { received_ += bytes; });
  }
  void finish() {
    change([&] { state_ = State::kDone; });
  }
  void absent() {
    change([&] { state_ = State::kAbsent; });
  }
  void fail(const std::string& why) {
    change([&] {
      state_ = State::kFailed;
      why_ = why;
    });
  }

  // False: there is none. Throws when it could not be asked for.
  bool waitOpened() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return state_ != State::kOpening; });
    if (state_ == State::kFailed && total_ == 0) throw Error(ErrorKind::kUnavailable, why_);
    return state_ != State::kAbsent;
  }

  uint64_t total() const { return total_; }  // after waitOpened

  size_t read(uint64_t offset, std::span<std::byte> into) {
    uint64_t end = 0;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return state_ != State::kFilling || visible() > offset; });
      if (state_ == State::kFailed) throw Error(ErrorKind::kUnavailable, why_);
      end = visible();
    }
    if (offset >= end) return 0;
    const size_t size = static_cast<size_t>(std::min<uint64_t>(into.size(), end - offset));
    return preadFull(file_.get(), into.first(size), offset);
  }

 private:
  enum class State { kOpening, kFilling, kDone, kAbsent, kFailed };

  template <typename Change>
  void change(Change&& what) {
    const std::lock_guard lock(mutex_);
    what();
    changed_.notify_all();
  }
  uint64_t visible() const {
    if (state_ == State::kDone) return total_;
    return std::min(received_, total_ > 0 ? total_ - 1 : 0);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  State state_ = State::kOpening;  // guarded by mutex_, as below; file_ and total_ until opened
  Fd file_;
  uint64_t total_ = 0;
  uint64_t received_ = 0;
  std::string why_;
};

namespace {

class FillReader final : public Source {
 public:
  FillReader(std::shared_ptr<PullThrough::Fill> fill, uint64_t offset)
      : fill_(std::move(fill)), offset_(offset) {}
  size_t read(std::span<std::byte> into) override {
    const size_t got = fill_->read(offset_, into);
    offset_ += got;
    return got;
  }

 private:
  std::shared_ptr<PullThrough::Fill> fill_;
  uint64_t offset_;
};

}  // namespace

uint64_t PullThrough::Fetched::size() const {
  return fill_->total();
}

std::shared_ptr<Source> PullThrough::Fetched::read(uint64_t offset) const {
  return std::make_shared<FillReader>(fill_, offset);
}

PullThrough::PullThrough(const CacheOptions& options, RepositoryStore& store, Metrics& metrics)
    : options_(options), store_(store), metrics_(metrics), registry_(options.upstream) {
  if (registry_.starts_with("https://")) registry_.erase(0, 8);
  if (registry_.starts_with("http://")) {
    registry_.erase(0, 7);
    client_.insecure_registries.push_back(registry_);
  }
  while (registry_.ends_with('/')) registry_.pop_back();
  Url::parse("https://" + registry_);  // throws for what is no host
  client_.ca_bundle = options.ca_bundle;
  client_.cancelled = [this] { return stopping_.load(); };
  makeDirectories(store_.root() + "/uploads");
}

PullThrough::~PullThrough() {
  stopping_ = true;
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return fills_.empty(); });
}

std::string PullThrough::upstreamName(const std::string& repository) const {
  const bool short_name = repository.find('/') == std::string::npos;
  return registry_ == "docker.io" && short_name ? "library/" + repository : repository;
}

std::shared_ptr<Session> PullThrough::session(const std::string& repository) {
  const std::lock_guard lock(mutex_);
  if (sessions_.size() >= kMaxCachedSessions && !sessions_.contains(repository)) sessions_.clear();
  std::shared_ptr<Session>& found = sessions_[repository];
  if (!found) {
    found = std::make_shared<Session>(
        registry_, std::vector<std::string>{"repository:" + upstreamName(repository) + ":pull"},
        Credentials{options_.username, options_.password, {}}, client_);
  }
  return found;
}

std::unique_ptr<Transfer> PullThrough::ask(const char* method, const std::string& repository,
                                           const std::string& rest) {
  Call call;
  call.method = method;
  call.target = "/v2/" + upstreamName(repository) + rest;
  call.headers.push_back(kAcceptManifests);
  return session(repository)->send(call);
}

std::unique_ptr<PullThrough::Fetched> PullThrough::fetchBlob(const std::string& repository,
                                                             const Digest& digest) {
  const std::string key = repository + "@" + digest.text();
  std::shared_ptr<Fill> found;
  {
    const std::lock_guard lock(mutex_);
    const auto it = fills_.find(key);
    if (it != fills_.end()) {
      found = it->second;
    } else {
      if (fills_.size() >= kMaxFills || stopping_) {
        throw ApiError(429, code::kTooManyRequests, "too many blobs are being fetched",
                       {{"Retry-After", "5"}});
      }
      found = std::make_shared<Fill>(repository, digest);
      std::thread([this, found] { fill(found); }).detach();
      fills_[key] = found;
    }
  }
  try {
    if (!found->waitOpened()) return nullptr;
  } catch (const Error& error) {
    throw unreachable(registry_, error.what());
  }
  return std::make_unique<Fetched>(std::move(found));
}

void PullThrough::fill(const std::shared_ptr<Fill>& fill) {
  try {
    receive(*fill);
  } catch (const Error& error) {
    const bool absent = error.kind() == ErrorKind::kNotFound ||
                        error.kind() == ErrorKind::kForbidden ||
                        error.kind() == ErrorKind::kUnauthorized;
    if (absent) {
      fill->absent();
    } else {
      log::warning("cache blob " + fill->digest.text() + ": " + error.what());
      fill->fail(error.what());
    }
  } catch (const std::exception& error) {
    fill->fail(error.what());
  }
  const std::lock_guard lock(mutex_);
  fills_.erase(fill->repository + "@" + fill->digest.text());
  ended_.notify_all();
}

void PullThrough::receive(Fill& fill) {
  const auto with = session(fill.repository);
  BlobReader reader(*with, "/v2/" + upstreamName(fill.repository) + "/blobs/" + fill.digest.text(),
                    fill.digest.text());
  metrics_.add(kMisses, kMissesHelp);
  PendingFile file(store_.root() + "/uploads");
  fill.opened(openFile(file.path(), O_RDONLY), reader.size());
  Hasher hasher(fill.digest.algorithm());
  std::vector<std::byte> buffer(kStreamChunkBytes);
  uint64_t total = 0;
  while (const size_t got = reader.read(buffer)) {
    const auto bytes = std::span<const std::byte>(buffer).first(got);
    if (total + got > reader.size()) break;
    writeFull(file.fd(), bytes);
    hasher.update(bytes);
    total += got;
    fill.grew(got);
  }
  const std::string hex = hasher.finishHex();
  if (total != reader.size() || hex != fill.digest.hex()) {
    throw Error(ErrorKind::kCorrupt, "digest mismatch (got " + hex + ")");
  }
  store_.publishBlob(fill.repository, fill.digest, file.path());
  fill.finish();
}

// Asks whether the tag still means what is here; throws when nobody answers.
bool PullThrough::changed(const std::string& repository, const std::string& tag) {
  const auto answer = ask("HEAD", repository, "/manifests/" + tag);
  const int status = answer->head().status;
  if (status == 404) {
    store_.removeTag(repository, tag);
    return false;
  }
  if (status != 200) throw unexpected(*answer, "look for manifest " + tag);
  const auto here = store_.findTag(repository, tag);
  return !here || answer->head().header("docker-content-digest") != here->digest.text();
}

void PullThrough::fetchManifest(const std::string& repository, const std::string& reference) {
  const auto answer = ask("GET", repository, "/manifests/" + reference);
  const int status = answer->head().status;
  if (status == 404 || status == 401 || status == 403) return;
  if (status != 200) throw unexpected(*answer, "get manifest " + reference);
  const std::string bytes = answer->text(kMaxServedManifestBytes, "manifest");
  const bool by_digest = reference.find(':') != std::string::npos;
  const Digest wanted = by_digest ? Digest::parse(reference) : Digest();
  const Digest digest = digestOf(bytes, wanted);
  if (by_digest && digest != wanted) {
    throw Error(ErrorKind::kCorrupt,
                "get manifest " + reference + ": digest mismatch (got " + digest.text() + ")");
  }
  try {
    NewManifest manifest = readManifest(bytes, digest, answer->head().header("content-type"));
    if (!by_digest) manifest.tag = reference;
    store_.putManifest(repository, manifest, true);
  } catch (const ApiError& error) {
    throw Error(ErrorKind::kCorrupt, "get manifest " + reference + ": " + error.what());
  }
  metrics_.add(kMisses, kMissesHelp);
}

void PullThrough::refresh(const std::string& repository, const std::string& reference) {
  const bool by_digest = reference.find(':') != std::string::npos;
  const bool here = by_digest
                        ? store_.findManifest(repository, Digest::parse(reference)).has_value()
                        : store_.findTag(repository, reference).has_value();
  if (here) {
    const auto checked = by_digest ? std::nullopt : store_.tagTime(repository, reference);
    const bool fresh =
        by_digest || (checked && std::chrono::system_clock::now() - *checked < options_.revalidate);
    if (fresh) return metrics_.add(kHits, kHitsHelp);
  }
  try {
    if (here && !changed(repository, reference)) {
      store_.touchTag(repository, reference);
      return metrics_.add(kHits, kHitsHelp);
    }
    fetchManifest(repository, reference);
  } catch (const Error& error) {
    if (!here) throw unreachable(registry_, error.what());
    log::warning("ask " + registry_ + ": " + error.what() + " (serving what is here)");
  }
}

std::optional<Response> PullThrough::forward(const std::string& target,
                                             const std::string& repository) {
  try {
    const std::string prefix = "/v2/" + repository;
    if (!target.starts_with(prefix)) return std::nullopt;
    const auto answer = ask("GET", repository, target.substr(prefix.size()));
    if (answer->head().status != 200) return std::nullopt;
    Response response;
    for (const char* name : {"Content-Type", "Link", "OCI-Filters-Applied"}) {
      std::string lower = name;
      for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
      const std::string value = answer->head().header(lower);
      const bool elsewhere = lower == "link" && !value.starts_with("</v2/" + repository);
      if (!value.empty() && !elsewhere) response.headers.emplace_back(name, value);
    }
    response.body = answer->text(kMaxForwardedBytes, "answer");
    return response;
  } catch (const Error& error) {
    log::warning("ask " + registry_ + ": " + error.what() + " (answering with what is here)");
    return std::nullopt;
  }
}

}  // namespace hull::registry
