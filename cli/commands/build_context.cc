// The build's context: packed here, or fetched by the engine.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "cli/client/context_tar.h"
#include "cli/client/lean_context.h"
#include "cli/commands/build_options.h"
#include "image/build/lean_tar.h"

namespace hull::cli {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr size_t kMaxDockerfileBytes = 4 << 20;
constexpr size_t kMaxIgnoreFileBytes = 1 << 20;
constexpr size_t kTarHeaderBytes = 512;
constexpr const char* kNamedContextFolder = ".hull-contexts";

// The tar is written by a thread of its own into a pipe; its failure is kept for the reader.
class ContextSource final : public Source {
 public:
  explicit ContextSource(std::function<void(Sink&)> write) : pipe_(makePipe()) {
    thread_ = std::thread([this, write = std::move(write)] {
      try {
        FdSink sink(pipe_.second.get());
        write(sink);
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

std::unique_ptr<Source> wholeContext(ContextOptions options) {
  return std::make_unique<ContextSource>(
      [options = std::move(options)](Sink& out) { writeContext(options, out); });
}

// As little of it as the engine needs.
void openFolderContext(const EngineClient& engine, ContextOptions options, BuildContext& context) {
  std::optional<LeanContext> lean = LeanContext::plan(engine, options);
  if (!lean) {
    context.body = wholeContext(std::move(options));
    return;
  }
  context.type = build::kLeanTarType;
  context.bytes = lean->bytes();
  context.held = lean->held();
  context.body = std::make_unique<ContextSource>(
      [lean = std::move(*lean), options](Sink& out) { lean.write(options, out); });
  context.whole = [options = std::move(options)] { return wholeContext(options); };
}

// Standard input behind the bytes that were looked at.
class PeekedInput final : public Source {
 public:
  explicit PeekedInput(std::string head) : head_(std::move(head)), rest_(head_) {}
  size_t read(std::span<std::byte> into) override {
    const size_t got = rest_.read(into);
    return got > 0 ? got : readSome(STDIN_FILENO, into);
  }

 private:
  std::string head_;
  StringSource rest_;
};

std::string readStdin(std::string head = {}) {
  PeekedInput input(std::move(head));
  return readAll(input, kMaxDockerfileBytes, "Dockerfile from standard input");
}

bool isArchive(std::string_view head) {
  return head.starts_with("\x1f\x8b") || head.starts_with("\x28\xb5\x2f\xfd") ||
         head.starts_with("BZh") ||
         head.starts_with(
             "\xfd"
             "7zXZ") ||
         (head.size() >= 262 && head.substr(257, 5) == "ustar");
}

bool isAddress(const std::string& text) {
  return text.find("://") != std::string::npos || text.starts_with("git@");
}

// Where the Dockerfile is: in the folder (its relative path), or outside (its contents).
void locateDockerfile(const BuildOptions& o, ContextOptions& context) {
  if (o.dockerfile == "-") {
    context.outside_name = ".dockerfile." + randomHex(8);
    context.outside_dockerfile = readStdin();
    return;
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
    return;
  }
  context.outside_name = ".dockerfile." + randomHex(8);
  context.outside_dockerfile = readFile(real, kMaxDockerfileBytes);
  if (const std::string ignore = real + ".dockerignore"; fileExists(ignore))
    context.outside_ignore = readFile(ignore, kMaxIgnoreFileBytes);
}

// Folders travel in the tar; anything else is a word for the engine.
void addNamedContexts(const BuildOptions& o, ContextOptions& context, Query& query) {
  json contexts = json::object();
  for (const auto& item : o.build_contexts) {
    const size_t equals = item.find('=');
    const std::string name = item.substr(0, equals);
    if (equals == std::string::npos || name.empty())
      throw Exit{125, fmt::format("--build-context {}: must be name=folder or address", item)};
    const std::string source = item.substr(equals + 1);
    if (isAddress(source)) {
      contexts[name] = source;
      continue;
    }
    if (!fs::is_directory(source))
      throw Exit{1, fmt::format("--build-context {}: no folder {}", name, source)};
    const std::string prefix = fmt::format("{}/{}", kNamedContextFolder, context.others.size());
    context.others.push_back({fs::canonical(source).string(), prefix});
    contexts[name] = "context://" + prefix;
  }
  if (!contexts.empty()) query.emplace_back("buildcontexts", contexts.dump());
}

BuildContext fromFolder(const EngineClient& engine, const BuildOptions& o) {
  ContextOptions options;
  options.folder = fs::canonical(o.context).string();
  locateDockerfile(o, options);
  BuildContext context;
  context.query.emplace_back(
      "dockerfile", options.outside_name.empty() ? options.dockerfile : options.outside_name);
  addNamedContexts(o, options, context.query);
  openFolderContext(engine, std::move(options), context);
  return context;
}

// A tar as it is, or a Dockerfile without a context.
BuildContext fromStdin(const EngineClient& engine, const BuildOptions& o) {
  if (o.dockerfile == "-")
    throw Exit{125, "-f - and the context - cannot both be read from standard input"};
  std::string head(kTarHeaderBytes, '\0');
  head.resize(readFull(STDIN_FILENO, std::as_writable_bytes(std::span(head))));
  BuildContext context;
  ContextOptions options;
  if (isArchive(head)) {
    addNamedContexts(o, options, context.query);
    if (!options.others.empty())
      throw Exit{125, "--build-context with a folder needs a folder as the context, not a tar"};
    context.query.emplace_back("dockerfile", o.dockerfile);
    context.body = std::make_unique<PeekedInput>(std::move(head));
    return context;
  }
  options.outside_name = o.dockerfile.empty() ? "Dockerfile" : o.dockerfile;
  options.outside_dockerfile = readStdin(std::move(head));
  addNamedContexts(o, options, context.query);
  context.query.emplace_back("dockerfile", options.outside_name);
  openFolderContext(engine, std::move(options), context);
  return context;
}

}  // namespace

std::unique_ptr<Source> openFolder(const std::string& folder) {
  ContextOptions options;
  options.folder = fs::canonical(folder).string();
  return wholeContext(std::move(options));
}

BuildContext openBuildContext(const EngineClient& engine, const BuildOptions& o) {
  if (o.context == "-") return fromStdin(engine, o);
  if (fs::is_directory(o.context)) return fromFolder(engine, o);
  if (!isAddress(o.context)) {
    throw Exit{
        1, fmt::format("build: no folder {} (the last argument is the build context)", o.context)};
  }
  BuildContext context;
  ContextOptions options;
  addNamedContexts(o, options, context.query);
  if (!options.others.empty() || o.dockerfile == "-")
    throw Exit{125, "a context from an address takes no folders or files from here"};
  context.query.emplace_back("remote", o.context);
  context.query.emplace_back("dockerfile", o.dockerfile);
  return context;
}

}  // namespace hull::cli
