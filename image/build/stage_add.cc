// ADD from elsewhere: downloads and git repositories. Named contexts that are such addresses, too.
#include <algorithm>

#include "base/error.h"
#include "image/build/stage_builder.h"

namespace hull::build {

using image::IngestedLayer;
using image::KeepBlob;

namespace {

constexpr uint16_t kDownloadMode = 0600;
constexpr size_t kSha256Text = 64 + sizeof "sha256:" - 1;
constexpr size_t kLeastCommitDigits = 7;
constexpr size_t kCommitDigits = 40;

std::string flagOf(const Instruction& at, std::string_view name) {
  for (const auto& flag : at.flags) {
    if (flag.name == name) return flag.value;
  }
  return {};
}

// A commit as "sha1:…" or plain digits.
std::string commitPrefix(const std::string& checksum) {
  const std::string digits = checksum.starts_with("sha1:") ? checksum.substr(5) : checksum;
  if (digits.find_first_not_of("0123456789abcdef") != std::string::npos ||
      digits.size() < kLeastCommitDigits || digits.size() > kCommitDigits) {
    throw Error(ErrorKind::kInvalidArgument,
                "--checksum=" + checksum + " is no commit: 7 to 40 hexadecimal digits");
  }
  return digits;
}

void requireSha256(const std::string& checksum) {
  if (!checksum.starts_with("sha256:") || checksum.size() != kSha256Text ||
      checksum.find_first_not_of("0123456789abcdef", 7) != std::string::npos) {
    throw Error(ErrorKind::kInvalidArgument,
                "--checksum=" + checksum + " is not sha256:… with 64 hexadecimal digits");
  }
}

}  // namespace

std::string StageBuilder::checksumOf(const Instruction& at) {
  if (at.keyword != "ADD") return {};
  const std::string checksum = expand(flagOf(at, "checksum"));
  const bool whole = checksum.size() == kSha256Text || checksum.size() == kCommitDigits ||
                     checksum.size() == kCommitDigits + sizeof "sha1:" - 1;
  return whole ? checksum : "";
}

bool StageBuilder::addRemote(const Instruction& at, const std::string& source,
                             const CopyRequest& request, CopyWork& work) {
  if (const auto git = parseGitAddress(source)) {
    addGit(at, *git, request, work);
    return true;
  }
  if (isUrl(source)) {
    addDownload(at, source, request, work);
    return true;
  }
  if (!flagOf(at, "checksum").empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                "--checksum is for sources from HTTP(S) and git, not for \"" + source + "\"");
  }
  return false;
}

void StageBuilder::addDownload(const Instruction& at, const std::string& url, CopyRequest request,
                               CopyWork& work) {
  const std::string checksum = expand(flagOf(at, "checksum"));
  if (!checksum.empty()) requireSha256(checksum);
  const Download file =
      download(url, build_.store.blobs().root(), [this] { return build_.cancelled(); });
  if (!checksum.empty() && checksum != file.digest) {
    throw Error(ErrorKind::kCorrupt,
                "digest mismatch of " + url + ": it is " + file.digest + ", not " + checksum);
  }
  if (unpacks(at, false)) {
    planArchive(unpackDownload(file), request, work);
    return;
  }
  const bool folder = request.destination.ends_with('/') || isDirectoryOf(request.destination);
  if (folder && file.name.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                "the address " + url + " names no file: give the destination a file name");
  }
  const std::string name = file.name.empty() ? "download" : file.name;
  request.sources = {"/" + name};
  request.exclude.clear();
  work.plans.emplace_back(keep(work, downloadTree(file, name)), *root_, request);
}

std::unique_ptr<RootFs> StageBuilder::downloadTree(const Download& file, const std::string& name) {
  return treeOf(ingestTar(build_.store.layers(), KeepBlob::kNo, [&](Sink& sink) {
    image::LayerTarWriter tar(sink);
    image::Entry entry;
    entry.path = name;
    entry.mode = kDownloadMode;
    entry.size = file.size;
    entry.mtime_seconds = file.last_modified.value_or(0);
    tar.add(entry, file.file.get());
    tar.finish();
  }));
}

std::unique_ptr<RootFs> StageBuilder::unpackDownload(const Download& file) {
  const std::unique_ptr<RootFs> whole = downloadTree(file, "download");
  std::unique_ptr<RootFs> archive = unpackIfArchive(*whole, "download");
  if (!archive) {
    throw Error(ErrorKind::kInvalidArgument,
                "--unpack: what was downloaded is no tar (plain, gzip, bzip2, xz or zstd)");
  }
  return archive;
}

void StageBuilder::addGit(const Instruction& at, const GitAddress& address, CopyRequest request,
                          CopyWork& work) {
  request.sources = {"/"};
  work.plans.emplace_back(
      keep(work, gitTree(address, hasFlag(at, "keep-git-dir"), expand(flagOf(at, "checksum")))),
      *root_, request);
}

std::unique_ptr<RootFs> StageBuilder::gitTree(const GitAddress& address, bool keep_git,
                                              std::string checksum) {
  GitOptions options;
  options.keep_git_directory = keep_git;
  if (!build_.request.git_protocols.empty()) options.protocols = build_.request.git_protocols;
  const GitCheckout checkout(address, options, build_.store.blobs().root(),
                             [this] { return build_.cancelled(); });
  if (!checksum.empty() && !checkout.commit().starts_with(commitPrefix(checksum))) {
    throw Error(ErrorKind::kCorrupt, "checksum mismatch of " + address.repository + ": it is at " +
                                         checkout.commit() + ", not " + checksum);
  }
  image::LayerStore& layers = build_.store.layers();
  const IngestedLayer tree =
      ingestTar(layers, KeepBlob::kNo, [&](Sink& sink) { checkout.writeTar(sink); });
  if (!keep_git) return treeOf(tree);
  const IngestedLayer git =
      ingestTar(layers, KeepBlob::kNo, [&](Sink& sink) { checkout.writeGitDirectory(sink); });
  build_.pin(build_.store.pinLayers({tree.diff_id, git.diff_id}));
  return std::make_unique<RootFs>(layers, std::vector{tree.diff_id, git.diff_id});
}

RootFs& StageBuilder::namedContext(const std::string& name, const std::string& source,
                                   CopyWork& work) {
  constexpr std::string_view kImage = "docker-image://";
  if (const auto folder = build_.folder_contexts.find(name); folder != build_.folder_contexts.end())
    return *folder->second;
  if (source.starts_with(kImage))
    return imageTree(source.substr(kImage.size()), "named context " + name + ": ", work);
  if (const auto git = parseGitAddress(source)) return keep(work, gitTree(*git, false, ""));
  if (isUrl(source)) {
    const Download file =
        download(source, build_.store.blobs().root(), [this] { return build_.cancelled(); });
    return keep(work, unpackDownload(file));
  }
  throw Error(ErrorKind::kInvalidArgument,
              "named context " + name + "=" + source +
                  ": not a folder, docker-image://…, git repository or address of a tar");
}

}  // namespace hull::build
