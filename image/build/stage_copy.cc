// The COPY and ADD instructions.
#include <algorithm>

#include "base/error.h"
#include "image/build/archive_layer.h"
#include "image/build/stage_builder.h"
#include "image/build/step_text.h"

namespace hull::build {

using image::IngestedLayer;
using image::KeepBlob;

void StageBuilder::runCopy(const Instruction& at) {
  const std::vector<std::string> list = words(at);
  if (list.size() < 2)
    throw build_.file.error(at,
                            at.keyword + " requires at least two arguments: source… destination");
  CopyWork work;
  Step step;
  step.created_by = at.text + " # buildkit";
  const auto make = [&] {
    return makeLayer([&](Sink& sink) {
      image::LayerTarWriter tar(sink);
      for (const auto& plan : work.plans) plan.write(tar);
      tar.finish();
    });
  };
  if (const std::string content = checksumOf(at); !content.empty()) {
    // The checksum names the content: nothing is fetched when the step was made before.
    const CopyRequest request = copyRequest(at);
    const Owner owner = request.owner.value_or(Owner{});
    step.key = hashOf({"add", key_, chainKey(), content, joinWords(list), hashOf(list),
                       config_.working_dir, std::to_string(owner.uid), std::to_string(owner.gid),
                       at.text});
    step.make = [&] {
      planCopy(at, list, work);
      return make();
    };
    return layerStep(step);
  }
  planCopy(at, list, work);
  std::string content;
  for (const auto& plan : work.plans) content += plan.contentKey();
  const bool link = hasFlag(at, "link");
  step.key = hashOf({"copy", key_, chainKey(), content});
  if (link) step.cache_key = hashOf({"link", content, build_.fixed_time ? build_.now : ""});
  step.make = make;
  layerStep(step);
}

bool StageBuilder::hasFlag(const Instruction& at, std::string_view name) {
  return std::any_of(at.flags.begin(), at.flags.end(),
                     [&](const Flag& flag) { return flag.name == name && flag.value != "false"; });
}

RootFs& StageBuilder::keep(CopyWork& work, std::unique_ptr<RootFs> tree) {
  work.trees.push_back(std::move(tree));
  return *work.trees.back();
}

std::unique_ptr<RootFs> StageBuilder::treeOf(const IngestedLayer& layer) {
  build_.pin(build_.store.pinLayers({layer.diff_id}));
  return std::make_unique<RootFs>(build_.store.layers(), std::vector{layer.diff_id});
}

// What COPY --from and RUN --mount=from= name: a named context, a stage or an image.
RootFs& StageBuilder::copySource(const std::string& from, CopyWork& work) {
  if (from.empty()) return *build_.context;
  const std::string name = lowerCase(from);
  if (const auto context = build_.request.contexts.find(name);
      context != build_.request.contexts.end())
    return namedContext(name, context->second, work);
  const int index = findStage(build_.plan.stages, name, stage_.index);
  if (index >= 0) return build_.finishedStage(index).root();
  return imageTree(from, "from=" + from + " is no stage and no image: ", work);
}

RootFs& StageBuilder::imageTree(const std::string& name, const std::string& problem,
                                CopyWork& work) {
  try {
    const image::Image found = build_.baseImage(name, platform_);
    return keep(work, std::make_unique<RootFs>(build_.store.layers(), found.config.diff_ids));
  } catch (const Error& error) {
    throw Error(error.kind(), problem + error.what());
  }
}

CopyRequest StageBuilder::copyRequest(const Instruction& at) {
  CopyRequest request;
  request.working_directory = config_.working_dir;
  request.now_seconds = build_.now_seconds;
  request.link = hasFlag(at, "link");
  request.parents = hasFlag(at, "parents");
  for (const auto& flag : at.flags) {
    if (flag.name == "chown") request.owner = root_->lookUpOwner(expand(flag.value));
    if (flag.name == "chmod") request.mode = ModeChange::parse(expand(flag.value));
    if (flag.name == "exclude") request.exclude.push_back(expand(flag.value));
  }
  return request;
}

void StageBuilder::planCopy(const Instruction& at, const std::vector<std::string>& words,
                            CopyWork& work) {
  CopyRequest request = copyRequest(at);
  std::vector<std::string> sources = words;
  request.destination = std::move(sources.back());
  sources.pop_back();
  if (sources.size() > 1 && !request.parents && !request.destination.ends_with('/') &&
      !request.link && !isDirectoryOf(request.destination)) {
    throw Error(
        ErrorKind::kInvalidArgument,
        "when several files are copied, the destination must be a directory and end with a /");
  }
  if (sources.size() > 1 && !request.destination.ends_with('/')) request.destination += '/';
  if (!at.exec && !at.heredocs.empty()) {
    request.sources.clear();
    for (const auto& heredoc : at.heredocs) request.sources.push_back("/" + heredoc.name);
    work.plans.emplace_back(keep(work, heredocFiles(at)), *root_, request);
    std::erase_if(sources, [](const std::string& word) { return word.starts_with("<<"); });
    if (sources.empty()) return;
  }
  planSources(at, sources, request, work);
}

bool StageBuilder::isDirectoryOf(const std::string& path) const {
  const image::InodeNumber number =
      root_->tree().resolve("/" + joinPath(config_.working_dir, path));
  return number != image::kNoInode && root_->tree().at(number).type == image::EntryType::kDirectory;
}

void StageBuilder::planSources(const Instruction& at, const std::vector<std::string>& list,
                               const CopyRequest& request, CopyWork& work) {
  std::string from;
  for (const auto& flag : at.flags) {
    if (flag.name == "from") from = flag.value;
  }
  const bool add = at.keyword == "ADD";
  CopyRequest plain = request;
  plain.sources.clear();
  for (const auto& path : list) {
    if (add && addRemote(at, path, request, work)) continue;
    std::unique_ptr<RootFs> archive =
        add && unpacks(at, true) ? unpackIfArchive(*build_.context, path) : nullptr;
    if (archive)
      planArchive(std::move(archive), request, work);
    else
      plain.sources.push_back(path);
  }
  if (plain.sources.empty()) return;
  RootFs& source = copySource(from, work);
  const bool context = &source == build_.context.get();
  try {
    work.plans.emplace_back(source, *root_, plain);
  } catch (const Error& error) {
    if (!context || error.kind() != ErrorKind::kNotFound) throw;
    throw Error(error.kind(), std::string(error.what()) +
                                  " in the build context (it may be left out by .dockerignore)");
  }
}

void StageBuilder::planArchive(std::unique_ptr<RootFs> archive, const CopyRequest& request,
                               CopyWork& work) {
  CopyRequest extraction = request;
  extraction.sources = {"/"};
  extraction.keep_owner = true;
  work.plans.emplace_back(keep(work, std::move(archive)), *root_, extraction);
}

// --unpack says it; otherwise archives of the context are unpacked and downloads are not.
bool StageBuilder::unpacks(const Instruction& at, bool otherwise) {
  for (const auto& flag : at.flags) {
    if (flag.name == "unpack") return flag.value != "false";
  }
  return otherwise;
}

// ADD unpacks by content: what does not turn out to be a tar is a plain file.
std::unique_ptr<RootFs> StageBuilder::unpackIfArchive(RootFs& source, const std::string& path) {
  const image::InodeNumber number = source.tree().resolve("/" + cleanPath(path));
  if (number == image::kNoInode) return nullptr;
  const image::Inode& inode = source.tree().at(number);
  if (inode.type != image::EntryType::kFile) return nullptr;
  const auto layer =
      ingestArchive(build_.store.layers(), source.dataFd(inode), inode.data_offset, inode.size);
  return layer ? treeOf(*layer) : nullptr;
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
      entry.mtime_seconds = build_.now_seconds;
      tar.add(entry, file.get());
    }
    tar.finish();
  });
  return treeOf(layer);
}

}  // namespace hull::build
