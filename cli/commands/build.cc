// build: packs the context, posts it, and shows what the builder says.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "cli/client/context_tar.h"
#include "cli/client/credentials.h"
#include "cli/commands/context.h"
#include "cli/terminal/format.h"
#include "cli/terminal/progress.h"

namespace hull::cli {

using nlohmann::json;

namespace {

constexpr size_t kMaxDockerfileBytes = 4 << 20;

struct BuildOptions {
  std::vector<std::string> tags, build_args, labels, add_hosts;
  std::string dockerfile, target, network = "default", memory, iidfile, platform, progress;
  bool no_cache = false, pull = false, quiet = false, rm = true;
  std::string context;
};

// The tar is written by a thread of its own into a pipe; its failure is kept for the reader.
class ContextSource final : public Source {
 public:
  explicit ContextSource(ContextOptions options) : pipe_(makePipe()) {
    thread_ = std::thread([this, options = std::move(options)] {
      try {
        FdSink sink(pipe_.second.get());
        writeContext(options, sink);
      } catch (...) {
        failure_ = std::current_exception();
      }
      pipe_.second.reset();
    });
  }
  ~ContextSource() override {
    pipe_.first.reset();  // a writer that is still at it gets EPIPE
    if (thread_.joinable()) thread_.join();
  }
  size_t read(std::span<std::byte> into) override {
    const size_t got = readSome(pipe_.first.get(), into);
    if (got == 0 && thread_.joinable()) {
      thread_.join();
      if (failure_) std::rethrow_exception(failure_);
    }
    return got;
  }

 private:
  FdPair pipe_;
  std::exception_ptr failure_;
  std::thread thread_;
};

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

std::string readStdin() {
  FdSource input(STDIN_FILENO);
  return readAll(input, kMaxDockerfileBytes, "Dockerfile from standard input");
}

// Where the Dockerfile is: in the folder (its relative path), or outside (its contents).
ContextOptions locateDockerfile(const BuildOptions& o) {
  namespace fs = std::filesystem;
  ContextOptions context;
  context.folder = fs::canonical(o.context).string();
  if (o.dockerfile == "-") {
    context.outside_name = ".dockerfile." + randomHex(8);
    context.outside_dockerfile = readStdin();
    return context;
  }
  const std::string path = o.dockerfile.empty() ? context.folder + "/Dockerfile" : o.dockerfile;
  if (!fs::exists(path)) {
    throw Exit{
        1,
        fmt::format("open {}: no such file (name the Dockerfile with -f, or the context's folder)",
                    path)};
  }
  const std::string real = fs::canonical(path).string();
  if (real.starts_with(context.folder + "/")) {
    context.dockerfile =
        fs::path(fs::absolute(path).lexically_normal()).lexically_relative(context.folder).string();
    if (context.dockerfile.starts_with(".."))
      context.dockerfile = real.substr(context.folder.size() + 1);
  } else {
    context.outside_name = ".dockerfile." + randomHex(8);
    context.outside_dockerfile = readFile(real, kMaxDockerfileBytes);
  }
  return context;
}

int buildCommand(Context& context, const BuildOptions& o) {
  std::unique_ptr<Source> source;
  std::string dockerfile;
  if (o.context == "-") {
    source = std::make_unique<FdSource>(STDIN_FILENO);
    dockerfile = o.dockerfile;
  } else if (o.context.find("://") != std::string::npos || o.context.starts_with("git@")) {
    throw Exit{
        1, fmt::format(
               "build {}: contexts from URLs are not supported yet (clone it and name the folder)",
               o.context)};
  } else if (!std::filesystem::is_directory(o.context)) {
    throw Exit{
        1, fmt::format("build: no folder {} (the last argument is the build context)", o.context)};
  } else {
    ContextOptions options = locateDockerfile(o);
    dockerfile = options.outside_name.empty() ? options.dockerfile : options.outside_name;
    source = std::make_unique<ContextSource>(std::move(options));
  }
  std::vector<std::pair<std::string, std::string>> query = {
      {"dockerfile", dockerfile},
      {"version", "1"},
      {"target", o.target},
      {"nocache", o.no_cache ? "1" : ""},
      {"pull", o.pull ? "1" : ""},
      {"q", o.quiet ? "1" : ""},
      {"rm", "1"},
      {"networkmode", o.network},
      {"platform", o.platform},
      {"buildargs", keyValueJson(o.build_args, true)},
      {"labels", keyValueJson(o.labels, false)}};
  for (const auto& tag : o.tags) query.emplace_back("t", tag);
  if (!o.memory.empty())
    query.emplace_back("memory", std::to_string(parseSize(o.memory, "-m, --memory")));
  std::string hosts;
  for (const auto& host : o.add_hosts) hosts += (hosts.empty() ? "" : ",") + host;
  query.emplace_back("extrahosts", hosts);

  std::string image;
  ProgressDisplay display(stderr);
  JsonLines lines([&](const json& event) {
    if (event.contains("stream") && !o.quiet)
      std::cout << event["stream"].get<std::string>() << std::flush;
    if (event.contains("status") && !o.quiet) display.show(event);
    if (event.contains("aux")) image = event["aux"].value("ID", image);
  });
  context.engine().stream(
      "POST", withQuery("/build", query), source.get(),
      {{"Content-Type", "application/x-tar"}, {"X-Registry-Config", registryConfigHeader()}},
      [&](std::string_view data) { lines.feed(data); });
  lines.finish();
  if (o.quiet) std::cout << image << "\n";
  if (!o.iidfile.empty()) writeFileAtomic(o.iidfile, image);
  return 0;
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
  command->add_option("-f,--file", o->dockerfile, "The Dockerfile; - reads it from standard input");
  command->add_option("--target", o->target, "Build up to this stage");
  command->add_option("--network", o->network, "Network of RUN: default or none")
      ->check(CLI::IsMember({"default", "none"}));
  command->add_option("-m,--memory", o->memory, "Memory of RUN");
  command->add_option("--platform", o->platform, "Platform, like linux/amd64");
  command->add_option("--iidfile", o->iidfile, "Write the image's id to this file");
  command->add_option("--progress", o->progress, "Accepted for compatibility: plain lines");
  command->add_flag("--no-cache", o->no_cache, "Do every step again");
  command->add_flag("--pull", o->pull, "Fetch newer base images");
  command->add_flag("-q,--quiet", o->quiet, "Only the image's id");
  command->add_flag("--rm,!--no-rm", o->rm, "Accepted for compatibility");
  command
      ->add_option("CONTEXT", o->context,
                   "The folder to build from, or - for a tar on standard input")
      ->required();
  command->callback([&context, o] { context.exit_code = buildCommand(context, *o); });
}

}  // namespace hull::cli
