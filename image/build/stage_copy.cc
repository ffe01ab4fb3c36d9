// The COPY and ADD instructions.
#include "image/build/stage_builder.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "image/build/step_text.h"

namespace hull::build {

using image::IngestedLayer;
using image::KeepBlob;

namespace {

uint16_t parseMode(const std::string& text) {
  unsigned mode = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), mode, 8);
  if (failed != std::errc{} || end != text.data() + text.size() || mode > 07777) {
    throw Error(ErrorKind::kInvalidArgument, "invalid --chmod=" + text + " (octal, like 755)");
  }
  return static_cast<uint16_t>(mode);
}

// xz and bzip2 archives of ADD, inflated by libarchive.
void inflateWithLibarchive(Source& from, Sink& to) {
  struct Reader {
    Source& source;
    std::vector<std::byte> buffer = std::vector<std::byte>(kStreamChunkBytes);
    static la_ssize_t read(archive*, void* self, const void** data) {
      auto* reader = static_cast<Reader*>(self);
      try {
        *data = reader->buffer.data();
        return static_cast<la_ssize_t>(reader->source.read(reader->buffer));
      } catch (...) {
        return ARCHIVE_FATAL;
      }
    }
  } reader{from};
  const std::unique_ptr<archive, int (*)(archive*)> input(archive_read_new(), &archive_read_free);
  archive_read_support_filter_xz(input.get());
  archive_read_support_filter_bzip2(input.get());
  archive_read_support_format_raw(input.get());
  archive_entry* entry = nullptr;
  if (archive_read_open(input.get(), &reader, nullptr, &Reader::read, nullptr) != ARCHIVE_OK ||
      archive_read_next_header(input.get(), &entry) != ARCHIVE_OK) {
    throw Error(ErrorKind::kCorrupt, "inflate an archive: it is damaged");
  }
  std::vector<std::byte> buffer(kStreamChunkBytes);
  for (;;) {
    const la_ssize_t got = archive_read_data(input.get(), buffer.data(), buffer.size());
    if (got < 0) throw Error(ErrorKind::kCorrupt, "inflate an archive: it is damaged");
    if (got == 0) return;
    to.write(std::span<const std::byte>(buffer.data(), static_cast<size_t>(got)));
  }
}

// A file's bytes in a layer's data file.
class InodeSource final : public Source {
 public:
  InodeSource(int fd, const image::Inode& inode)
      : fd_(fd), at_(inode.data_offset), left_(inode.size) {}
  size_t read(std::span<std::byte> into) override {
    const size_t got = preadFull(fd_, into.first(std::min<uint64_t>(left_, into.size())), at_);
    at_ += got;
    left_ -= got;
    return got;
  }

 private:
  int fd_;
  uint64_t at_, left_;
};

enum class ArchiveKind { kNone, kDirect, kLibarchive };

ArchiveKind archiveKind(std::string_view head) {
  if (head.starts_with("\x1f\x8b") || head.starts_with("\x28\xb5\x2f\xfd"))
    return ArchiveKind::kDirect;
  if (head.size() >= 262 && head.substr(257, 5) == "ustar") return ArchiveKind::kDirect;
  if (head.starts_with("BZh") || head.starts_with(std::string_view("\xfd"
                                                                   "7zXZ\0",
                                                                   6)))
    return ArchiveKind::kLibarchive;
  return ArchiveKind::kNone;
}

}  // namespace

void StageBuilder::runCopy(const Instruction& at) {
  std::vector<std::unique_ptr<RootFs>> owned;
  const std::vector<CopyPlan> plans = planCopies(at, owned);
  std::string content;
  for (const auto& plan : plans) content += plan.contentKey();
  std::vector<std::string> chain;
  for (const auto& layer : root_->layers()) chain.push_back(layer.text());
  layerStep(hashOf({"copy", key_, hashOf(chain), content}), at.text + " # buildkit", {[&] {
              return ingestTar(build_.store.layers(), KeepBlob::kCompress, [&](Sink& sink) {
                image::LayerTarWriter tar(sink);
                for (const auto& plan : plans) plan.write(tar);
                tar.finish();
              });
            }});
}

RootFs& StageBuilder::copySource(const Instruction& at, const std::string& from,
                                 std::vector<std::unique_ptr<RootFs>>& owned) {
  if (from.empty()) return build_.context;
  const int self = static_cast<int>(&stage_ - build_.plan.stages.data());
  const int index = findStage(build_.plan.stages, lowerCase(from), self);
  if (index >= 0) return build_.stages[static_cast<size_t>(index)]->root();
  std::optional<image::Image> found = build_.store.find(from);
  if (!found) {
    try {
      found = build_.hooks.pull_image(image::Reference::parse(from), image::Platform{});
    } catch (const Error& error) {
      throw build_.file.error(at, "--from=" + from + " is no stage and no image: " + error.what());
    }
  }
  build_.pins.push_back(build_.store.pinLayers(found->config.diff_ids));
  owned.push_back(std::make_unique<RootFs>(build_.store.layers(), found->config.diff_ids));
  return *owned.back();
}

std::vector<CopyPlan> StageBuilder::planCopies(const Instruction& at,
                                               std::vector<std::unique_ptr<RootFs>>& owned) {
  CopyRequest request;
  request.working_directory = config_.working_dir;
  std::string from;
  bool unpack = at.keyword == "ADD";
  for (const auto& flag : at.flags) {
    const std::string value = flag.name == "from" ? flag.value : expand(flag.value);
    if (flag.name == "from" && at.keyword == "COPY")
      from = value;
    else if (flag.name == "chown")
      request.owner = root_->lookUpOwner(value);
    else if (flag.name == "chmod")
      request.mode = parseMode(value);
    else if (flag.name == "link")
      continue;  // our layers are independent of what is below them anyway
    else if (flag.name == "unpack" && at.keyword == "ADD")
      unpack = value != "false";
    else
      throw build_.file.error(at.line, flag.column,
                              at.keyword + " --" + flag.name + " is not supported yet");
  }
  std::vector<std::string> list = words(at);
  if (list.size() < 2)
    throw build_.file.error(at,
                            at.keyword + " requires at least two arguments: source… destination");
  request.destination = std::move(list.back());
  list.pop_back();
  if (at.exec == std::nullopt && !at.heredocs.empty()) {
    owned.push_back(heredocFiles(at));
    RootFs& files = *owned.back();
    std::erase_if(list, [](const std::string& word) { return word.starts_with("<<"); });
    for (const auto& heredoc : at.heredocs) request.sources.push_back("/" + heredoc.name);
    std::vector<CopyPlan> plans;
    plans.emplace_back(files, *root_, request);
    if (list.empty()) return plans;
    request.sources = list;
    plans.emplace_back(copySource(at, from, owned), *root_, request);
    return plans;
  }
  RootFs& source = copySource(at, from, owned);
  std::vector<CopyPlan> plans;
  std::vector<std::string> plain;
  for (const auto& path : list) {
    if (at.keyword == "ADD" &&
        (path.starts_with("http://") || path.starts_with("https://") || path.starts_with("git@"))) {
      throw build_.file.error(at,
                              "ADD from a URL is not supported yet (download it in a RUN step, or "
                              "put it into the context)");
    }
    std::unique_ptr<RootFs> archive = unpack ? unpackIfArchive(source, path) : nullptr;
    if (!archive) {
      plain.push_back(path);
      continue;
    }
    CopyRequest extraction = request;
    extraction.sources = {"/"};
    extraction.keep_owner = true;
    owned.push_back(std::move(archive));
    plans.emplace_back(*owned.back(), *root_, extraction);
  }
  if (plain.empty()) return plans;
  request.sources = plain;
  if (list.size() > 1 && plain.size() == 1 && !request.destination.ends_with('/'))
    request.destination += '/';
  plans.emplace_back(source, *root_, request);
  return plans;
}

// ADD unpacks by content: what does not turn out to be a tar is a plain file.
std::unique_ptr<RootFs> StageBuilder::unpackIfArchive(RootFs& source, const std::string& path) {
  const image::InodeNumber number = source.tree().resolve("/" + cleanPath(path));
  if (number == image::kNoInode) return nullptr;
  const image::Inode& inode = source.tree().at(number);
  if (inode.type != image::EntryType::kFile || inode.size < 2) return nullptr;
  const int fd = source.dataFd(inode);
  std::string head(std::min<uint64_t>(inode.size, 512), '\0');
  preadFull(fd, std::as_writable_bytes(std::span(head)), inode.data_offset);
  const ArchiveKind kind = archiveKind(head);
  if (kind == ArchiveKind::kNone) return nullptr;
  try {
    InodeSource bytes(fd, inode);
    const IngestedLayer layer =
        kind == ArchiveKind::kDirect
            ? build_.store.layers().ingest(bytes, KeepBlob::kNo)
            : ingestTar(build_.store.layers(), KeepBlob::kNo,
                        [&](Sink& tar) { inflateWithLibarchive(bytes, tar); });
    build_.pins.push_back(build_.store.pinLayers({layer.diff_id}));
    return std::make_unique<RootFs>(build_.store.layers(), std::vector{layer.diff_id});
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kCorrupt || error.kind() == ErrorKind::kNotSupported)
      return nullptr;
    throw;
  }
}

std::unique_ptr<RootFs> StageBuilder::heredocFiles(const Instruction& at) {
  const IngestedLayer layer = ingestTar(build_.store.layers(), KeepBlob::kNo, [&](Sink& sink) {
    image::LayerTarWriter tar(sink);
    for (const auto& heredoc : at.heredocs) {
      const std::string text =
          heredoc.expand ? expandText(heredoc.content, build_.file.escape,
                                      [this](std::string_view name) { return lookUp(name); })
                         : heredoc.content;
      const Fd file = makeMemfd("heredoc");
      writeFull(file.get(), text);
      image::Entry entry;
      entry.path = heredoc.name;
      entry.mode = 0644;
      entry.size = text.size();
      tar.add(entry, file.get());
    }
    tar.finish();
  });
  build_.pins.push_back(build_.store.pinLayers({layer.diff_id}));
  return std::make_unique<RootFs>(build_.store.layers(), std::vector{layer.diff_id});
}

}  // namespace hull::build
