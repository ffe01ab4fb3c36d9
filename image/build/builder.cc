#include "image/build/builder.h"

#include <time.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/log.h"
#include "image/build/archive_layer.h"
#include "image/build/context_store.h"
#include "image/build/dockerignore.h"
#include "image/build/lean_tar.h"
#include "image/build/lint.h"
#include "image/build/stage_builder.h"
#include "image/store/codec.h"

namespace hull::build {

namespace {

std::string rfc3339(int64_t seconds) {
  const auto when = static_cast<time_t>(seconds);
  tm utc;
  gmtime_r(&when, &utc);
  char text[32];
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

int64_t buildTime(const BuildRequest& request) {
  const auto epoch = request.build_args.find("SOURCE_DATE_EPOCH");
  if (epoch == request.build_args.end()) return time(nullptr);
  int64_t seconds = 0;
  const std::string& text = epoch->second;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (failed != std::errc{} || end != text.data() + text.size() || seconds < 0) {
    throw Error(ErrorKind::kInvalidArgument,
                "build: SOURCE_DATE_EPOCH must be seconds since 1970, not \"" + text + "\"");
  }
  return seconds;
}

constexpr std::string_view kFolderContext = "context://";

bool isBelow(const std::string& path, const std::string& folder) {
  return path == folder || path.starts_with(folder + "/");
}

// Where the folders of named contexts are in the tar, by name; cleaned.
std::map<std::string, std::string> contextFolders(const BuildRequest& request) {
  std::map<std::string, std::string> folders;
  for (const auto& [name, source] : request.contexts) {
    if (source.starts_with(kFolderContext))
      folders[name] = cleanPath(source.substr(kFolderContext.size()));
  }
  return folders;
}

// What the context's ignore file says.
IgnoreRules ignoreRules(RootFs& whole, const std::string& dockerfile) {
  std::string name = dockerfile + ".dockerignore";
  if (whole.tree().resolve("/" + name) == image::kNoInode) name = ".dockerignore";
  return IgnoreRules::parse(whole.readFile("/" + name, kMaxIgnoreBytes), name);
}

std::string parentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

// The folders that what is not ignored stands in.
std::set<std::string> foldersInUse(const image::LayerIndex& index, const IgnoreRules& rules) {
  std::set<std::string> folders;
  for (const image::Entry& entry : index.entries) {
    if (rules.excludes(entry.path)) continue;
    std::string folder = parentOf(entry.path);
    while (!folder.empty() && folders.insert(folder).second) folder = parentOf(folder);
  }
  return folders;
}

// The context without what is ignored and without the named contexts, as a tree of its own.
image::Tree filteredContext(const image::LayerIndex& index, const IgnoreRules& rules,
                            const std::map<std::string, std::string>& others) {
  const std::set<std::string> folders = foldersInUse(index, rules);
  image::LayerIndex kept;
  kept.data_bytes = index.data_bytes;
  std::copy_if(index.entries.begin(), index.entries.end(), std::back_inserter(kept.entries),
               [&](const image::Entry& entry) {
                 const bool in_use =
                     entry.type == image::EntryType::kDirectory && folders.contains(entry.path);
                 return (in_use || !rules.excludes(entry.path)) &&
                        std::none_of(others.begin(), others.end(), [&](const auto& other) {
                          return isBelow(entry.path, other.second);
                        });
               });
  image::Tree tree;
  tree.apply(kept);
  return tree;
}

// A folder of the tar as a tree of its own.
image::Tree subtree(const image::LayerIndex& index, const std::string& folder) {
  image::LayerIndex kept;
  kept.data_bytes = index.data_bytes;
  for (image::Entry entry : index.entries) {
    if (!isBelow(entry.path, folder) || entry.path == folder) continue;
    entry.path.erase(0, folder.size() + 1);
    if (entry.type == image::EntryType::kHardlink && isBelow(entry.link, folder))
      entry.link.erase(0, folder.size() + 1);
    kept.entries.push_back(std::move(entry));
  }
  image::Tree tree;
  tree.apply(kept);
  return tree;
}

std::string readDockerfile(RootFs& context, const std::string& path) {
  const image::InodeNumber number = context.tree().resolve("/" + cleanPath(path));
  if (number == image::kNoInode || context.tree().at(number).type != image::EntryType::kFile) {
    throw Error(ErrorKind::kNotFound, "build: Cannot locate specified Dockerfile: " + path +
                                          " (it must be inside the context)");
  }
  return context.readFile("/" + path, kMaxDockerfileBytes);
}

void warnUnusedArgs(BuildState& build) {
  std::string unused;
  for (const auto& [name, value] : build.request.build_args) {
    const bool known = build.usesArg(name) || build.plan.global_args.contains(name) ||
                       build.plan.platform_args.contains(name) || name == "SOURCE_DATE_EPOCH" ||
                       lowerCase(name).ends_with("_proxy");
    if (!known) unused += (unused.empty() ? "" : " ") + name;
  }
  if (!unused.empty()) {
    build.report(BuildEvent::Kind::kWarning,
                 "One or more build-args [" + unused + "] were not consumed");
  }
}

std::set<std::string> namesOf(const std::map<std::string, std::string>& contexts) {
  std::set<std::string> names;
  for (const auto& [name, source] : contexts) names.insert(name);
  return names;
}

}  // namespace

namespace {

// A single downloaded file is the Dockerfile of an empty context.
image::IngestedLayer dockerfileOnly(image::ImageStore& store, const Download& file,
                                    const std::string& name) {
  return ingestTar(store.layers(), image::KeepBlob::kNo, [&](Sink& sink) {
    image::LayerTarWriter tar(sink);
    image::Entry entry;
    entry.path = cleanPath(name);
    entry.mode = 0644;
    entry.size = file.size;
    tar.add(entry, file.file.get());
    tar.finish();
  });
}

// The tar that a lean one means. Its contents are kept for the next.
image::IngestedLayer leanContext(image::ImageStore& store, Source& context) {
  const std::shared_ptr<ContextStore> contexts = ContextStore::open(store);
  ContextStore::Reader reader = contexts->reader();
  image::DecodingSource plain(context);
  LeanTarSource tar(plain,
                    [&](const Sha256& digest, uint64_t size) { return reader.open(digest, size); });
  std::vector<image::FileContent> contents;
  image::IngestedLayer layer = store.layers().ingest(tar, image::KeepBlob::kNo, {}, {}, &contents);
  // What came from the store was digested again: a disk that forgets must not go unnoticed.
  std::vector<Sha256> found;
  for (const auto& content : contents) found.push_back(content.digest);
  std::sort(found.begin(), found.end());
  for (const auto& digest : tar.named()) {
    if (std::binary_search(found.begin(), found.end(), digest)) continue;
    contexts->forget(digest);
    throw Error(ErrorKind::kConflict,
                "a content that was named is no file's, or another than it was (send the context "
                "whole)");
  }
  try {
    contexts->keep(layer, std::move(contents));
  } catch (const Error& error) {
    log::warning(std::string("keep a context for the next build: ") + error.what());
  }
  return layer;
}

image::IngestedLayer remoteContext(image::ImageStore& store, const BuildRequest& request,
                                   const BuildHooks& hooks, const std::string& dockerfile) {
  const std::string& address = request.remote_context;
  const std::string& folder = store.blobs().root();
  if (const auto git = parseGitAddress(address)) {
    GitOptions options;
    if (!request.git_protocols.empty()) options.protocols = request.git_protocols;
    const GitCheckout checkout(*git, options, folder, hooks.cancelled);
    return ingestTar(store.layers(), image::KeepBlob::kNo,
                     [&](Sink& sink) { checkout.writeTar(sink); });
  }
  if (!isUrl(address)) {
    throw Error(ErrorKind::kInvalidArgument,
                "build context " + address + ": neither a git repository nor an http(s) address");
  }
  const Download file = download(address, folder, hooks.cancelled);
  if (auto archive = ingestArchive(store.layers(), file.file.get(), 0, file.size)) return *archive;
  return dockerfileOnly(store, file, dockerfile);
}

void report(BuildState& build, const std::vector<Warning>& warnings) {
  for (const auto& warning : warnings) {
    BuildEvent event{BuildEvent::Kind::kWarning, warning.message};
    event.name = warning.rule;
    event.id = ruleAddress(warning.rule);
    event.line = warning.line;
    build.report(std::move(event));
  }
}

void checkBases(const BuildState& build) {
  for (const Stage& stage : build.plan.stages) {
    if (!stage.base.empty()) continue;
    throw build.file.error(stage.from, "base name (" +
                                           splitWords(stage.from.rest, build.file.escape).front() +
                                           ") should not be blank");
  }
  for (const int index : build.plan.order) {
    const Stage& stage = build.plan.stages[static_cast<size_t>(index)];
    if (stage.base_stage >= 0 || stage.base_is_context || stage.base == "scratch") continue;
    try {
      build.store.find(stage.base);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInvalidArgument)
        throw build.file.error(stage.from, error.what());
    }
  }
}

void runChecks(BuildState& build, const IgnoreRules& ignored) {
  LintContext context;
  context.ignored = &ignored;
  context.variables = [&](const std::string& image) -> std::optional<std::vector<std::string>> {
    try {
      const auto found = build.store.find(image);
      if (!found) return std::nullopt;
      std::vector<std::string> names;
      for (const auto& item : found->config.config.env)
        names.push_back(item.substr(0, item.find('=')));
      return names;
    } catch (const Error&) {
      return std::nullopt;  // checkBases() says it, or the build
    }
  };
  const std::vector<Warning> warnings = lint(build.file, build.plan, context);
  report(build, warnings);
  checkBases(build);
  if (!warnings.empty() && (build.file.check.error || build.request.check_only))
    throw Error(ErrorKind::kInvalidArgument, lintFailure(warnings));
}

// --cache-from. A cache is a help, not a need.
void importCaches(BuildState& build, const BuildHooks& hooks) {
  for (const auto& source : build.request.cache_from) {
    try {
      std::optional<image::Image> found;
      if (!source.fetch) found = build.store.find(source.image);
      if (!found)
        found = hooks.pull_image(image::Reference::parse(source.image),
                                 parsePlatform(build.request.platform));
      std::vector<image::Digest> needed = found->config.diff_ids;
      for (const auto& blob : found->layer_blobs) needed.push_back(blob.digest);
      build.pin(build.store.pinLayers(needed));
      build.imported.add(*found);
      if (found->config.build_cache.empty() && found->config.history.empty()) {
        build.report(BuildEvent::Kind::kWarning,
                     "--cache-from " + source.image +
                         ": this image holds neither a build cache nor a history (hull build "
                         "--cache-to makes a cache)");
      }
      if (found->config.build_cache.empty()) build.history_caches.push_back(std::move(*found));
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kCancelled) throw;
      build.report(BuildEvent::Kind::kWarning,
                   "--cache-from " + source.image + ": built without it: " + error.what());
    }
  }
}

// --cache-to but inline: an image of the steps' layers.
void exportCache(BuildState& build, const BuildHooks& hooks) {
  if (!hooks.cache_mode || !hooks.deliver_cache) return;
  image::ImageConfig config;
  config.platform = parsePlatform(build.request.platform);
  config.created = build.now;
  std::vector<image::IngestedLayer> layers;
  PackedSteps packed = packSteps(build.stepRecords(*hooks.cache_mode), layers, /*add_layers=*/true);
  if (packed.left_out > 0) {
    build.report(BuildEvent::Kind::kWarning, "--cache-to: " + std::to_string(packed.left_out) +
                                                 " steps are left out: a cache holds at most " +
                                                 std::to_string(image::kMaxLayers) + " layers");
  }
  config.build_cache = std::move(packed.steps);
  hooks.deliver_cache(build.store.create(config, layers, {}));
}

}  // namespace

image::Image buildImage(image::ImageStore& store, StepRunner& runner, Source& context,
                        const BuildRequest& request, const BuildHooks& hooks) {
  const std::string name = request.dockerfile_path.empty() ? "Dockerfile" : request.dockerfile_path;
  const image::IngestedLayer ingested = inContext("read the build context", [&] {
    if (!request.remote_context.empty()) return remoteContext(store, request, hooks, name);
    if (request.lean_context) return leanContext(store, context);
    return store.layers().ingest(context, image::KeepBlob::kNo);
  });
  const std::shared_ptr<void> pin = store.pinLayers({ingested.diff_id});
  const image::LayerIndex index = store.layers().index(ingested.diff_id);
  RootFs whole(store.layers(), {ingested.diff_id});
  const IgnoreRules ignored = ignoreRules(whole, cleanPath(name));
  const auto folders = contextFolders(request);

  BuildState build(store, runner, request, hooks);
  build.file = parseDockerfile(name, readDockerfile(whole, name));
  build.plan = planStages(build.file, request.build_args, request.target, namesOf(request.contexts),
                          parsePlatform(request.platform));
  runChecks(build, ignored);
  if (request.check_only) return {};
  build.context = std::make_unique<RootFs>(store.layers(), std::vector{ingested.diff_id},
                                           filteredContext(index, ignored, folders));
  for (const auto& [other, folder] : folders) {
    build.folder_contexts[other] = std::make_unique<RootFs>(
        store.layers(), std::vector{ingested.diff_id}, subtree(index, folder));
  }
  build.now_seconds = buildTime(request);
  build.now = rfc3339(build.now_seconds);
  build.fixed_time = request.build_args.contains("SOURCE_DATE_EPOCH");
  importCaches(build, hooks);
  build.runStages();
  const image::Image image = build.finishedStage(build.plan.order.back()).finish(request.tags);
  exportCache(build, hooks);
  warnUnusedArgs(build);
  build.report(BuildEvent::Kind::kFinished, "", 0, image.id.text());
  return image;
}

}  // namespace hull::build
