#include "cli/client/context_tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "image/build/dockerignore.h"
#include "image/build/lean_tar.h"

namespace hull::cli {

namespace fs = std::filesystem;

namespace {

struct EntryDeleter {
  void operator()(archive_entry* entry) const { archive_entry_free(entry); }
};

constexpr size_t kCopyBytes = 65536;

class TarOut {
 public:
  // `lean`, `held`: both or none; `lean` is `out`.
  TarOut(Sink& out, ContextCost& cost, build::LeanTarWriter* lean = nullptr, HeldFunction held = {})
      : out_(out), lean_(lean), held_(std::move(held)), cost_(cost), archive_(archive_write_new()) {
    archive_write_set_format_pax_restricted(archive_);
    archive_write_set_bytes_per_block(archive_, 0);
    check(archive_write_open(archive_, this, nullptr, &TarOut::onWrite, nullptr),
          "start the context");
  }
  ~TarOut() { archive_write_free(archive_); }
  TarOut(const TarOut&) = delete;
  TarOut& operator=(const TarOut&) = delete;

  void addFile(const std::string& path, const std::string& name, const struct stat& info) {
    const std::unique_ptr<archive_entry, EntryDeleter> entry(archive_entry_new());
    archive_entry_copy_stat(entry.get(), &info);
    archive_entry_copy_pathname(entry.get(), name.c_str());
    archive_entry_set_uid(entry.get(), 0);
    archive_entry_set_gid(entry.get(), 0);
    if (S_ISLNK(info.st_mode)) {
      archive_entry_copy_symlink(entry.get(), fs::read_symlink(path).c_str());
      archive_entry_set_size(entry.get(), 0);
    }
    if (S_ISREG(info.st_mode) && info.st_nlink > 1) {
      const auto [first, fresh] = links_.emplace(std::pair(info.st_dev, info.st_ino), name);
      if (!fresh) {
        archive_entry_copy_hardlink(entry.get(), first->second.c_str());
        archive_entry_set_size(entry.get(), 0);
        check(archive_write_header(archive_, entry.get()), name);
        ++cost_.entries;
        return;
      }
    }
    check(archive_write_header(archive_, entry.get()), name);
    ++cost_.entries;
    if (!S_ISREG(info.st_mode)) return;
    const auto size = static_cast<uint64_t>(info.st_size);
    if (const auto digest = held_ ? held_(info) : std::nullopt)
      nameContent(*digest, size);
    else
      copyContent(path, size);
  }

  void addText(const std::string& name, const std::string& text) {
    const std::unique_ptr<archive_entry, EntryDeleter> entry(archive_entry_new());
    archive_entry_copy_pathname(entry.get(), name.c_str());
    archive_entry_set_mode(entry.get(), S_IFREG | 0644);
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(text.size()));
    check(archive_write_header(archive_, entry.get()), name);
    archive_write_data(archive_, text.data(), text.size());
  }

  void finish() { check(archive_write_close(archive_), "finish the context"); }

 private:
  // A file that shrinks meanwhile is filled up with zeros by libarchive; one that grows is cut.
  void copyContent(const std::string& path, uint64_t size) {
    const Fd file = openFile(path, O_RDONLY | O_NOFOLLOW);
    std::array<std::byte, kCopyBytes> buffer;
    while (size > 0) {
      const size_t got =
          readSome(file.get(), std::span(buffer).first(std::min<uint64_t>(size, buffer.size())));
      if (got == 0) return;
      if (archive_write_data(archive_, buffer.data(), got) < 0) throwFailure(path);
      cost_.bytes += got;
      size -= got;
    }
  }

  // libarchive pads and counts as if it had got the content, which goes nowhere.
  void nameContent(const Sha256& digest, uint64_t size) {
    static constexpr std::array<std::byte, kCopyBytes> kNothing{};
    lean_->name(digest, size);
    cost_.named += size;
    unwanted_ = true;
    while (size > 0) {
      const size_t piece = std::min<uint64_t>(size, kNothing.size());
      if (archive_write_data(archive_, kNothing.data(), piece) < 0) throwFailure("a file");
      size -= piece;
    }
    unwanted_ = false;
  }

  void check(int status, const std::string& what) {
    if (status < ARCHIVE_WARN) throwFailure(what);
  }

  [[noreturn]] void throwFailure(const std::string& what) {
    if (failure_) std::rethrow_exception(failure_);
    throw Error(ErrorKind::kInternal, "pack " + what + ": " + archive_error_string(archive_));
  }

  static la_ssize_t onWrite(archive* handle, void* self, const void* data, size_t size) {
    auto* tar = static_cast<TarOut*>(self);
    if (tar->unwanted_) return static_cast<la_ssize_t>(size);
    try {
      tar->out_.write(std::span(static_cast<const std::byte*>(data), size));
      return static_cast<la_ssize_t>(size);
    } catch (...) {  // must not cross the C frames
      tar->failure_ = std::current_exception();
      archive_set_error(handle, EIO, "the receiver failed");
      return -1;
    }
  }

  Sink& out_;
  build::LeanTarWriter* lean_;
  HeldFunction held_;
  bool unwanted_ = false;  // what libarchive writes now
  ContextCost& cost_;
  archive* archive_;
  std::exception_ptr failure_;
  std::map<std::pair<dev_t, ino_t>, std::string> links_;
};

build::IgnoreRules ignoreRules(const ContextOptions& options) {
  const std::string special = options.dockerfile + ".dockerignore";
  if (!options.outside_ignore.empty())
    return build::IgnoreRules::parse(options.outside_ignore, "the Dockerfile's .dockerignore");
  const bool has_special =
      !options.dockerfile.empty() && fileExists(options.folder + "/" + special);
  const std::string name = has_special ? special : ".dockerignore";
  const std::string path = options.folder + "/" + name;
  if (!fileExists(path)) return {};
  return build::IgnoreRules::parse(readFile(path, build::kMaxIgnoreBytes), name);
}

// Where it is, its name in the context, its attributes.
using VisitFunction =
    std::function<void(const std::string& path, const std::string& name, const struct stat& info)>;

class Walker {
 public:
  // `prefix` ends with a slash, or is empty.
  Walker(const ContextOptions& options, const VisitFunction& found, ContextCost& cost,
         std::string prefix = {})
      : options_(options),
        found_(found),
        cost_(cost),
        rules_(ignoreRules(options)),
        prefix_(std::move(prefix)) {}

  void walk(const std::string& relative) {
    std::vector<std::string> wanted;
    for (const auto& entry : fs::directory_iterator(options_.folder + "/" + relative)) {
      ++cost_.names;
      const std::string name = entry.path().filename().string();
      const std::string path = relative.empty() ? name : relative + "/" + name;
      // The type is in the folder's own list, on all file systems that matter.
      if (entry.symlink_status().type() == fs::file_type::directory || isSent(path))
        wanted.push_back(path);
    }
    std::sort(wanted.begin(), wanted.end());
    for (const auto& path : wanted) visit(path);
  }

 private:
  struct Found {
    std::string path, name;
    struct stat info;
  };

  bool isSent(const std::string& relative) const {
    return relative == options_.dockerfile || relative == ".dockerignore" ||
           !rules_.excludes(relative);
  }

  // Ignored folders go along when something in them does.
  void send(const std::string& relative, const Found& found) {
    if (!rules_.excludes(relative)) {
      for (const Found& folder : unsent_) found_(folder.path, folder.name, folder.info);
      unsent_.clear();
    }
    found_(found.path, found.name, found.info);
  }

  void visit(const std::string& relative) {
    const std::string path = options_.folder + "/" + relative;
    struct stat info;
    ++cost_.inspected;
    if (lstat(path.c_str(), &info) < 0) throw sysError("pack " + path);
    const bool excluded = !isSent(relative);
    if (S_ISDIR(info.st_mode)) {
      const bool holds_dockerfile = options_.dockerfile.starts_with(relative + "/");
      if (excluded && rules_.prunes(relative) && !holds_dockerfile) return;
      const Found folder{path, prefix_ + relative + "/", info};
      if (excluded)
        unsent_.push_back(folder);
      else
        send(relative, folder);
      walk(relative);
      if (excluded && !unsent_.empty()) unsent_.pop_back();
    } else if (!excluded && !S_ISSOCK(info.st_mode)) {
      send(relative, {path, prefix_ + relative, info});
    }
  }

  const ContextOptions& options_;
  const VisitFunction& found_;
  ContextCost& cost_;
  build::IgnoreRules rules_;
  std::string prefix_;
  std::vector<Found> unsent_;  // the ignored folders that the walk is in
};

void walk(const ContextOptions& options, const VisitFunction& found, ContextCost& cost) {
  try {
    if (!options.folder.empty()) Walker(options, found, cost).walk("");
    for (const auto& other : options.others) {
      ContextOptions named;
      named.folder = other.folder;
      Walker(named, found, cost, other.prefix + "/").walk("");
    }
  } catch (const fs::filesystem_error& error) {
    throw Error(ErrorKind::kNotFound, std::string("pack the build context: ") + error.what());
  }
}

void pack(const ContextOptions& options, TarOut& tar, ContextCost& cost) {
  if (!options.outside_name.empty()) tar.addText(options.outside_name, options.outside_dockerfile);
  if (!options.outside_ignore.empty())
    tar.addText(options.outside_name + ".dockerignore", options.outside_ignore);
  walk(
      options,
      [&](const std::string& path, const std::string& name, const struct stat& info) {
        tar.addFile(path, name, info);
      },
      cost);
  tar.finish();
}

}  // namespace

ContextCost writeContext(const ContextOptions& options, Sink& out) {
  ContextCost cost;
  TarOut tar(out, cost);
  pack(options, tar, cost);
  return cost;
}

ContextCost writeLeanContext(const ContextOptions& options, const HeldFunction& held, Sink& out) {
  ContextCost cost;
  build::LeanTarWriter lean(out);
  TarOut tar(lean, cost, &lean, held);
  pack(options, tar, cost);
  lean.finish();
  return cost;
}

std::vector<ContextFile> contextFiles(const ContextOptions& options) {
  std::vector<ContextFile> files;
  ContextCost cost;
  walk(
      options,
      [&](const std::string& path, const std::string&, const struct stat& info) {
        if (S_ISREG(info.st_mode)) files.push_back({path, info});
      },
      cost);
  return files;
}

}  // namespace hull::cli
