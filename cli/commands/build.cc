// build: packs the context, posts it, and shows what the builder says. builder: its cache.

#include <fmt/format.h>
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "cli/client/credentials.h"
#include "cli/commands/build_options.h"
#include "cli/commands/build_secrets.h"
#include "cli/commands/build_ssh.h"
#include "cli/terminal/build_display.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

std::string keyValueJson(const std::vector<std::string>& list, bool from_environment) {
  json object = json::object();
  for (const auto& item : list) {
    const size_t equals = item.find('=');
    const std::string key = item.substr(0, equals);
    if (equals != std::string::npos) {
      object[key] = item.substr(equals + 1);
    } else if (const char* value = from_environment ? getenv(key.c_str()) : nullptr) {
      object[key] = value;
    } else if (!from_environment) {
      object[key] = "";
    }
  }
  return object.empty() ? "" : object.dump();
}

// SOURCE_DATE_EPOCH of this environment counts as if it was given, as with other builders.
std::vector<std::string> buildArgs(const BuildOptions& o) {
  std::vector<std::string> args = o.build_args;
  const bool given = std::any_of(args.begin(), args.end(), [](const std::string& item) {
    return item.substr(0, item.find('=')) == "SOURCE_DATE_EPOCH";
  });
  if (!given && getenv("SOURCE_DATE_EPOCH")) args.emplace_back("SOURCE_DATE_EPOCH");
  return args;
}

Query queryOf(const BuildOptions& o, const std::vector<BuildOutput>& outputs) {
  Query query = {{"version", "1"},
                 {"hullevents", "1"},
                 {"target", o.target},
                 {"nocache", o.no_cache ? "1" : ""},
                 {"pull", o.pull ? "1" : ""},
                 {"q", o.quiet ? "1" : ""},
                 {"check", o.check ? "1" : ""},
                 {"rm", "1"},
                 {"networkmode", o.network},
                 {"platform", o.platform},
                 {"buildargs", keyValueJson(buildArgs(o), true)},
                 {"labels", keyValueJson(o.labels, false)}};
  for (const auto& tag : o.tags) query.emplace_back("t", tag);
  for (const auto& output : outputs) query.emplace_back("t", output.name);
  for (const auto& list : o.no_cache_filter) {
    for (size_t start = 0; start < list.size();) {
      const size_t comma = std::min(list.find(',', start), list.size());
      query.emplace_back("nocachefilter", list.substr(start, comma - start));
      start = comma + 1;
    }
  }
  for (const auto& host : o.add_hosts) query.emplace_back("extrahosts", host);
  if (!o.memory.empty())
    query.emplace_back("memory", std::to_string(parseSize(o.memory, "-m, --memory")));
  return query;
}

void showWarnings(const std::vector<BuildProgress::Warning>& warnings, bool in_full) {
  if (warnings.empty()) return;
  std::cerr << fmt::format("\n {} warning{} found{}:\n", warnings.size(),
                           warnings.size() == 1 ? "" : "s",
                           in_full ? "" : " (hull build --check shows more)");
  for (const auto& warning : warnings) {
    std::cerr << fmt::format(" - {}{}{}{}\n", warning.rule, warning.rule.empty() ? "" : ": ",
                             warning.text,
                             warning.line > 0 ? fmt::format(" (line {})", warning.line) : "");
    if (in_full && !warning.page.empty()) std::cerr << "   " << warning.page << "\n";
  }
}

void writeMetadata(const EngineClient& engine, const BuildOptions& o, const std::string& image) {
  const json inspected = engine.get("/images/" + urlEncode(image) + "/json");
  json metadata = {{"containerimage.config.digest", inspected.value("Id", image)}};
  if (inspected.contains("Descriptor") && inspected["Descriptor"].contains("digest"))
    metadata["containerimage.digest"] = inspected["Descriptor"]["digest"];
  std::string names;
  for (const auto& tag : o.tags) names += (names.empty() ? "" : ",") + tag;
  if (!names.empty()) metadata["image.name"] = names;
  writeFileAtomic(o.metadata_file, metadata.dump(2) + "\n");
}

constexpr int kConflict = 409;

struct BuildResult {
  std::string image, cache;  // ids
};

// Tells the display how much of the context has gone out.
class ShownSource final : public Source {
 public:
  ShownSource(const BuildContext& context, BuildDisplay& display)
      : context_(context), display_(display) {}
  size_t read(std::span<std::byte> into) override {
    const size_t got = context_.body->read(into);
    sent_ += got;
    if (got > 0 && sent_ - shown_ < kShownBytes) return got;
    shown_ = sent_;
    display_.event({{"hull",
                     {{"kind", "context"},
                      {"sent", sent_},
                      {"bytes", context_.bytes},
                      {"held", context_.held},
                      {"done", got == 0}}}});
    return got;
  }

 private:
  static constexpr uint64_t kShownBytes = 1 << 20;
  const BuildContext& context_;
  BuildDisplay& display_;
  uint64_t sent_ = 0, shown_ = 0;
};

// Posts the build.
BuildResult postBuild(const EngineClient& engine, const BuildOptions& o,
                      const std::vector<BuildOutput>& outputs, const BuildCaches& caches,
                      BuildDisplay& display) {
  const SshForwarding ssh(engine, o.ssh);
  const SecretForwarding secrets(o.secrets);
  BuildContext source = openBuildContext(engine, o);
  Query query = queryOf(o, outputs);
  query.insert(query.end(), source.query.begin(), source.query.end());
  query.insert(query.end(), caches.query.begin(), caches.query.end());
  const Query agents = ssh.query();
  query.insert(query.end(), agents.begin(), agents.end());
  const Headers headers = {{"X-Registry-Config", registryConfigHeader()}};
  BuildResult result;
  JsonLines lines([&](const json& event) {
    display.event(event);
    if (!event.contains("aux")) return;
    result.image = event["aux"].value("ID", result.image);
    result.cache = event["aux"].value("CacheID", result.cache);
  });
  const auto post = [&] {
    ShownSource shown(source, display);
    Headers typed = headers;
    typed.emplace_back("Content-Type", source.type);
    Query whole = query;
    const Query sent = secrets.send(engine);
    whole.insert(whole.end(), sent.begin(), sent.end());
    engine.stream("POST", withQuery("/build", whole), source.body ? &shown : nullptr, typed,
                  [&](std::string_view data) { lines.feed(data); });
  };
  try {
    post();
  } catch (const ApiError& error) {
    // What it had a moment ago is gone, as by hull builder prune.
    if (!source.whole || error.status() != kConflict) throw;
    BuildContext whole;
    whole.body = source.whole();
    source = std::move(whole);
    post();
  }
  lines.finish();
  return result;
}

// Images that only carry a cache, for as long as the build takes.
class CarriedCaches {
 public:
  CarriedCaches(const EngineClient& engine, std::vector<std::string> images)
      : engine_(engine), images_(std::move(images)) {}
  ~CarriedCaches() {
    for (const auto& image : images_) {
      try {
        engine_.call("DELETE", "/images/" + urlEncode(image));
      } catch (const std::exception&) {
        // Something else has it: hull image prune finds it later.
      }
    }
  }
  CarriedCaches(const CarriedCaches&) = delete;
  CarriedCaches& operator=(const CarriedCaches&) = delete;
  void add(const std::string& image) { images_.push_back(image); }

 private:
  const EngineClient& engine_;
  std::vector<std::string> images_;
};

void deliver(const EngineClient& engine, const BuildOptions& o,
             const std::vector<BuildOutput>& outputs, const std::string& image) {
  bool kept = outputs.empty() || !o.tags.empty();
  for (const auto& output : outputs) {
    writeOutput(engine, output, image, o.tags);
    kept |= output.type == BuildOutput::Type::kImage ||
            (output.type == BuildOutput::Type::kDocker && output.destination.empty());
  }
  if (!o.iidfile.empty()) writeFileAtomic(o.iidfile, image);
  if (!o.metadata_file.empty()) writeMetadata(engine, o, image);
  // An image that was only wanted as files is not left behind without a name. It may have one: of
  // an earlier build that made the same.
  if (kept) return;
  const json inspected = engine.get("/images/" + urlEncode(image) + "/json");
  if (inspected.value("RepoTags", json::array()).empty())
    engine.call("DELETE", "/images/" + urlEncode(image));
}

int buildCommand(Context& context, const BuildOptions& o) {
  std::vector<BuildOutput> outputs;
  for (const auto& text : o.outputs) outputs.push_back(parseOutput(text));
  const EngineClient& engine = context.engine();
  const BuildCaches caches = openBuildCaches(engine, o);
  CarriedCaches carried(engine, caches.loaded);
  BuildResult result;
  std::vector<BuildProgress::Warning> warnings;
  {
    BuildDisplay display(displayMode(o.progress, o.quiet, stderr), stderr);
    try {
      result = postBuild(engine, o, outputs, caches, display);
    } catch (...) {
      display.finish();
      if (!o.quiet) showWarnings(display.warnings(), o.check);
      throw;
    }
    display.finish();
    warnings = display.warnings();
  }
  const std::string& image = result.image;
  if (!result.cache.empty()) {
    carried.add(result.cache);
    writeCacheFolder(engine, result.cache, caches.folder);
  }
  if (o.check) {
    std::cout << "Check complete, no warnings have been found.\n";
    return 0;
  }
  if (!o.quiet) showWarnings(warnings, false);
  deliver(engine, o, outputs, image);
  if (o.quiet)
    std::cout << image << "\n";
  else if (o.progress != "rawjson")
    std::cerr << fmt::format("Built {}{}{}\n", shortId(image), o.tags.empty() ? "" : ", named ",
                             fmt::join(o.tags, ", "));
  return 0;
}

void addPruneCommand(CLI::App& group, Context& context) {
  struct Options {
    bool all = false, force = false;
    std::vector<std::string> filters;
    std::string keep;
  };
  auto o = std::make_shared<Options>();
  auto* command = group.add_subcommand("prune", "Remove the build cache");
  command->add_flag("-a,--all", o->all, "Accepted for compatibility: all of it is removed");
  command->add_flag("-f,--force", o->force, "Do not ask");
  addList(command, "--filter", o->filters, "until=24h: what was not used for that long");
  command->add_option("--keep-storage,--reserved-space", o->keep, "Keep this much of the latest");
  command->callback([&context, o] {
    if (!o->force && isatty(STDIN_FILENO)) {
      std::cout << "WARNING! This will remove the build cache.\nAre you sure you want to continue? "
                   "[y/N] "
                << std::flush;
      std::string answer;
      std::getline(std::cin, answer);
      if (answer != "y" && answer != "Y") return;
    }
    json filters = json::object();
    for (const auto& filter : o->filters) {
      const size_t equals = std::min(filter.find('='), filter.size());
      if (equals == filter.size())
        throw Exit{125, fmt::format("--filter {}: must be key=value", filter)};
      filters[filter.substr(0, equals)].push_back(filter.substr(equals + 1));
    }
    const json answer = context.engine().post(
        withQuery("/build/prune",
                  {{"all", o->all ? "1" : ""},
                   {"keep-storage",
                    o->keep.empty() ? "" : std::to_string(parseSize(o->keep, "--keep-storage"))},
                   {"filters", filters.empty() ? "" : filters.dump()}}),
        json());
    if (answer.contains("CachesDeleted") && answer["CachesDeleted"].is_array()) {
      for (const auto& id : answer["CachesDeleted"]) std::cout << id.get<std::string>() << "\n";
    }
    std::cout << "Total reclaimed space: " << humanSize(answer.value("SpaceReclaimed", 0.0))
              << "\n";
  });
}

void addDiskUsageCommand(CLI::App& group, Context& context) {
  auto* command = group.add_subcommand("du", "Show what the build cache holds");
  command->callback([&context] {
    const json usage = context.engine().get("/system/df");
    Table table({"ID", "TYPE", "SIZE", "LAST USED", "USES", "DESCRIPTION"});
    double total = 0;
    for (const auto& item : usage.value("BuildCache", json::array())) {
      total += item.value("Size", 0.0);
      table.add({ellipsis(item.value("ID", ""), 25), item.value("Type", ""),
                 humanSize(item.value("Size", 0.0)),
                 ago(parseTimestamp(item.value("LastUsedAt", ""))),
                 std::to_string(item.value("UsageCount", 0)),
                 ellipsis(item.value("Description", ""), 60)});
    }
    std::cout << table.text() << "Total: " << humanSize(total) << "\n";
  });
}

}  // namespace

void addBuildCommand(CLI::App& app, Context& context) {
  auto o = std::make_shared<BuildOptions>();
  auto* command = app.add_subcommand("build", "Build an image from a Dockerfile");
  addList(command, "-t,--tag", o->tags, "Name of the image, name:tag");
  addList(command, "--build-arg", o->build_args,
          "Value of an ARG: K=V, or K from this environment");
  addList(command, "--label", o->labels, "Label of the image");
  addList(command, "--add-host", o->add_hosts, "Host-to-address mapping host:address");
  addList(command, "--secret", o->secrets, "id=NAME,src=FILE or id=NAME,env=VARIABLE");
  addList(command, "--ssh", o->ssh,
          "An ssh agent for RUN --mount=type=ssh: default, ID=SOCKET or ID=KEYFILE");
  addList(command, "-o,--output", o->outputs,
          "type=image|local|tar|oci|docker,dest=PATH; a folder; - for a tar on standard output");
  addList(command, "--build-context", o->build_contexts,
          "Named context: NAME=FOLDER, docker-image://…, git or http address");
  addList(command, "--no-cache-filter", o->no_cache_filter, "Stages that are built again");
  addList(command, "--cache-from", o->cache_from,
          "One more cache: an image, type=registry,ref=IMAGE or type=local,src=FOLDER");
  addList(command, "--cache-to", o->cache_to,
          "Where the cache goes: type=registry,ref=IMAGE, type=local,dest=FOLDER (with mode=max "
          "all steps) or type=inline");
  command->add_option("-f,--file", o->dockerfile, "The Dockerfile; - reads it from standard input");
  command->add_option("--target", o->target, "Build up to this stage");
  command->add_option("--network", o->network, "Network of RUN: default or none")
      ->check(CLI::IsMember({"default", "none"}));
  command->add_option("-m,--memory", o->memory, "Memory of RUN");
  command->add_option("--platform", o->platform, "Platform, like linux/amd64");
  command->add_option("--iidfile", o->iidfile, "Write the image's id to this file");
  command->add_option("--metadata-file", o->metadata_file, "Write digests and names to this file");
  command->add_option("--progress", o->progress, "auto, tty, plain, quiet or rawjson");
  command->add_flag("--check", o->check, "Only check the Dockerfile");
  command->add_flag("--no-cache", o->no_cache, "Do every step again");
  command->add_flag("--pull", o->pull, "Fetch newer base images");
  command->add_flag("--load", o->load, "Accepted: the image is in the engine anyway");
  command->add_flag("-q,--quiet", o->quiet, "Only the image's id");
  command->add_flag("--rm,!--no-rm", o->rm, "Accepted for compatibility");
  command
      ->add_option("CONTEXT", o->context,
                   "A folder, a git or http address, or - for a tar or Dockerfile on standard "
                   "input")
      ->required();
  command->callback([&context, o] { context.exit_code = buildCommand(context, *o); });

  auto* builder = app.add_subcommand("builder", "The build cache");
  builder->require_subcommand(1);
  addPruneCommand(*builder, context);
  addDiskUsageCommand(*builder, context);
}

}  // namespace hull::cli
