#include "image/ext4/testing/disk_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "base/error.h"
#include "base/subprocess.h"
#include "image/ext4/ext2fs_api.h"

namespace hull::image::testing {
namespace {

void check(errcode_t code, const char* what) {
  if (code != 0) throw std::runtime_error(std::string(what) + ": " + error_message(code));
}

class DiskReader {
 public:
  DiskReader(const std::string& path, uint64_t content_limit) : content_limit_(content_limit) {
    check(ext2fs_open(path.c_str(), EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs_), "open");
    check(ext2fs_read_bitmaps(fs_), "read bitmaps");
  }
  ~DiskReader() { ext2fs_close_free(&fs_); }
  DiskReader(const DiskReader&) = delete;
  DiskReader& operator=(const DiskReader&) = delete;

  std::string readAt(const std::string& file, uint64_t offset, size_t size) {
    ext2_ino_t number = 0;
    check(ext2fs_namei(fs_, EXT2_ROOT_INO, EXT2_ROOT_INO, file.c_str(), &number), "find");
    return readContent(number, size, offset);
  }

  std::map<std::string, ReadNode> readAll() {
    std::vector<std::pair<std::string, ext2_ino_t>> pending{{"", EXT2_ROOT_INO}};
    while (!pending.empty()) {
      const auto [path, inode] = pending.back();
      pending.pop_back();
      const ReadNode& node = nodes_[path] = readNode(inode);
      if (!S_ISDIR(node.mode)) continue;
      for (const auto& [name, child] : list(inode))
        pending.emplace_back(path.empty() ? name : path + "/" + name, child);
    }
    return std::move(nodes_);
  }

 private:
  using Listing = std::vector<std::pair<std::string, ext2_ino_t>>;

  static int addEntry(ext2_ino_t, int, ext2_dir_entry* entry, int, int, char*, void* listing) {
    const std::string name(entry->name, static_cast<size_t>(ext2fs_dirent_name_len(entry)));
    if (name != "." && name != "..")
      static_cast<Listing*>(listing)->emplace_back(name, entry->inode);
    return 0;
  }
  Listing list(ext2_ino_t inode) {
    Listing listing;
    check(ext2fs_dir_iterate2(fs_, inode, 0, nullptr, addEntry, &listing), "list");
    return listing;
  }

  static int64_t seconds(uint32_t low, uint32_t extra) {
    return static_cast<int32_t>(low) + (static_cast<int64_t>(extra & 3) << 32);
  }

  ReadNode readNode(ext2_ino_t number) {
    ext2_inode_large raw{};
    check(ext2fs_read_inode_full(fs_, number, EXT2_INODE(&raw), sizeof raw), "read inode");
    if (!ext2fs_test_inode_bitmap2(fs_->inode_map, number))
      throw std::runtime_error("an inode is not marked as used");
    ReadNode node;
    node.inode = number;
    node.mode = raw.i_mode;
    node.uid = inode_uid(raw);
    node.gid = inode_gid(raw);
    const uint32_t low[] = {raw.i_mtime, raw.i_ctime, raw.i_atime, raw.i_crtime};
    const uint32_t extra[] = {raw.i_mtime_extra, raw.i_ctime_extra, raw.i_atime_extra,
                              raw.i_crtime_extra};
    for (int i = 0; i < 4; ++i) {
      node.times[i] = seconds(low[i], extra[i]);
      node.nanoseconds[i] = extra[i] >> 2;
    }
    node.links = raw.i_links_count;
    node.flags = raw.i_flags;
    node.size = EXT2_I_SIZE(EXT2_INODE(&raw));
    readPayload(number, raw, node);
    readXattrs(number, node);
    return node;
  }

  void readPayload(ext2_ino_t number, ext2_inode_large& raw, ReadNode& node) {
    if (S_ISLNK(raw.i_mode) && ext2fs_is_fast_symlink(EXT2_INODE(&raw))) {
      const char* const inside = reinterpret_cast<const char*>(raw.i_block);
      node.content.assign(inside, node.size);
    } else if (S_ISREG(raw.i_mode) || S_ISLNK(raw.i_mode)) {
      if (node.size <= content_limit_) node.content = readContent(number, node.size);
    } else if (S_ISCHR(raw.i_mode) || S_ISBLK(raw.i_mode)) {
      const uint32_t code = raw.i_block[0] != 0 ? raw.i_block[0] : raw.i_block[1];
      node.device_major = code >> 8 & 0xfff;
      node.device_minor = (code & 0xff) | (code >> 12 & 0xfff00);
    }
  }

  std::string readContent(ext2_ino_t number, uint64_t size, uint64_t offset = 0) {
    std::string content(size, '\0');
    ext2_file_t file = nullptr;
    check(ext2fs_file_open(fs_, number, 0, &file), "open file");
    unsigned int got = 0;
    errcode_t code = ext2fs_file_llseek(file, offset, EXT2_SEEK_SET, nullptr);
    if (code == 0)
      code = ext2fs_file_read(file, content.data(), static_cast<unsigned int>(size), &got);
    ext2fs_file_close(file);
    check(code, "read file");
    content.resize(got);
    return content;
  }

  static int addXattrName(char* name, char*, size_t, void* node) {
    static_cast<ReadNode*>(node)->xattrs[name] = {};
    return 0;
  }
  void readXattrs(ext2_ino_t number, ReadNode& node) {
    ext2_xattr_handle* handle = nullptr;
    check(ext2fs_xattrs_open(fs_, number, &handle), "open xattrs");
    errcode_t code = ext2fs_xattrs_read(handle);
    if (code == 0) code = ext2fs_xattrs_iterate(handle, addXattrName, &node);
    for (auto& [name, value] : node.xattrs) {
      void* bytes = nullptr;
      size_t size = 0;
      // Unlike the iteration this gives ACLs in the form of system calls.
      if (code == 0) code = ext2fs_xattr_get(handle, name.c_str(), &bytes, &size);
      if (code != 0) break;
      value.assign(static_cast<const char*>(bytes), size);
      ext2fs_free_mem(&bytes);
    }
    ext2fs_xattrs_close(&handle);
    check(code, "read xattrs");
  }

  ext2_filsys fs_ = nullptr;
  uint64_t content_limit_;
  std::map<std::string, ReadNode> nodes_;
};

char dataByte(uint32_t layer, uint64_t offset) {
  return static_cast<char>((offset * 2654435761u >> 13) + layer * 97 + (offset >> 12));
}

}  // namespace

void copySparse(int from, uint64_t from_offset, uint64_t length, int to, uint64_t to_offset) {
  std::vector<std::byte> buffer(1 << 20);
  uint64_t at = from_offset;
  const uint64_t end = from_offset + length;
  while (at < end) {
    const off_t data = ::lseek(from, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0) return;
    at = std::max(at, static_cast<uint64_t>(data));
    const auto hole = static_cast<uint64_t>(::lseek(from, static_cast<off_t>(at), SEEK_HOLE));
    while (at < std::min(hole, end)) {
      const size_t step = std::min<uint64_t>(buffer.size(), std::min(hole, end) - at);
      const size_t got = preadFull(from, std::span(buffer).first(step), at);
      if (got == 0) return;
      pwriteFull(to, std::span(buffer).first(got), to_offset + (at - from_offset));
      at += got;
    }
  }
}

Assembly::Assembly(const std::vector<uint64_t>& data_bytes)
    : folder_("hull-stitch"), data_bytes_(data_bytes) {
  for (size_t i = 0; i < data_bytes.size(); ++i) {
    const std::string path = folder_.path() + "/data" + std::to_string(i);
    data_.push_back(openFile(path, O_RDWR | O_CREAT));
    if (::ftruncate(data_.back().get(), static_cast<off_t>(data_bytes[i])) != 0)
      throw sysError("size " + path);
  }
}

void Assembly::fillData() {
  for (uint32_t layer = 0; layer < data_.size(); ++layer) {
    const std::string content = contentOf(layer, 0, data_bytes_[layer]);
    pwriteFull(data_[layer].get(), asBytes(content), 0);
  }
}

std::string Assembly::contentOf(uint32_t layer, uint64_t offset, uint64_t size) const {
  std::string content(size, '\0');
  for (uint64_t i = 0; i < size; ++i) content[i] = dataByte(layer, offset + i);
  return content;
}

void Assembly::stitch(const Tree& tree) {
  metadata_ = openFile(folder_.path() + "/metadata", O_RDWR | O_CREAT | O_EXCL);
  disk_ = image::stitch(tree, data_bytes_, metadata_.get());
  const Fd out = openFile(path(), O_RDWR | O_CREAT | O_EXCL);
  if (::ftruncate(out.get(), static_cast<off_t>(disk_.disk_bytes)) != 0)
    throw sysError("size " + path());
  for (const StitchedSegment& segment : disk_.segments) {
    const int from = segment.layer == StitchedSegment::kMetadata ? metadata_.get()
                                                                 : data_.at(segment.layer).get();
    copySparse(from, segment.file_offset, segment.length, out.get(), segment.disk_offset);
  }
}

std::string Assembly::metadata() const {
  std::string bytes(fileSize(metadata_.get()), '\0');
  preadFull(metadata_.get(), std::as_writable_bytes(std::span(bytes)), 0);
  return bytes;
}

uint64_t Assembly::metadataBytesAllocated() const {
  struct stat status {};
  if (::fstat(metadata_.get(), &status) != 0) throw sysError("stat metadata");
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

std::string checkDisk(const std::string& path) {
  for (const char* program : {"/usr/sbin/e2fsck", "/sbin/e2fsck"}) {
    if (::access(program, X_OK) != 0) continue;
    const CommandResult result = runCommand({program, "-fn", path});
    // The summary is the one line it prints when all is well.
    const bool quiet = std::count(result.output.begin(), result.output.end(), '\n') <= 6;
    if (result.status == 0 && quiet) return {};
    return "status " + std::to_string(result.status) + "\n" + result.output + result.errors;
  }
  return kNoE2fsck;
}

std::map<std::string, ReadNode> readDisk(const std::string& path, uint64_t content_limit) {
  return DiskReader(path, content_limit).readAll();
}

std::string readAt(const std::string& disk_path, const std::string& file, uint64_t offset,
                   size_t size) {
  return DiskReader(disk_path, 0).readAt(file, offset, size);
}

}  // namespace hull::image::testing
