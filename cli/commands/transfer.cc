// pull, push, load, save, import, login, logout: images on their way in and out.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/prompt.h"
#include "cli/client/credentials.h"
#include "cli/client/output_file.h"
#include "cli/commands/context.h"
#include "cli/commands/pull.h"
#include "cli/terminal/format.h"
#include "cli/terminal/progress.h"
#include "image/types/reference.h"

namespace hull::cli {

using nlohmann::json;

std::string withTag(const std::string& image) {
  return image::Reference::parse(image).familiar();
}

namespace {

void streamPull(Context& context, const image::Reference& name, const std::string& tag,
                const std::string& platform, PullOutput output) {
  ProgressDisplay display(output == PullOutput::kStdout ? stdout : stderr);
  JsonLines lines([&](const json& event) {
    if (output != PullOutput::kSilent) display.show(event);
  });
  context.engine().stream(
      "POST",
      withQuery("/images/create",
                {{"fromImage", name.name()}, {"tag", tag}, {"platform", platform}}),
      nullptr, {{"X-Registry-Auth", authHeader(name.registry, loadLogin(name.registry))}},
      [&](std::string_view data) { lines.feed(data); });
  lines.finish();
}

bool namesTag(const std::string& image) {
  return image.find('@') != std::string::npos ||
         image.find(':', image.rfind('/') + 1) != std::string::npos;
}

}  // namespace

void pullImage(Context& context, const std::string& image, const std::string& platform,
               PullOutput output) {
  const image::Reference name = image::Reference::parse(image);
  streamPull(context, name, name.digest.empty() ? name.tag : name.digest.text(), platform, output);
}

namespace {

void addPull(CLI::App& app, Context& context) {
  struct Options {
    bool quiet = false, all = false;
    std::string platform, name;
  };
  auto o = std::make_shared<Options>();
  auto* command = app.add_subcommand("pull", "Fetch an image from a registry");
  command->add_flag("-q,--quiet", o->quiet, "Only the name at the end");
  command->add_flag("-a,--all-tags", o->all, "Every tag of the repository");
  command->add_option("--platform", o->platform, "Platform, like linux/amd64");
  command->add_option("IMAGE", o->name)->required();
  command->callback([&context, o] {
    const image::Reference name = image::Reference::parse(o->name);
    if (o->all) {
      if (namesTag(o->name)) throw Exit{1, "tag can't be used with --all-tags/-a"};
      streamPull(context, name, "", o->platform,
                 o->quiet ? PullOutput::kSilent : PullOutput::kStdout);
      std::cout << name.name() << "\n";
      return;
    }
    if (!o->quiet && !namesTag(o->name)) {
      std::cout << "Using default tag: latest" << std::endl;
    }
    pullImage(context, o->name, o->platform, o->quiet ? PullOutput::kSilent : PullOutput::kStdout);
    std::cout << name.text() << "\n";
  });
}

void addPush(CLI::App& app, Context& context) {
  struct Options {
    bool quiet = false, all = false;
    std::string name;
  };
  auto o = std::make_shared<Options>();
  auto* command = app.add_subcommand("push", "Send an image to its registry");
  command->add_flag("-q,--quiet", o->quiet, "Only the name at the end");
  command->add_flag("-a,--all-tags", o->all, "Every tag of the name that there is here");
  command->add_option("IMAGE", o->name)->required();
  command->callback([&context, o] {
    const image::Reference name = image::Reference::parse(o->name);
    if (o->all && namesTag(o->name)) throw Exit{1, "tag can't be used with --all-tags/-a"};
    if (!name.digest.empty())
      throw Exit{1, fmt::format("push {}: cannot push a digest reference (give the image a tag: "
                                "hull tag, and push that)",
                                o->name)};
    ProgressDisplay display(stdout);
    JsonLines lines([&](const json& event) {
      if (!o->quiet) display.show(event);
    });
    context.engine().stream(
        "POST", withQuery("/images/" + name.name() + "/push", {{"tag", o->all ? "" : name.tag}}),
        nullptr, {{"X-Registry-Auth", authHeader(name.registry, loadLogin(name.registry))}},
        [&](std::string_view data) { lines.feed(data); });
    lines.finish();
    if (o->quiet) std::cout << (o->all ? name.name() : name.text()) << "\n";
  });
}

// What to read or write: a file, or the standard stream, which must not be a terminal.
Fd openInput(const std::string& path) {
  if (!path.empty() && path != "-") return openFile(path, O_RDONLY);
  if (isatty(STDIN_FILENO))
    throw Exit{1, "requested load from stdin, but stdin is empty (name a file with -i)"};
  return Fd(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3));
}

void addLoad(CLI::App& app, Context& context) {
  auto path = std::make_shared<std::string>();
  auto quiet = std::make_shared<bool>(false);
  auto* command = app.add_subcommand("load", "Load images from an archive");
  command->add_option("-i,--input", *path, "Read from a file instead of standard input");
  command->add_flag("-q,--quiet", *quiet, "No progress");
  command->callback([&context, path, quiet] {
    const Fd file = openInput(*path);
    FdSource source(file.get());
    JsonLines lines([&](const json& event) {
      if (event.contains("stream")) std::cout << event["stream"].get<std::string>() << std::flush;
    });
    context.engine().stream("POST", withQuery("/images/load", {{"quiet", *quiet ? "1" : ""}}),
                            &source, {{"Content-Type", "application/x-tar"}},
                            [&](std::string_view data) { lines.feed(data); });
    lines.finish();
  });
}

void addSave(CLI::App& app, Context& context) {
  auto path = std::make_shared<std::string>();
  auto names = std::make_shared<std::vector<std::string>>();
  auto* command = app.add_subcommand("save", "Write images to an archive");
  command->add_option("-o,--output", *path, "Write to a file instead of standard output");
  command->add_option("IMAGE", *names)->required();
  command->callback([&context, path, names] {
    if (path->empty() && isatty(STDOUT_FILENO)) {
      throw Exit{1, "cowardly refusing to save to a terminal. Use the -o flag or redirect"};
    }
    std::vector<std::pair<std::string, std::string>> query;
    for (const auto& name : *names) query.emplace_back("names", name);
    OutputFile file(*path);
    context.engine().stream("GET", withQuery("/images/get", query), nullptr, {},
                            [&](std::string_view data) { writeFull(file.fd(), data); });
    file.finish();
  });
}

void addImport(CLI::App& app, Context& context) {
  struct Options {
    std::vector<std::string> changes;
    std::string message, platform, file, name;
  };
  auto o = std::make_shared<Options>();
  auto* command = app.add_subcommand("import", "Make an image of a root file system tar");
  addList(command, "-c,--change", o->changes,
          "Apply a Dockerfile instruction, like 'CMD [\"sh\"]'");
  command->add_option("-m,--message", o->message, "Commit message");
  command->add_option("--platform", o->platform, "Platform, like linux/amd64");
  command->add_option("FILE", o->file, "A tar, or - for standard input")->required();
  command->add_option("NAME", o->name, "Name of the image");
  command->callback([&context, o] {
    const Fd file = openInput(o->file);
    FdSource source(file.get());
    std::vector<std::pair<std::string, std::string>> query = {
        {"fromSrc", "-"}, {"message", o->message}, {"platform", o->platform}};
    if (!o->name.empty()) {
      const image::Reference name = image::Reference::parse(o->name);
      query.emplace_back("repo", name.name());
      query.emplace_back("tag", name.tag);
    }
    for (const auto& change : o->changes) query.emplace_back("changes", change);
    JsonLines lines(
        [&](const json& event) { std::cout << event.value("status", "") << std::endl; });
    context.engine().stream("POST", withQuery("/images/create", query), &source,
                            {{"Content-Type", "application/x-tar"}},
                            [&](std::string_view data) { lines.feed(data); });
    lines.finish();
  });
}

void addLogin(CLI::App& app, Context& context) {
  struct Options {
    std::string username, password, registry;
    bool password_stdin = false;
  };
  auto o = std::make_shared<Options>();
  auto* command = app.add_subcommand("login", "Log in to a registry");
  command->add_option("-u,--username", o->username, "User name");
  command->add_option("-p,--password", o->password,
                      "Password (visible to others: prefer --password-stdin)");
  command->add_flag("--password-stdin", o->password_stdin, "Read the password from standard input");
  command->add_option("REGISTRY", o->registry, "Registry; docker.io when left out");
  command->callback([&context, o] {
    Login login{o->username, o->password, ""};
    if (o->password_stdin) {
      if (login.username.empty()) throw Exit{1, "must provide --username with --password-stdin"};
      FdSource input(STDIN_FILENO);
      login.password = readAll(input, 1 << 20, "password");
      while (login.password.ends_with('\n') || login.password.ends_with('\r'))
        login.password.pop_back();
    }
    if (login.username.empty()) login.username = promptLine("Username: ", Echo::kShown);
    if (login.username.empty()) throw Exit{1, "login: no user name was given (-u NAME)"};
    if (login.password.empty()) login.password = promptLine("Password: ", Echo::kHidden);
    if (login.password.empty())
      throw Exit{1, "login: no password was given (--password-stdin reads it)"};
    const std::string registry = registryOf(o->registry);
    const json answer =
        context.engine().post("/auth", {{"username", login.username},
                                        {"password", login.password},
                                        {"serveraddress", credentialKey(registry)}});
    login.identity_token = answer.value("IdentityToken", "");
    saveLogin(registry, login);
    std::cout << answer.value("Status", "Login Succeeded") << "\n";
  });
}

void addLogout(CLI::App& app) {
  auto registry = std::make_shared<std::string>();
  auto* command = app.add_subcommand("logout", "Forget the credentials of a registry");
  command->add_option("REGISTRY", *registry, "Registry; docker.io when left out");
  command->callback([registry] {
    const std::string name = registryOf(*registry);
    std::cout << (eraseLogin(name) ? "Removing login credentials for " : "Not logged in to ")
              << credentialKey(name) << "\n";
  });
}

}  // namespace

void addTransferCommands(CLI::App& app, Context& context) {
  addPull(app, context);
  addPush(app, context);
  addLoad(app, context);
  addSave(app, context);
  addImport(app, context);
  if (app.get_parent() != nullptr) return;  // `hull image` has no login
  addLogin(app, context);
  addLogout(app);
}

}  // namespace hull::cli
