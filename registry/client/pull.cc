// Pulling: from a name to an image in the store.
#include <atomic>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "registry/client/client.h"
#include "registry/client/repository.h"
#include "registry/client/trust.h"

namespace hull::registry {

using image::Descriptor;
using image::Digest;
using image::Index;
using image::Manifest;
using image::Reference;

namespace {

constexpr int kMaxIndexDepth = 3;  // an index may name indexes

std::vector<std::string> pullScope(const Reference& name) {
  return {"repository:" + name.repository + ":pull"};
}

std::string referenceOf(const Reference& name) {
  return name.digest.empty() ? name.tag : name.digest.text();
}

class RegistryBlobs final : public image::BlobSource {
 public:
  explicit RegistryBlobs(Repository& repository) : repository_(repository) {}
  std::unique_ptr<Source> open(const Descriptor& blob) override {
    fetched_ = true;
    return repository_.open(blob);  // from this registry, never from the descriptor's urls
  }
  bool fetched() const { return fetched_; }

 private:
  Repository& repository_;
  std::atomic<bool> fetched_ = false;
};

// Follows indexes to the manifest for `platform`. `top` is what the name itself stands for.
std::string selectManifest(Repository& repository, image::ImageStore& store, FetchedManifest top,
                           const Reference& name, const image::Platform& platform) {
  FetchedManifest current = std::move(top);
  for (int depth = 0; depth < kMaxIndexDepth; ++depth) {
    const auto document = image::parseManifest(current.bytes, current.media_type);
    if (std::holds_alternative<Manifest>(document)) return current.bytes;
    const Descriptor& chosen = std::get<Index>(document).select(platform);
    if (store.blobs().has(chosen.digest)) {
      current.bytes = store.blobs().read(chosen.digest, image::kMaxManifestBytes);
      current.media_type = chosen.media_type;
    } else {
      current = repository.manifest(chosen.digest.text(), name);
    }
  }
  throw Error(ErrorKind::kCorrupt, "indexes within indexes, too many");
}

// From where a name is pulled: its registry, or a mirror of it.
struct Origin {
  std::string registry;
  Credentials credentials;
  ClientOptions options;
};

PullResult pullFrom(const Origin& origin, image::ImageStore& store, const Reference& name,
                    const image::Platform& platform, const image::ProgressFunction& progress) {
  Session session(origin.registry, pullScope(name), origin.credentials, origin.options);
  Repository repository(session, name.repository);
  FetchedManifest top = repository.manifest(referenceOf(name), name);

  Reference by_digest = name;
  by_digest.tag.clear();
  by_digest.digest = top.digest;
  std::vector<Reference> names{by_digest};
  const bool by_tag = name.digest.empty();
  if (by_tag) names.push_back(name);

  const std::string manifest = selectManifest(repository, store, std::move(top), name, platform);
  const auto before = store.find((by_tag ? name : by_digest).text());
  RegistryBlobs blobs(repository);
  PullResult result;
  result.image = store.add(manifest, blobs, names, progress);
  result.up_to_date = !blobs.fetched() && before && before->id == result.image.id;
  return result;
}

// The credentials are for the registry itself: a mirror gets none.
Origin mirrorOrigin(const std::string& mirror, const ClientOptions& options) {
  const Url url = Url::parse(mirror);
  Origin origin{url.authority(), {}, options};
  if (url.scheme == "http") origin.options.insecure_registries.push_back(origin.registry);
  return origin;
}

// Mirrors first, in order; whatever is wrong with one of them, the next is asked, the registry
// itself at last.
PullResult pullAnywhere(image::ImageStore& store, const Reference& name,
                        const image::Platform& platform, const Credentials& credentials,
                        const ClientOptions& options, const image::ProgressFunction& progress) {
  for (const std::string& mirror : mirrorsOf(certificateFolders(), name.registry)) {
    try {
      return pullFrom(mirrorOrigin(mirror, options), store, name, platform, progress);
    } catch (const Error& error) {
      const bool final = error.kind() == ErrorKind::kCancelled ||
                         error.kind() == ErrorKind::kNoSpace ||
                         error.kind() == ErrorKind::kNotSupported;
      if (final) throw;
      log::warning("pull " + name.familiar() + " from mirror " + mirror + ": " + error.what());
    }
  }
  return pullFrom({name.registry, credentials, options}, store, name, platform, progress);
}

}  // namespace

PullResult pull(image::ImageStore& store, const Reference& name, const image::Platform& platform,
                const Credentials& credentials, const ClientOptions& options,
                const image::ProgressFunction& progress) {
  try {
    return pullAnywhere(store, name, platform, credentials, options, progress);
  } catch (const DockerError&) {
    throw;
  } catch (const Error& error) {
    throw error.within("pull " + name.familiar());
  }
}

std::string login(const std::string& registry, const Credentials& credentials,
                  const ClientOptions& options) {
  return inContext("log in to " + registry, [&] {
    Session session(registry, {}, credentials, options);
    return session.login();
  });
}

Descriptor resolve(const Reference& name, const Credentials& credentials,
                   const ClientOptions& options) {
  try {
    Session session(name.registry, pullScope(name), credentials, options);
    Repository repository(session, name.repository);
    if (auto found = repository.describe(referenceOf(name), name)) return *found;
    const FetchedManifest fetched = repository.manifest(referenceOf(name), name);
    return {fetched.media_type, fetched.digest, fetched.bytes.size(), {}, {}};
  } catch (const DockerError&) {
    throw;
  } catch (const Error& error) {
    throw error.within("resolve " + name.familiar());
  }
}

}  // namespace hull::registry
