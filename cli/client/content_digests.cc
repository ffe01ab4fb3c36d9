#include "cli/client/content_digests.h"

#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"

namespace hull::cli {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "hullsha1";
constexpr size_t kRecordBytes = 5 * sizeof(uint64_t) + 2 * sizeof(uint32_t) + sizeof(Sha256);
constexpr size_t kMaxCacheBytes = size_t{256} << 20;
constexpr auto kForgottenAfter = std::chrono::hours(24 * 30);  // files of folders not built since

bool same(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

void put(ByteWriter& out, const timespec& when) {
  out.i64(when.tv_sec);
  out.u32(static_cast<uint32_t>(when.tv_nsec));
}

timespec takeTime(ByteReader& in) {
  timespec when{};
  when.tv_sec = in.i64();
  when.tv_nsec = in.u32();
  return when;
}

void removeForgotten(const std::string& folder) {
  const auto now = fs::file_time_type::clock::now();
  std::error_code ignored;
  for (const auto& item : fs::directory_iterator(folder, ignored)) {
    const auto used = item.last_write_time(ignored);
    if (!ignored && now - used > kForgottenAfter) fs::remove(item.path(), ignored);
  }
}

}  // namespace

bool ContentDigests::Known::fits(const struct stat& info) const {
  return size == static_cast<uint64_t>(info.st_size) && same(mtime, info.st_mtim) &&
         same(ctime, info.st_ctim);
}

int64_t ContentDigests::secondsNow() {
  return time(nullptr);
}

ContentDigests::ContentDigests(std::string cache, std::function<int64_t()> now)
    : cache_(std::move(cache)), now_(std::move(now)) {
  try {
    if (fileExists(cache_)) load();
  } catch (const Error&) {
    files_.clear();
  }
}

void ContentDigests::load() {
  const std::string bytes = readFile(cache_, kMaxCacheBytes);
  ByteReader in(bytes);
  if (in.raw(kMagic.size()) != kMagic || in.remaining() % kRecordBytes != 0) return;
  while (!in.atEnd()) {
    const uint64_t device = in.u64();
    const uint64_t inode = in.u64();
    Known& known = files_[{device, inode}];
    known.size = in.u64();
    known.mtime = takeTime(in);
    known.ctime = takeTime(in);
    const std::string_view digest = in.raw(known.digest.size());
    std::memcpy(known.digest.data(), digest.data(), digest.size());
    known.settled = true;
  }
}

std::optional<Sha256> ContentDigests::known(const struct stat& info) const {
  const auto found = files_.find({info.st_dev, info.st_ino});
  if (found == files_.end() || found->second.size == 0 || !found->second.fits(info))
    return std::nullopt;
  return found->second.digest;
}

std::optional<Sha256> ContentDigests::of(const std::string& path, const struct stat& info) {
  Known& known = files_[{info.st_dev, info.st_ino}];
  known.wanted = true;
  if (known.size != 0 && known.fits(info)) return known.digest;
  known = {};
  const int64_t begun = now_();
  const Fd file = openFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  Hasher hasher;
  FdSource content(file.get());
  FunctionSink digesting([&](std::span<const std::byte> bytes) { hasher.update(bytes); });
  ++files_read_;
  struct stat after {};
  const uint64_t size = copy(content, digesting);
  if (fstat(file.get(), &after) < 0) throw sysError("examine " + path);
  Known fresh{static_cast<uint64_t>(info.st_size), info.st_mtim, info.st_ctim, {}, false, true};
  if (after.st_dev != info.st_dev || after.st_ino != info.st_ino || !fresh.fits(after) ||
      size != fresh.size)
    return std::nullopt;
  fresh.digest = hasher.finishSha256();
  fresh.settled = info.st_ctim.tv_sec + kSettledSeconds < begun;
  known = fresh;
  return fresh.digest;
}

void ContentDigests::save() const {
  ByteWriter out;
  out.raw(kMagic);
  for (const auto& [id, known] : files_) {
    if (!known.wanted || !known.settled) continue;
    out.u64(id.first);
    out.u64(id.second);
    out.u64(known.size);
    put(out, known.mtime);
    put(out, known.ctime);
    out.raw({reinterpret_cast<const char*>(known.digest.data()), known.digest.size()});
  }
  try {
    const std::string folder = fs::path(cache_).parent_path().string();
    makeDirectories(folder, 0700);
    writeFileAtomic(cache_, out.bytes(), 0600);
    removeForgotten(folder);
  } catch (const Error&) {
    // A home that cannot be written to: the next build reads the files again.
  }
}

std::string contentCachePath(const std::string& folder) {
  const char* cache = getenv("XDG_CACHE_HOME");
  const char* home = getenv("HOME");
  const std::string base = cache && *cache ? cache : std::string(home ? home : "/root") + "/.cache";
  return base + "/hull/contexts/" + sha256Hex(folder);
}

}  // namespace hull::cli
