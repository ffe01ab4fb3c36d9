#include "image/build/builder.h"

#include <time.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "image/build/dockerignore.h"
#include "image/build/stage_builder.h"

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

// The context without what its ignore file names, as a tree of its own.
image::Tree filteredContext(RootFs& whole, const image::LayerIndex& index,
                            const std::string& dockerfile) {
  std::string text = whole.readFile("/" + dockerfile + ".dockerignore", kMaxIgnoreBytes);
  if (text.empty()) text = whole.readFile("/.dockerignore", kMaxIgnoreBytes);
  const IgnoreRules rules = IgnoreRules::parse(text);
  image::LayerIndex kept;
  kept.data_bytes = index.data_bytes;
  std::copy_if(index.entries.begin(), index.entries.end(), std::back_inserter(kept.entries),
               [&](const image::Entry& entry) { return !rules.excludes(entry.path); });
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

int countSteps(const StagePlan& plan) {
  size_t steps = 0;
  for (const int index : plan.order)
    steps += 1 + plan.stages[static_cast<size_t>(index)].steps.size();
  return static_cast<int>(steps);
}

void warnUnusedArgs(const BuildState& build) {
  std::string unused;
  for (const auto& [name, value] : build.request.build_args) {
    const bool known = build.used_args.contains(name) || build.plan.global_args.contains(name) ||
                       name == "SOURCE_DATE_EPOCH" || lowerCase(name).ends_with("_proxy");
    if (!known) unused += (unused.empty() ? "" : " ") + name;
  }
  if (!unused.empty()) {
    build.report(BuildEvent::Kind::kWarning,
                 "[Warning] One or more build-args [" + unused + "] were not consumed");
  }
}

}  // namespace

image::Image buildImage(image::ImageStore& store, StepRunner& runner, Source& context,
                        const BuildRequest& request, const BuildHooks& hooks) {
  const image::IngestedLayer ingested = inContext("read the build context", [&] {
    return store.layers().ingest(context, image::KeepBlob::kNo);
  });
  const std::shared_ptr<void> pin = store.pinLayers({ingested.diff_id});
  const image::LayerIndex index = store.layers().index(ingested.diff_id);
  RootFs whole(store.layers(), {ingested.diff_id});
  const std::string name = request.dockerfile_path.empty() ? "Dockerfile" : request.dockerfile_path;
  const Dockerfile file = parseDockerfile(name, readDockerfile(whole, name));
  const StagePlan plan = planStages(file, request.build_args, request.target);
  RootFs visible(store.layers(), {ingested.diff_id},
                 filteredContext(whole, index, cleanPath(name)));
  BuildCache cache(store);

  BuildState build{store,
                   runner,
                   request,
                   hooks,
                   file,
                   plan,
                   cache,
                   visible,
                   {},
                   0,
                   countSteps(plan),
                   {},
                   {},
                   {},
                   buildTime(request)};
  build.now = rfc3339(build.now_seconds);
  build.stages.resize(plan.stages.size());
  for (const auto& warning : file.warnings)
    build.report(BuildEvent::Kind::kWarning, "[Warning] " + warning);
  for (const int stage : plan.order) {
    auto& builder = build.stages[static_cast<size_t>(stage)];
    builder = std::make_unique<StageBuilder>(build, plan.stages[static_cast<size_t>(stage)]);
    builder->run();
  }
  const image::Image image =
      build.stages[static_cast<size_t>(plan.order.back())]->finish(request.tags);
  warnUnusedArgs(build);
  build.report(BuildEvent::Kind::kFinished, "", image.id.text());
  return image;
}

}  // namespace hull::build
