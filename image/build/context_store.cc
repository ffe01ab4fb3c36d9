#include "image/build/context_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <tuple>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "image/build/lean_tar.h"
#include "image/build/window_source.h"
#include "image/store/abandoned.h"

namespace hull::build {

using image::Digest;
using image::FileContent;

namespace {

constexpr std::string_view kMagic = "hullctx1";
constexpr size_t kRecordBytes = sizeof(Sha256) + 2 * sizeof(uint64_t);
constexpr size_t kMaxTableBytes = kMagic.size() + kMaxNamedContents * kRecordBytes;

using Contents = std::vector<FileContent>;  // sorted by digest, each once

std::string encodeContents(const Contents& contents) {
  ByteWriter out;
  out.raw(kMagic);
  for (const auto& one : contents) {
    out.raw({reinterpret_cast<const char*>(one.digest.data()), one.digest.size()});
    out.u64(one.offset);
    out.u64(one.size);
  }
  return out.take();
}

// `data_bytes`: of the data file they are in.
Contents decodeContents(std::string_view bytes, uint64_t data_bytes) {
  ByteReader in(bytes);
  if (in.raw(kMagic.size()) != kMagic || in.remaining() % kRecordBytes != 0)
    throw Error(ErrorKind::kCorrupt, "read a kept context: not a list of contents");
  Contents contents(in.remaining() / kRecordBytes);
  for (auto& one : contents) {
    const std::string_view digest = in.raw(one.digest.size());
    std::memcpy(one.digest.data(), digest.data(), digest.size());
    one.offset = in.u64();
    one.size = in.u64();
    if (one.offset > data_bytes || one.size > data_bytes - one.offset)
      throw Error(ErrorKind::kCorrupt, "read a kept context: a content beyond the end of its data");
  }
  if (!std::is_sorted(contents.begin(), contents.end()))
    throw Error(ErrorKind::kCorrupt, "read a kept context: its contents are not in order");
  return contents;
}

const FileContent* findContent(const Contents& contents, const Sha256& digest) {
  const auto at = std::lower_bound(
      contents.begin(), contents.end(), digest,
      [](const FileContent& one, const Sha256& wanted) { return one.digest < wanted; });
  return at != contents.end() && at->digest == digest ? &*at : nullptr;
}

// Whether more than half of the bytes of `old` are in `fresh`.
bool mostlyIn(const Contents& old, const Contents& fresh) {
  uint64_t all = 0, shared = 0;
  for (const auto& one : old) {
    all += one.size;
    if (findContent(fresh, one.digest)) shared += one.size;
  }
  return shared > all / 2;
}

// When a context was used last is when its list was changed last; the kernel's own idea of now is
// too coarse to tell two uses apart. One that is gone already: so be it.
void markUsed(const std::string& path) {
  timespec times[2];
  clock_gettime(CLOCK_REALTIME, &times[0]);
  times[1] = times[0];
  ::utimensat(AT_FDCWD, path.c_str(), times, 0);
}

// Open ones by the folder of their image store.
struct Registry {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<ContextStore>> stores;
};

Registry& registry() {
  static Registry all;
  return all;
}

}  // namespace

struct ContextStore::Reader::Table {
  std::string path;  // of the list of contents
  Contents contents;
  Fd data;
  bool used = false;
  std::shared_ptr<void> pin;
};

struct ContextStore::State {
  explicit State(image::ImageStore& images)
      : store(images), folder(images.blobs().root() + "/contexts") {}

  std::string path(const Digest& diff_id) const {
    return folder + "/" + std::string(diff_id.hex());
  }
  Contents load(const Digest& diff_id) const {
    return decodeContents(readFile(path(diff_id), kMaxTableBytes),
                          store.layers().dataBytes(diff_id));
  }
  std::vector<KeptContext> list() const;
  // Calls `visit` with each that can be read, the last used first; what cannot be is dropped.
  template <typename Visit>
  void forEach(Visit visit);
  void drop(const Digest& diff_id);
  void evict(const Digest& newest);

  image::ImageStore& store;
  const std::string folder;
  std::mutex mutex;                              // below, and the folder
  std::map<Digest, std::shared_ptr<void>> kept;  // with its pin
  uint64_t limit = kMaxKeptContextBytes;
};

std::shared_ptr<ContextStore> ContextStore::open(image::ImageStore& store) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  auto& known = all.stores[store.blobs().root()];
  std::shared_ptr<ContextStore> contexts = known.lock();
  if (!contexts) {
    contexts.reset(new ContextStore(store));
    known = contexts;
  }
  return contexts;
}

ContextStore::ContextStore(image::ImageStore& store) : state_(std::make_unique<State>(store)) {
  namespace fs = std::filesystem;
  makeDirectories(state_->folder, 0700);
  image::sweepAbandoned(store.blobs().root(), state_->folder);
  for (const auto& item : fs::directory_iterator(state_->folder)) {
    const std::string name = item.path().filename().string();
    if (name.starts_with(kPendingFilePrefix)) continue;  // somebody is at it
    Digest diff_id;
    try {
      diff_id = Digest::ofSha256Hex(name);
    } catch (const Error&) {
      continue;  // not ours
    }
    auto pin = store.pinLayers({diff_id});
    if (store.layers().has(diff_id))
      state_->kept[diff_id] = std::move(pin);
    else
      state_->drop(diff_id);
  }
}

ContextStore::~ContextStore() = default;

std::vector<KeptContext> ContextStore::State::list() const {
  std::vector<KeptContext> contexts;
  for (const auto& [diff_id, pin] : kept) {
    struct stat data {
    }, used{};
    if (::stat(store.layers().dataPath(diff_id).c_str(), &data) < 0 ||
        ::stat(path(diff_id).c_str(), &used) < 0)
      continue;
    contexts.push_back({diff_id, static_cast<uint64_t>(data.st_size), data.st_mtim.tv_sec,
                        used.st_mtim.tv_sec, used.st_mtim.tv_nsec});
  }
  std::sort(contexts.begin(), contexts.end(), [](const auto& a, const auto& b) {
    return std::tie(a.used_at, a.used_ns, a.diff_id) < std::tie(b.used_at, b.used_ns, b.diff_id);
  });
  return contexts;
}

template <typename Visit>
void ContextStore::State::forEach(Visit visit) {
  std::vector<KeptContext> contexts = list();
  std::reverse(contexts.begin(), contexts.end());
  for (const auto& context : contexts) {
    Contents contents;
    try {
      contents = load(context.diff_id);
    } catch (const Error& error) {
      log::warning("context " + context.diff_id.text() + " is dropped: " + error.what());
      drop(context.diff_id);
      continue;
    }
    visit(context, std::move(contents));
  }
}

void ContextStore::State::drop(const Digest& diff_id) {
  if (::unlink(path(diff_id).c_str()) < 0 && errno != ENOENT)
    throw sysError("remove " + path(diff_id));
  kept.erase(diff_id);
}

std::string ContextStore::held(std::string_view digests) {
  if (digests.size() % sizeof(Sha256) != 0)
    throw Error(ErrorKind::kInvalidArgument, "ask for contents: not a row of SHA-256 digests");
  const size_t count = digests.size() / sizeof(Sha256);
  if (count > kMaxNamedContents) {
    throw Error(ErrorKind::kTooLarge,
                "ask for contents: more than " + std::to_string(kMaxNamedContents) + " digests");
  }
  std::string answer(count, '0');
  const std::lock_guard lock(state_->mutex);
  state_->forEach([&](const KeptContext&, const Contents& contents) {
    for (size_t i = 0; i < count; ++i) {
      Sha256 digest;
      std::memcpy(digest.data(), digests.data() + i * digest.size(), digest.size());
      if (findContent(contents, digest)) answer[i] = '1';
    }
  });
  return answer;
}

ContextStore::Reader ContextStore::reader() {
  Reader reader;
  const std::lock_guard lock(state_->mutex);
  state_->forEach([&](const KeptContext& context, Contents contents) {
    auto table = std::make_shared<Reader::Table>();
    table->path = state_->path(context.diff_id);
    table->contents = std::move(contents);
    table->data = openFile(state_->store.layers().dataPath(context.diff_id), O_RDONLY);
    table->pin = state_->kept.at(context.diff_id);
    reader.tables_.push_back(std::move(table));
  });
  return reader;
}

std::unique_ptr<Source> ContextStore::Reader::open(const Sha256& digest, uint64_t size) {
  for (const auto& table : tables_) {
    const FileContent* const found = findContent(table->contents, digest);
    if (!found || found->size != size) continue;
    if (!std::exchange(table->used, true)) markUsed(table->path);
    return std::make_unique<WindowSource>(table->data.get(), found->offset, size);
  }
  throw Error(ErrorKind::kConflict,
              "read lean tar: a named content is not kept any more (send the context whole)");
}

void ContextStore::keep(const image::IngestedLayer& context, Contents contents) {
  if (contents.empty() || contents.size() > kMaxNamedContents) return;
  std::sort(contents.begin(), contents.end());
  contents.erase(std::unique(contents.begin(), contents.end(),
                             [](const auto& a, const auto& b) { return a.digest == b.digest; }),
                 contents.end());
  const std::lock_guard lock(state_->mutex);
  if (state_->store.layers().dataBytes(context.diff_id) > state_->limit) return;
  PendingFile file = image::makePendingFile(state_->store.blobs().root(), state_->folder);
  inContext("keep a context", [&] { writeFull(file.fd(), encodeContents(contents)); });
  file.publish(state_->path(context.diff_id));
  markUsed(state_->path(context.diff_id));
  state_->kept[context.diff_id] = state_->store.pinLayers({context.diff_id});
  state_->forEach([&](const KeptContext& other, const Contents& old) {
    if (other.diff_id != context.diff_id && mostlyIn(old, contents)) state_->drop(other.diff_id);
  });
  state_->evict(context.diff_id);
}

void ContextStore::State::evict(const Digest& newest) {
  std::vector<KeptContext> contexts = list();
  uint64_t bytes = 0;
  for (const auto& context : contexts) bytes += context.bytes;
  size_t left = contexts.size();
  for (const auto& context : contexts) {
    if (bytes <= limit && left <= kMaxKeptContexts) return;
    if (context.diff_id == newest) continue;
    drop(context.diff_id);
    bytes -= context.bytes;
    --left;
  }
}

void ContextStore::forget(const Sha256& digest) {
  const std::lock_guard lock(state_->mutex);
  state_->forEach([&](const KeptContext& context, const Contents& contents) {
    if (findContent(contents, digest)) state_->drop(context.diff_id);
  });
}

std::vector<KeptContext> ContextStore::list() {
  const std::lock_guard lock(state_->mutex);
  return state_->list();
}

bool ContextStore::remove(const Digest& diff_id) {
  const std::lock_guard lock(state_->mutex);
  if (!state_->kept.contains(diff_id)) return false;
  state_->drop(diff_id);
  return true;
}

void ContextStore::setLimit(uint64_t bytes) {
  const std::lock_guard lock(state_->mutex);
  state_->limit = bytes;
}

}  // namespace hull::build
