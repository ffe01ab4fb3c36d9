#include "registry/server/verify.h"

#include "base/error.h"
#include "base/hash.h"
#include "base/stream.h"
#include "registry/server/api.h"
#include "registry/server/manifest_document.h"

namespace hull::registry {

using image::Digest;

namespace {

class Verification {
 public:
  Verification(const RepositoryStore& store, const VerifyOptions& options,
               const std::function<void(const std::string&)>& problem)
      : store_(store), options_(options), problem_(problem) {}

  void content(const Digest& digest, uint64_t size) {
    ++report_.contents;
    report_.bytes += size;
    if (options_.quick) return;
    try {
      const Fd fd = store_.blobs().open(digest);
      FdSource source(fd.get());
      Hasher hasher(digest.algorithm());
      FunctionSink sink([&](std::span<const std::byte> bytes) { hasher.update(bytes); });
      copy(source, sink);
      const std::string hex = hasher.finishHex();
      if (hex != digest.hex()) bad("content " + digest.text() + ": its digest is " + hex);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNotFound)
        bad("content " + digest.text() + ": " + error.what());
    }
  }

  void repository(const std::string& name) {
    for (const BlobLink& link : store_.blobLinks(name)) {
      if (!store_.blobs().has(link.digest)) {
        bad("blob " + name + "@" + link.digest.text() + ": its content is missing");
      }
    }
    for (const Digest& digest : store_.manifests(name)) manifest(name, digest);
    for (const std::string& tag : store_.tags(name)) {
      ++report_.tags;
      try {
        if (!store_.findTag(name, tag) && store_.tagTime(name, tag)) {
          bad("tag " + name + ":" + tag + ": its manifest is missing");
        }
      } catch (const Error& error) {
        bad("tag " + name + ":" + tag + ": " + error.what());
      }
    }
  }

  const VerifyReport& report() const { return report_; }

 private:
  void manifest(const std::string& name, const Digest& digest) {
    const std::string shown = "manifest " + name + "@" + digest.text();
    ++report_.manifests;
    const auto stored = store_.findManifest(name, digest);
    if (!stored) return bad(shown + ": its content is missing");
    try {
      const std::string bytes = store_.blobs().read(digest, kMaxServedManifestBytes);
      const NewManifest parsed = readManifest(bytes, digest, stored->media_type);
      if (options_.partial) return;
      for (const Digest& needed : parsed.needed_blobs) {
        if (!store_.hasBlob(name, needed)) bad(shown + ": blob " + needed.text() + " is missing");
      }
      for (const Digest& needed : parsed.needed_manifests) {
        if (!store_.findManifest(name, needed)) {
          bad(shown + ": manifest " + needed.text() + " is missing");
        }
      }
    } catch (const std::exception& error) {
      bad(shown + ": " + error.what());
    }
  }

  void bad(const std::string& text) {
    ++report_.problems;
    problem_(text);
  }

  const RepositoryStore& store_;
  const VerifyOptions& options_;
  const std::function<void(const std::string&)>& problem_;
  VerifyReport report_;
};

}  // namespace

VerifyReport verifyStore(const RepositoryStore& store, const VerifyOptions& options,
                         const std::function<void(const std::string&)>& problem) {
  Verification verification(store, options, problem);
  store.blobs().forEach(
      [&](const Digest& digest, uint64_t size) { verification.content(digest, size); });
  for (const std::string& name : store.list()) verification.repository(name);
  return verification.report();
}

}  // namespace hull::registry
