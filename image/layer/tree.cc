#include "image/layer/tree.h"

#include <fmt/core.h>

#include <utility>

#include "base/error.h"

namespace hull::image {
namespace {

constexpr InodeNumber kRoot = 0;

// Takes the first part off a cleaned path.
std::string_view takePart(std::string_view& path) {
  const size_t slash = path.find('/');
  const std::string_view part = path.substr(0, slash);
  path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
  return part;
}

std::pair<std::string_view, std::string_view> splitLast(std::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return {{}, path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

[[noreturn]] void refuse(const Entry& entry, std::string_view why) {
  throw Error(ErrorKind::kCorrupt, fmt::format("apply layer: entry \"{}\": {}", entry.path, why));
}

bool isCleanPart(std::string_view part) {
  return !part.empty() && part != "." && part != ".." && part.size() <= kMaxNameBytes &&
         part.find('\0') == std::string_view::npos;
}

// The index promises clean paths; a tree that believed it blindly could be led anywhere.
void requireCleanPath(const Entry& entry) {
  if (entry.path.size() > kMaxPathBytes) refuse(entry, "path too long");
  if (entry.path.empty()) {
    if (entry.type != EntryType::kDirectory && entry.type != EntryType::kOpaque)
      refuse(entry, "the root can only be a directory");
    return;
  }
  if (entry.path.back() == '/') refuse(entry, "path is not clean");
  for (std::string_view rest = entry.path; !rest.empty();)
    if (!isCleanPart(takePart(rest))) refuse(entry, "path is not clean");
}

// Walks a path part by part as the kernel does. `pending_` is a stack: a symlink's target goes on
// top of what was left of the path that led to it.
class PartReader {
 public:
  explicit PartReader(std::string_view path) { push(path); }

  void push(std::string_view path) { pending_.push_back(path); }

  // The next part, "." and repeated slashes skipped; empty at the end.
  std::string_view next() {
    while (!pending_.empty()) {
      std::string_view& rest = pending_.back();
      const size_t begin = rest.find_first_not_of('/');
      if (begin == std::string_view::npos) {
        pending_.pop_back();
        continue;
      }
      rest.remove_prefix(begin);
      const std::string_view part = rest.substr(0, rest.find('/'));
      rest.remove_prefix(part.size());
      if (part != ".") return part;
    }
    return {};
  }

  // Whether nothing at all follows: a slash after the last part asks for what a symlink names.
  bool atEnd() const {
    for (const std::string_view rest : pending_)
      if (!rest.empty()) return false;
    return true;
  }

 private:
  std::vector<std::string_view> pending_;
};

}  // namespace

Tree::Tree(size_t max_inodes) : max_inodes_(max_inodes), inodes_(1) {}

void Tree::apply(const LayerIndex& layer) {
  // Opaque markers first: at this point everything in the tree is of lower layers.
  for (const Entry& entry : layer.entries) {
    requireCleanPath(entry);
    if (entry.type == EntryType::kOpaque) hideChildren(entry.path);
  }
  Cursor cursor;
  for (const Entry& entry : layer.entries) applyEntry(entry, cursor);
  ++layers_;
}

void Tree::applyEntry(const Entry& entry, Cursor& cursor) {
  if (entry.type == EntryType::kOpaque) return;
  if (entry.type == EntryType::kWhiteout) return removePath(entry.path, cursor);
  if (entry.type == EntryType::kHardlink) return applyHardlink(entry, cursor);
  if (entry.path.empty()) return setAttributes(inodes_[kRoot], entry);

  const auto [parent_path, name] = splitLast(entry.path);
  const InodeNumber parent = makeDirectories(parent_path, cursor);
  if (entry.type == EntryType::kDirectory) {
    const auto& children = inodes_[parent].children;
    const auto there = children.find(name);
    if (there != children.end() && at(there->second).type == EntryType::kDirectory)
      return setAttributes(inodes_[there->second], entry);
  }
  const InodeNumber made = newInode();
  setAttributes(inodes_[made], entry);
  setName(parent, name, made, cursor);
}

void Tree::applyHardlink(const Entry& entry, Cursor& cursor) {
  const InodeNumber target = resolve(entry.link, false);
  if (target == kNoInode) {
    throw Error(ErrorKind::kCorrupt, fmt::format("apply layer: hardlink \"{}\": its target \"{}\" "
                                                 "does not exist",
                                                 entry.path, entry.link));
  }
  if (at(target).type == EntryType::kDirectory) {
    throw Error(ErrorKind::kCorrupt,
                fmt::format("apply layer: hardlink \"{}\": its target \"{}\" is a directory",
                            entry.path, entry.link));
  }
  // Counted before anything is removed: the new name may replace the target's own.
  ++inodes_[target].links;
  const auto [parent_path, name] = splitLast(entry.path);
  setName(makeDirectories(parent_path, cursor), name, target, cursor);
}

void Tree::hideChildren(std::string_view path) {
  const InodeNumber directory = find(path);
  if (directory == kNoInode) return;
  const auto children = std::exchange(inodes_[directory].children, {});
  for (const auto& [name, child] : children) dropName(child);
}

void Tree::removePath(std::string_view path, Cursor& cursor) {
  const auto [parent_path, name] = splitLast(path);
  const InodeNumber parent = find(parent_path);
  if (parent == kNoInode) return;
  auto& children = inodes_[parent].children;
  const auto there = children.find(name);
  if (there == children.end()) return;
  const InodeNumber child = there->second;
  children.erase(there);
  dropName(child);
  cursor = {};
}

InodeNumber Tree::makeDirectories(std::string_view path, Cursor& cursor) {
  if (cursor.directory != kNoInode && cursor.path == path) return cursor.directory;
  InodeNumber directory = kRoot;
  for (std::string_view rest = path; !rest.empty();) {
    const std::string_view part = takePart(rest);
    const auto& children = inodes_[directory].children;
    const auto there = children.find(part);
    InodeNumber child = there == children.end() ? kNoInode : there->second;
    if (child == kNoInode || at(child).type != EntryType::kDirectory) {
      child = newInode();
      setName(directory, part, child, cursor);
    }
    directory = child;
  }
  cursor = {path, directory};
  return directory;
}

void Tree::setName(InodeNumber directory, std::string_view name, InodeNumber inode,
                   Cursor& cursor) {
  auto& children = inodes_[directory].children;
  const auto place = children.lower_bound(name);
  if (place == children.end() || place->first != name) {
    children.emplace_hint(place, name, inode);
    return;
  }
  const InodeNumber before = std::exchange(place->second, inode);
  dropName(before);
  cursor = {};  // the cursor's directory may have been below what went
}

void Tree::setAttributes(Inode& inode, const Entry& entry) const {
  inode.type = entry.type;
  inode.mode = entry.mode & 07777;
  inode.uid = entry.uid;
  inode.gid = entry.gid;
  inode.mtime_seconds = entry.mtime_seconds;
  inode.mtime_nanoseconds = entry.mtime_nanoseconds;
  inode.xattrs = entry.xattrs;
  if (entry.type == EntryType::kFile) {
    inode.size = entry.size;
    inode.layer = layers_;
    inode.data_offset = entry.data_offset;
  } else if (entry.type == EntryType::kSymlink) {
    inode.link = entry.link;
  } else if (entry.type == EntryType::kCharDevice || entry.type == EntryType::kBlockDevice) {
    inode.device_major = entry.device_major;
    inode.device_minor = entry.device_minor;
  }
}

InodeNumber Tree::newInode() {
  if (!unused_.empty()) {
    const InodeNumber number = unused_.back();
    unused_.pop_back();
    inodes_[number].links = 1;
    return number;
  }
  if (inodes_.size() >= max_inodes_) {
    throw Error(ErrorKind::kTooLarge,
                fmt::format("apply layer: more than {} files and directories", max_inodes_));
  }
  inodes_.emplace_back();
  return static_cast<InodeNumber>(inodes_.size() - 1);
}

void Tree::dropName(InodeNumber inode) {
  std::vector<InodeNumber> doomed{inode};
  while (!doomed.empty()) {
    const InodeNumber number = doomed.back();
    doomed.pop_back();
    if (--inodes_[number].links > 0) continue;
    for (const auto& [name, child] : inodes_[number].children) doomed.push_back(child);
    inodes_[number] = Inode{};
    inodes_[number].links = 0;
    unused_.push_back(number);
  }
}

InodeNumber Tree::find(std::string_view path) const {
  InodeNumber number = kRoot;
  while (!path.empty()) {
    const auto& children = at(number).children;
    const auto there = children.find(takePart(path));
    if (there == children.end()) return kNoInode;
    number = there->second;
  }
  return number;
}

InodeNumber Tree::resolve(std::string_view path, bool follow_last) const {
  PartReader parts(path);
  std::vector<InodeNumber> above;  // the directories that lead to `number`, for ".."
  InodeNumber number = kRoot;
  bool slash_follows = false;
  int hops = 0;
  while (true) {
    const std::string_view part = parts.next();
    // Only a directory can have a slash after it, even with nothing behind the slash.
    if ((slash_follows || !part.empty()) && at(number).type != EntryType::kDirectory)
      return kNoInode;
    if (part.empty()) return number;
    slash_follows = !parts.atEnd();
    if (part == "..") {
      number = above.empty() ? kRoot : above.back();
      if (!above.empty()) above.pop_back();
      continue;
    }
    const auto there = at(number).children.find(part);
    if (there == at(number).children.end()) return kNoInode;
    const Inode& child = at(there->second);
    if (child.type == EntryType::kSymlink && (follow_last || slash_follows)) {
      if (++hops > kMaxSymlinkHops || child.link.empty()) return kNoInode;
      if (child.link.front() == '/') {
        number = kRoot;
        above.clear();
      }
      parts.push(child.link);
      continue;
    }
    above.push_back(number);
    number = there->second;
  }
}

std::string Tree::resolvePath(std::string_view path, bool follow_last) const {
  struct Step {
    std::string_view name;
    InodeNumber inode;  // kNoInode once the path has left what exists
  };
  PartReader parts(path);
  std::vector<Step> steps;
  int hops = 0;
  while (true) {
    const std::string_view part = parts.next();
    if (part.empty()) break;
    if (part == "..") {
      if (!steps.empty()) steps.pop_back();
      continue;
    }
    const InodeNumber directory = steps.empty() ? kRoot : steps.back().inode;
    InodeNumber child = kNoInode;
    if (directory != kNoInode) {
      const auto there = at(directory).children.find(part);
      if (there != at(directory).children.end()) child = there->second;
    }
    if (child != kNoInode && at(child).type == EntryType::kSymlink &&
        (follow_last || !parts.atEnd()) && hops < kMaxSymlinkHops && !at(child).link.empty()) {
      ++hops;
      if (at(child).link.front() == '/') steps.clear();
      parts.push(at(child).link);
      continue;
    }
    steps.push_back({part, child});
  }
  std::string cleaned;
  for (const Step& step : steps) {
    if (!cleaned.empty()) cleaned += '/';
    cleaned += step.name;
  }
  return cleaned;
}

}  // namespace hull::image
