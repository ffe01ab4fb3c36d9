#include "image/build/rootfs.h"

#include <fcntl.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/hash.h"
#include "image/build/copy.h"

namespace hull::build {

namespace {

constexpr size_t kMaxAccountFileBytes = 4 << 20;  // /etc/passwd, /etc/group

std::optional<uint32_t> parseNumber(std::string_view text) {
  uint32_t number = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failed != std::errc{} || end != text.data() + text.size() || text.empty())
    return std::nullopt;
  return number;
}

struct Account {
  uint32_t id = 0;
  uint32_t group = 0;  // of /etc/passwd
};

// The line "name:x:id[:gid…]" of a passwd or group file.
std::optional<Account> findAccount(std::string_view file, std::string_view name) {
  while (!file.empty()) {
    const size_t end = std::min(file.find('\n'), file.size());
    std::string_view line = file.substr(0, end);
    file.remove_prefix(std::min(end + 1, file.size()));
    std::string_view fields[4];
    for (auto& field : fields) {
      const size_t colon = std::min(line.find(':'), line.size());
      field = line.substr(0, colon);
      line.remove_prefix(std::min(colon + 1, line.size()));
    }
    if (fields[0] != name) continue;
    if (const auto id = parseNumber(fields[2]))
      return Account{*id, parseNumber(fields[3]).value_or(*id)};
  }
  return std::nullopt;
}

}  // namespace

RootFs::RootFs(image::LayerStore& layers, std::vector<image::Digest> diff_ids) : store_(layers) {
  for (const auto& diff_id : diff_ids) push(diff_id);
}

RootFs::RootFs(image::LayerStore& layers, std::vector<image::Digest> diff_ids, image::Tree tree)
    : store_(layers), diff_ids_(std::move(diff_ids)), tree_(std::move(tree)) {}

void RootFs::push(const image::Digest& diff_id) {
  tree_.apply(store_.index(diff_id));
  diff_ids_.push_back(diff_id);
}

int RootFs::dataFd(const image::Inode& inode) {
  const std::lock_guard lock(mutex_);
  Fd& fd = data_[inode.layer];
  if (!fd) fd = openFile(store_.dataPath(diff_ids_.at(inode.layer)), O_RDONLY);
  return fd.get();
}

std::string RootFs::readFile(std::string_view path, size_t limit) {
  const image::InodeNumber number = tree_.resolve(path);
  if (number == image::kNoInode) return {};
  const image::Inode& inode = tree_.at(number);
  if (inode.type != image::EntryType::kFile || inode.size == 0) return {};
  if (inode.size > limit) {
    throw Error(ErrorKind::kTooLarge, "read " + std::string(path) + " of the image: larger than " +
                                          std::to_string(limit) + " bytes");
  }
  std::string text(inode.size, '\0');
  text.resize(preadFull(dataFd(inode), std::as_writable_bytes(std::span(text)), inode.data_offset));
  return text;
}

std::string RootFs::contentDigest(const image::Inode& inode) {
  Hasher hasher;
  std::vector<std::byte> buffer(kStreamChunkBytes);
  for (uint64_t done = 0; done < inode.size;) {
    const auto piece =
        std::span(buffer).first(std::min<uint64_t>(buffer.size(), inode.size - done));
    const size_t got = preadFull(dataFd(inode), piece, inode.data_offset + done);
    if (got == 0)
      throw Error(ErrorKind::kCorrupt,
                  "read a layer's data file: it is shorter than its index says");
    hasher.update(std::span<const std::byte>(piece.first(got)));
    done += got;
  }
  return hasher.finishHex();
}

Owner RootFs::lookUpOwner(const std::string& spec) {
  const size_t colon = spec.find(':');
  const std::string user = spec.substr(0, colon);
  Owner owner;
  if (const auto number = parseNumber(user)) {
    owner = {*number, *number};
  } else if (!user.empty()) {
    const auto account = findAccount(readFile("etc/passwd", kMaxAccountFileBytes), user);
    if (!account)
      throw Error(ErrorKind::kInvalidArgument, "no user '" + user + "' in the image's /etc/passwd");
    owner = {account->id, account->id};
  }
  if (colon == std::string::npos) return owner;
  const std::string group = spec.substr(colon + 1);
  if (const auto number = parseNumber(group)) {
    owner.gid = *number;
  } else if (const auto account = findAccount(readFile("etc/group", kMaxAccountFileBytes), group)) {
    owner.gid = account->id;
  } else {
    throw Error(ErrorKind::kInvalidArgument, "no group '" + group + "' in the image's /etc/group");
  }
  return owner;
}

Owner RootFs::lookUpUser(const std::string& spec) {
  if (spec.empty()) return {};
  if (spec.find(':') != std::string::npos) return lookUpOwner(spec);
  const std::string passwd = readFile("etc/passwd", kMaxAccountFileBytes);
  if (const auto account = findAccount(passwd, spec)) return {account->id, account->group};
  if (const auto number = parseNumber(spec)) return {*number, 0};
  throw Error(ErrorKind::kInvalidArgument, "no user '" + spec + "' in the image's /etc/passwd");
}

namespace {

class TreeWriter {
 public:
  TreeWriter(RootFs& root, Sink& out) : root_(root), tar_(out) {}

  void write() {
    writeChildren(0, "");
    tar_.finish();
  }

 private:
  void writeChildren(image::InodeNumber directory, const std::string& path) {
    for (const auto& [name, number] : root_.tree().at(directory).children) {
      const std::string child = path.empty() ? name : path + "/" + name;
      const image::Inode& inode = root_.tree().at(number);
      image::Entry entry = entryOf(inode, child);
      const auto [first, fresh] = written_.emplace(number, child);
      if (!fresh) {
        entry.type = image::EntryType::kHardlink;
        entry.link = first->second;
        entry.size = 0;
        entry.xattrs.clear();
      }
      const bool content = fresh && inode.type == image::EntryType::kFile && inode.size > 0;
      tar_.add(entry, content ? root_.dataFd(inode) : -1);
      if (inode.type == image::EntryType::kDirectory) writeChildren(number, child);
    }
  }

  RootFs& root_;
  image::LayerTarWriter tar_;
  std::map<image::InodeNumber, std::string> written_;
};

}  // namespace

void writeTree(RootFs& root, Sink& out) {
  TreeWriter(root, out).write();
}

}  // namespace hull::build
