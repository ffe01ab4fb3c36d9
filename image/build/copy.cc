#include "image/build/copy.h"

#include <algorithm>

#include "base/bytes.h"
#include "base/error.h"
#include "base/hash.h"
#include "image/build/glob.h"

namespace hull::build {

using image::Entry;
using image::EntryType;
using image::Inode;
using image::InodeNumber;
using image::kNoInode;

namespace {

constexpr uint16_t kDirectoryMode = 0755;

std::string baseOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

std::string join(const std::string& directory, const std::string& name) {
  return directory.empty() ? name : directory + "/" + name;
}

std::vector<std::string> partsOf(const std::string& path) {
  std::vector<std::string> parts;
  for (size_t start = 0; start < path.size();) {
    const size_t slash = std::min(path.find('/', start), path.size());
    parts.push_back(path.substr(start, slash - start));
    start = slash + 1;
  }
  return parts;
}

bool isDirectory(const image::Tree& tree, InodeNumber number) {
  return number != kNoInode && tree.at(number).type == EntryType::kDirectory;
}

}  // namespace

std::string cleanPath(std::string_view path) {
  std::vector<std::string_view> parts;
  while (!path.empty()) {
    const size_t slash = std::min(path.find('/'), path.size());
    const std::string_view part = path.substr(0, slash);
    path.remove_prefix(std::min(slash + 1, path.size()));
    if (part.empty() || part == ".") continue;
    if (part != "..") {
      parts.push_back(part);
    } else if (!parts.empty()) {
      parts.pop_back();
    }
  }
  std::string clean;
  for (const auto part : parts) clean += (clean.empty() ? "" : "/") + std::string(part);
  return clean;
}

std::string joinPath(const std::string& working_directory, const std::string& path) {
  return cleanPath(path.starts_with('/') ? path : working_directory + "/" + path);
}

Entry entryOf(const Inode& inode, const std::string& path) {
  Entry entry;
  entry.path = path;
  entry.type = inode.type;
  entry.mode = inode.mode;
  entry.uid = inode.uid;
  entry.gid = inode.gid;
  entry.mtime_seconds = inode.mtime_seconds;
  entry.mtime_nanoseconds = inode.mtime_nanoseconds;
  entry.size = inode.type == EntryType::kFile ? inode.size : 0;
  entry.data_offset = inode.data_offset;
  entry.link = inode.link;
  entry.device_major = inode.device_major;
  entry.device_minor = inode.device_minor;
  entry.xattrs = inode.xattrs;
  return entry;
}

CopyPlan::CopyPlan(RootFs& source, const RootFs& destination, const CopyRequest& request)
    : source_(source), destination_(destination), request_(request) {
  std::string patterns;
  for (const auto& pattern : request.exclude) patterns += pattern + "\n";
  exclude_ = IgnoreRules::parse(patterns);
  findTarget();
  std::vector<std::vector<Match>> all;
  size_t count = 0;
  bool wildcard = false;
  for (const auto& pattern : request.sources) {
    wildcard |= isGlob(pattern);
    all.push_back(matches(pattern));
    count += all.back().size();
  }
  if (!request.parents && (count > 1 || (wildcard && request.sources.size() > 1)) &&
      !into_directory_) {
    throw Error(
        ErrorKind::kInvalidArgument,
        "when several files are copied, the destination must be a directory and end with a /");
  }
  for (size_t i = 0; i < all.size(); ++i) {
    const size_t pivot = request.sources[i].find("/./");
    const size_t skipped = pivot == std::string::npos
                               ? 0
                               : partsOf(cleanPath(request.sources[i].substr(0, pivot))).size();
    for (const auto& match : all[i]) {
      if (request.parents)
        copyWithParents(match, skipped);
      else
        copyMatch(match);
    }
  }
}

void CopyPlan::findTarget() {
  const std::string wanted = joinPath(request_.working_directory, request_.destination);
  target_ = request_.link ? wanted : destination_.tree().resolvePath("/" + wanted);
  while (target_.starts_with('/')) target_.erase(0, 1);
  const std::string& written = request_.destination;
  into_directory_ = written.ends_with('/') || written.ends_with("/.") || written == "." ||
                    target_.empty() || isDirectory(destination_.tree(), existing(target_));
}

InodeNumber CopyPlan::existing(const std::string& path) const {
  return request_.link ? kNoInode : destination_.tree().find(path);
}

std::vector<CopyPlan::Match> CopyPlan::matches(const std::string& pattern) const {
  const std::string clean = cleanPath(pattern);
  const image::Tree& tree = source_.tree();
  if (!isGlob(clean)) {
    const InodeNumber number = tree.resolve("/" + clean, false);
    if (number == kNoInode) throw Error(ErrorKind::kNotFound, "\"/" + clean + "\": not found");
    return {{clean, number}};
  }
  std::vector<Match> level = {{"", 0}};
  for (const auto& part : partsOf(clean)) level = expandPart(level, part);
  return level;
}

// The children of a level that match one component. "**" (with --parents) is any number of folders:
// the level itself and every folder below it.
std::vector<CopyPlan::Match> CopyPlan::expandPart(const std::vector<Match>& level,
                                                  const std::string& part) const {
  const image::Tree& tree = source_.tree();
  const bool deep = request_.parents && part == "**";
  std::vector<Match> next = deep ? level : std::vector<Match>{};
  for (size_t i = 0; i < (deep ? next.size() : level.size()); ++i) {
    const Match match = deep ? next[i] : level[i];
    // A folder that "**" found is no symlink, so that no cycle is walked.
    const InodeNumber directory = deep ? match.number : tree.resolve("/" + match.path);
    if (!isDirectory(tree, directory)) continue;
    for (const auto& [name, child] : tree.at(directory).children) {
      if (deep ? isDirectory(tree, child) : globMatches(part, name))
        next.push_back({join(match.path, name), child});
    }
    if (next.size() > kMaxCopiedEntries)
      throw Error(ErrorKind::kTooLarge, "copy: more than 4,000,000 entries");
  }
  return next;
}

bool CopyPlan::excluded(const std::string& full, const std::string& relative) const {
  if (request_.exclude.empty()) return false;
  return exclude_.excludes(relative) || exclude_.excludes(full);
}

void CopyPlan::copyMatch(const Match& match) {
  const InodeNumber followed = source_.tree().resolve("/" + match.path);
  if (followed == kNoInode) {
    throw Error(ErrorKind::kNotFound,
                "\"/" + match.path + "\" is a symbolic link that leads nowhere");
  }
  if (isDirectory(source_.tree(), followed)) {
    addParents(target_);
    addDirectory(target_, &source_.tree().at(followed));
    copyContents(followed, target_, "");
  } else if (!excluded(match.path, baseOf(match.path))) {
    copyFile({match.path, followed});
  }
}

// The match below the destination at its own path, without the parts before the pivot.
void CopyPlan::copyWithParents(const Match& match, size_t skipped) {
  if (excluded(match.path, match.path)) return;
  const std::vector<std::string> parts = partsOf(match.path);
  std::string from, to = target_;
  addParents(to);
  if (!to.empty()) addDirectory(to, nullptr);
  for (size_t i = 0; i < parts.size(); ++i) {
    from = join(from, parts[i]);
    if (i < skipped) continue;
    to = join(to, parts[i]);
    const InodeNumber number = source_.tree().resolve("/" + from, i + 1 < parts.size());
    if (isDirectory(source_.tree(), number)) {
      addDirectory(to, &source_.tree().at(number));
    } else if (number != kNoInode) {
      add(number, to);
    }
  }
  if (isDirectory(source_.tree(), match.number)) copyContents(match.number, to, match.path);
}

void CopyPlan::copyFile(const Match& match) {
  const std::string target = into_directory_ ? join(target_, baseOf(match.path)) : target_;
  if (target.empty()) throw Error(ErrorKind::kInvalidArgument, "cannot copy a file to /");
  if (isDirectory(destination_.tree(), existing(target))) {
    throw Error(ErrorKind::kInvalidArgument, "cannot copy a file over the directory /" + target);
  }
  addParents(target);
  add(match.number, target);
}

void CopyPlan::copyContents(InodeNumber directory, const std::string& target,
                            const std::string& relative) {
  for (const auto& [name, child] : source_.tree().at(directory).children) {
    const std::string path = join(target, name), below = join(relative, name);
    const Inode& inode = source_.tree().at(child);
    const bool out = excluded(below, below);
    if (inode.type != EntryType::kDirectory) {
      if (!out) add(child, path);
    } else if (!out) {
      addDirectory(path, &inode);
      copyContents(child, path, below);
    } else if (!exclude_.prunes(below)) {
      copyContents(child, path, below);  // a rule with ! may want something of it
    }
  }
}

void CopyPlan::add(InodeNumber number, const std::string& target) {
  if (entries_.size() >= kMaxCopiedEntries)
    throw Error(ErrorKind::kTooLarge, "copy: more than 4,000,000 entries");
  const Inode& inode = source_.tree().at(number);
  CopiedEntry copied{entryOf(inode, target),
                     inode.type == EntryType::kFile && inode.size > 0 ? &inode : nullptr};
  setOwner(copied.entry);
  setMode(copied.entry);
  entries_.push_back(std::move(copied));
}

// A directory that is there keeps its attributes: they are written again, since a layer that holds
// something below it must say what the directory is. A new one is like its source.
void CopyPlan::addDirectory(const std::string& target, const Inode* like) {
  if (!made_.emplace(target, true).second) return;
  const InodeNumber there = existing(target);
  if (there != kNoInode && !isDirectory(destination_.tree(), there)) {
    throw Error(ErrorKind::kInvalidArgument, "cannot copy a directory over the file /" + target);
  }
  Entry entry;
  if (there != kNoInode) {
    entry = entryOf(destination_.tree().at(there), target);
  } else {
    entry.mtime_seconds = request_.now_seconds;
    if (like) entry = entryOf(*like, target);
    entry.path = target;
    entry.type = EntryType::kDirectory;
    entry.mode = like ? like->mode : kDirectoryMode;
    setMode(entry);
    setOwner(entry);
  }
  entries_.push_back({std::move(entry), nullptr});
}

void CopyPlan::addParents(const std::string& target) {
  if (request_.link) return;
  std::string path;
  std::vector<std::string> parts = partsOf(target);
  if (!parts.empty()) parts.pop_back();
  for (const auto& part : parts) {
    path = join(path, part);
    const InodeNumber there = existing(path);
    if (there != kNoInode && !isDirectory(destination_.tree(), there)) {
      throw Error(ErrorKind::kInvalidArgument,
                  "the destination's parent /" + path + " is not a directory");
    }
    if (!made_.emplace(path, true).second) continue;
    Entry entry;
    if (there != kNoInode) {
      entry = entryOf(destination_.tree().at(there), path);
    } else {
      entry.mtime_seconds = request_.now_seconds;
      entry.path = path;
      entry.type = EntryType::kDirectory;
      entry.mode = kDirectoryMode;
      setOwner(entry);
    }
    entries_.push_back({std::move(entry), nullptr});
  }
}

void CopyPlan::setOwner(Entry& entry) const {
  if (request_.keep_owner && !request_.owner) return;
  const Owner owner = request_.owner.value_or(Owner{});
  entry.uid = owner.uid;
  entry.gid = owner.gid;
}

void CopyPlan::setMode(Entry& entry) const {
  if (!request_.mode || entry.type == EntryType::kSymlink) return;
  entry.mode = request_.mode->apply(entry.mode, entry.type == EntryType::kDirectory);
}

std::string CopyPlan::contentKey() const {
  ByteWriter key;
  for (const auto& copied : entries_) {
    const Entry& entry = copied.entry;
    key.string(entry.path);
    key.u8(static_cast<uint8_t>(entry.type));
    key.u16(entry.mode);
    key.u32(entry.uid);
    key.u32(entry.gid);
    key.string(entry.link);
    key.u32(entry.device_major);
    key.u32(entry.device_minor);
    for (const auto& [name, value] : entry.xattrs) {
      key.string(name);
      key.string(value);
    }
    key.string(copied.source ? source_.contentDigest(*copied.source) : "");
  }
  return sha256Hex(key.bytes());
}

void CopyPlan::write(image::LayerTarWriter& tar) const {
  for (const auto& copied : entries_) {
    tar.add(copied.entry, copied.source ? source_.dataFd(*copied.source) : -1);
  }
}

std::vector<Entry> missingDirectories(const RootFs& root, const std::string& path, Owner owner) {
  std::string target = root.tree().resolvePath("/" + cleanPath(path));
  while (target.starts_with('/')) target.erase(0, 1);
  const InodeNumber existing = root.tree().find(target);
  if (isDirectory(root.tree(), existing)) return {};
  if (existing != kNoInode)
    throw Error(ErrorKind::kInvalidArgument, "/" + target + " is not a directory");
  std::vector<Entry> entries;
  std::string at;
  for (const auto& part : partsOf(target)) {
    at = join(at, part);
    const InodeNumber found = root.tree().find(at);
    if (found != kNoInode && !isDirectory(root.tree(), found)) {
      throw Error(ErrorKind::kInvalidArgument, "/" + at + " is not a directory");
    }
    Entry entry;
    if (found != kNoInode) {
      entry = entryOf(root.tree().at(found), at);
    } else {
      entry.path = at;
      entry.type = EntryType::kDirectory;
      entry.mode = kDirectoryMode;
      entry.uid = owner.uid;
      entry.gid = owner.gid;
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace hull::build
