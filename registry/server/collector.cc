#include "registry/server/collector.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "registry/server/api.h"
#include "registry/server/manifest_document.h"
#include "registry/server/pattern.h"

namespace hull::registry {

using image::Digest;

namespace {

// Contents that some repository names, by the first 64 bits of their digests: 8 bytes each instead
// of a hundred. Two that collide keep each other alive, which is harmless.
class Named {
 public:
  void add(const Digest& digest) { keys_.push_back(key(digest)); }
  void seal() { std::sort(keys_.begin(), keys_.end()); }
  bool contains(const Digest& digest) const {
    return std::binary_search(keys_.begin(), keys_.end(), key(digest));
  }

 private:
  static uint64_t key(const Digest& digest) {
    uint64_t value = 0;
    const std::string_view hex = digest.hex();
    std::from_chars(hex.data(), hex.data() + 16, value, 16);
    return value;
  }
  std::vector<uint64_t> keys_;
};

class Collection {
 public:
  Collection(RepositoryStore& store, const CollectionRun& run)
      : store_(store),
        run_(run),
        started_(std::chrono::system_clock::now()),
        before_(started_ - run.options.grace) {}

  CollectionReport all() {
    for (const std::string& repository : store_.list()) {
      if (stopped()) return report_;
      try {
        retain(repository);
        collect(repository);
      } catch (const Error& error) {
        // Without knowing what is needed nothing may go; its blobs stay named.
        log::warning("collect garbage of " + repository + ": " + error.what());
      }
      // What a dry run would have taken out counts as gone.
      for (const BlobLink& link : store_.blobLinks(repository)) {
        if (!gone_.contains({repository, link.digest})) named_.add(link.digest);
      }
      for (const BlobLink& link : store_.manifestLinks(repository)) {
        if (!gone_.contains({repository, link.digest})) named_.add(link.digest);
      }
    }
    sweepContents();
    return report_;
  }

 private:
  bool stopped() const { return run_.stopping && *run_.stopping; }

  void say(const std::string& what) {
    if (run_.report) run_.report(what);
  }

  void retain(const std::string& repository) {
    for (const RetentionRule& rule : run_.options.retention) {
      if (!matchesPattern(rule.repository, repository)) continue;
      auto tags = store_.tagTimes(repository);
      std::erase_if(tags, [&](const NamedFile& tag) {
        return !matchesPattern(rule.tag, tag.name) ||
               gone_tags_.contains(repository + ":" + tag.name);
      });
      std::sort(tags.begin(), tags.end(), [](const NamedFile& a, const NamedFile& b) {
        return a.written != b.written ? a.written > b.written : a.name > b.name;
      });
      for (size_t i = rule.keep_newest; i < tags.size(); ++i) {
        const bool kept = matchesTag(run_.immutable_tags, repository, tags[i].name) ||
                          std::any_of(rule.keep.begin(), rule.keep.end(), [&](const auto& pattern) {
                            return matchesPattern(pattern, tags[i].name);
                          });
        if (kept || tags[i].written > started_ - rule.keep_younger) continue;
        say("tag " + repository + ":" + tags[i].name);
        ++report_.tags;
        gone_tags_.insert(repository + ":" + tags[i].name);
        if (!run_.dry_run) store_.removeTag(repository, tags[i].name);
      }
    }
  }

  struct Known {
    std::vector<Digest> blobs;
    std::vector<Digest> manifests;
    Digest subject;
  };

  std::map<Digest, Known> readManifests(const std::vector<BlobLink>& links,
                                        const std::string& repository) {
    std::map<Digest, Known> known;
    for (const BlobLink& link : links) {
      const auto stored = store_.findManifest(repository, link.digest);
      if (!stored) continue;
      const std::string bytes = store_.blobs().read(link.digest, kMaxServedManifestBytes);
      try {
        NewManifest parsed = readManifest(bytes, link.digest, stored->media_type);
        known[link.digest] = {std::move(parsed.needed_blobs), std::move(parsed.needed_manifests),
                              parsed.subject};
      } catch (const ApiError& error) {
        throw Error(ErrorKind::kCorrupt,
                    "read manifest " + link.digest.text() + ": " + error.what());
      }
    }
    return known;
  }

  // From the tags down through indexes, and up from subjects to what refers to them.
  std::set<Digest> reachable(const std::string& repository, const std::map<Digest, Known>& known) {
    std::vector<Digest> open;
    for (const std::string& tag : store_.tags(repository)) {
      if (gone_tags_.contains(repository + ":" + tag)) continue;
      if (const auto found = store_.findTag(repository, tag)) open.push_back(found->digest);
    }
    std::multimap<Digest, Digest> referrers;
    for (const auto& [digest, manifest] : known) {
      if (!manifest.subject.empty()) referrers.emplace(manifest.subject, digest);
    }
    std::set<Digest> found;
    while (!open.empty()) {
      const Digest digest = open.back();
      open.pop_back();
      if (!found.insert(digest).second) continue;
      const auto [from, to] = referrers.equal_range(digest);
      for (auto it = from; it != to; ++it) open.push_back(it->second);
      const auto it = known.find(digest);
      if (it == known.end()) continue;
      open.insert(open.end(), it->second.manifests.begin(), it->second.manifests.end());
    }
    return found;
  }

  void collect(const std::string& repository) {
    const auto links = store_.manifestLinks(repository);
    auto known = readManifests(links, repository);
    if (run_.options.untagged) {
      const auto needed = reachable(repository, known);
      for (const BlobLink& link : links) {
        if (needed.contains(link.digest) || link.written > before_) continue;
        if (!run_.dry_run && !store_.dropManifest(repository, link.digest, before_)) continue;
        say("manifest " + repository + "@" + link.digest.text());
        ++report_.manifests;
        gone_.insert({repository, link.digest});
        known.erase(link.digest);
      }
    }
    std::set<Digest> needed;
    for (const auto& [digest, manifest] : known) {
      needed.insert(manifest.blobs.begin(), manifest.blobs.end());
    }
    for (const BlobLink& link : store_.blobLinks(repository)) {
      if (needed.contains(link.digest) || link.written > before_) continue;
      if (!run_.dry_run && !store_.dropBlob(repository, link.digest, before_)) continue;
      say("blob " + repository + "@" + link.digest.text());
      ++report_.blobs;
      gone_.insert({repository, link.digest});
    }
  }

  void sweepContents() {
    named_.seal();
    std::vector<std::pair<Digest, uint64_t>> unnamed;
    store_.blobs().forEach([&](const Digest& digest, uint64_t size) {
      if (!named_.contains(digest)) unnamed.emplace_back(digest, size);
    });
    for (const auto& [digest, size] : unnamed) {
      if (stopped()) return;
      const auto written = store_.contentTime(digest);
      if (!written || *written > before_) continue;
      if (!run_.dry_run && !store_.dropContent(digest, before_)) continue;
      say("content " + digest.text() + " (" + std::to_string(size) + " bytes)");
      ++report_.contents;
      report_.bytes += size;
    }
  }

  RepositoryStore& store_;
  const CollectionRun& run_;
  const FileTime started_;
  const FileTime before_;
  Named named_;
  std::set<std::pair<std::string, Digest>> gone_;
  std::set<std::string> gone_tags_;
  CollectionReport report_;
};

}  // namespace

std::string CollectionReport::text(bool dry_run) const {
  return std::string(dry_run ? "would remove " : "removed ") + std::to_string(tags) + " tags, " +
         std::to_string(manifests) + " manifests, " + std::to_string(blobs) +
         " blobs from repositories, " + std::to_string(contents) + " contents of " +
         std::to_string(bytes) + " bytes";
}

CollectionReport collectGarbage(RepositoryStore& store, const CollectionRun& run) {
  return Collection(store, run).all();
}

}  // namespace hull::registry
