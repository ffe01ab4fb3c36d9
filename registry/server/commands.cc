#include "registry/server/commands.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/prompt.h"
#include "registry/http/url.h"
#include "registry/server/acceptor.h"
#include "registry/server/collector.h"
#include "registry/server/passwords.h"
#include "registry/server/server.h"
#include "registry/server/verify.h"

namespace hull::registry {

namespace {

constexpr size_t kMaxPasswordFileBytes = size_t{4} << 20;
constexpr size_t kMaxControlAnswerBytes = size_t{16} << 20;

// What a command does, with its errors told in one line.
template <typename Work>
std::function<void()> guarded(int& status, Work work) {
  return [&status, work] {
    try {
      status = work();
    } catch (const std::exception& error) {
      std::cerr << "hull-registry: " << error.what() << "\n";
      status = exitStatus(error);
    }
  };
}

struct GcOptions {
  std::string root;
  std::string config;
  std::string grace;
  bool dry_run = false;
  bool untagged = false;
};

// Lets the server that has the folder do it; prints what it says.
int askServer(const GcOptions& options) {
  const Fd socket = connectToPath(options.root, kControlSocket);
  std::string target = "/gc";
  if (options.dry_run) addQuery(target, "dry_run", "1");
  if (options.untagged) addQuery(target, "untagged", "1");
  if (!options.grace.empty()) addQuery(target, "grace", options.grace);
  writeFull(socket.get(), "POST " + target + " HTTP/1.1\r\nHost: local\r\nConnection: close\r\n" +
                              "Content-Length: 0\r\n\r\n");
  FdSource source(socket.get());
  const std::string answer = readAll(source, kMaxControlAnswerBytes, "answer");
  const size_t body = answer.find("\r\n\r\n");
  if (body == std::string::npos) {
    throw Error(ErrorKind::kUnavailable,
                "collect garbage: the running server gave no answer (its log says why)");
  }
  if (!answer.starts_with("HTTP/1.1 200")) {
    throw Error(ErrorKind::kUnavailable,
                "collect garbage: the running server answered " +
                    answer.substr(0, answer.find("\r\n")) + ", " +
                    answer.substr(body + 4, answer.find('\n', body + 4) - body - 4));
  }
  std::cout << answer.substr(body + 4);
  return 0;
}

int collect(const GcOptions& options) {
  std::optional<std::chrono::seconds> grace;  // read before a server is asked
  if (!options.grace.empty()) {
    grace = inContext("collect garbage", [&] { return parseDuration(options.grace, "--grace"); });
  }
  ServerOptions server;
  if (!options.config.empty()) {
    inContext("read " + options.config, [&] {
      applyConfiguration(readFile(options.config, kMaxConfigurationBytes), server);
    });
  }
  GcOptions with = options;
  if (with.root.empty()) with.root = server.root;
  if (with.root.empty()) {
    throw Error(ErrorKind::kInvalidArgument, "collect garbage: name the folder with --root");
  }
  if (!fileExists(with.root + "/repositories")) {
    throw Error(ErrorKind::kNotFound,
                "collect garbage of " + with.root + ": there is no registry in it");
  }
  std::unique_ptr<RepositoryStore> store;
  try {
    store = std::make_unique<RepositoryStore>(with.root);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kConflict) throw;
    return askServer(with);
  }
  CollectionOptions how = server.policy.collection;
  how.untagged = how.untagged || with.untagged;
  how.grace = grace.value_or(how.grace);
  const auto report = [](const std::string& line) { std::cout << line << "\n"; };
  const CollectionReport done =
      collectGarbage(*store, {how, with.dry_run, report, nullptr, server.policy.immutable_tags});
  std::cout << done.text(with.dry_run) << "\n";
  return 0;
}

void addGc(CLI::App& app, int& status) {
  auto options = std::make_shared<GcOptions>();
  auto* command = app.add_subcommand(
      "gc", "Remove what nothing needs; a server that runs on the folder does it itself");
  command->add_option("--root", options->root, "Folder of the registry");
  command->add_option("--config", options->config, "The server's configuration: retention rules");
  command->add_option("--grace", options->grace, "Leave alone what is younger (default 1h)");
  command->add_flag("--dry-run", options->dry_run, "Only say what would be removed");
  command->add_flag("--untagged", options->untagged,
                    "Remove manifests that no tag, index or subject leads to");
  command->callback(guarded(status, [options] { return collect(*options); }));
}

void addVerify(CLI::App& app, int& status) {
  auto root = std::make_shared<std::string>();
  auto quick = std::make_shared<bool>(false);
  auto* command = app.add_subcommand("verify",
                                     "Check every content against its digest, and what "
                                     "tags and manifests need; may run beside a server");
  command->add_option("--root", *root, "Folder of the registry")->required();
  command->add_flag("--quick", *quick, "Do not read the contents");
  command->callback(guarded(status, [root, quick] {
    const RepositoryStore store(*root, RepositoryStore::Use::kInspect);
    const VerifyOptions how{*quick, fileExists(*root + "/.cache")};
    const VerifyReport report =
        verifyStore(store, how, [](const std::string& problem) { std::cout << problem << "\n"; });
    std::cout << report.problems << " problems in " << report.contents << " contents ("
              << report.bytes << " bytes), " << report.manifests << " manifests, " << report.tags
              << " tags\n";
    return report.problems == 0 ? 0 : 1;
  }));
}

std::string readPassword(bool from_stdin) {
  if (!from_stdin && isatty(STDIN_FILENO) == 0) {
    throw Error(ErrorKind::kInvalidArgument,
                "add user: there is no terminal to ask for a password (use --password-stdin)");
  }
  std::string line =
      promptLine(from_stdin ? "" : "Password: ", from_stdin ? Echo::kShown : Echo::kHidden);
  if (line.ends_with('\r')) line.pop_back();
  return line;
}

std::string readUsers(const std::string& file) {
  return fileExists(file) ? readFile(file, kMaxPasswordFileBytes) : std::string();
}

// A new file is for its owner only; one that is there keeps its mode.
void writeUsers(const std::string& file, const std::string& text) {
  struct stat info {};
  const mode_t mode = ::stat(file.c_str(), &info) == 0 ? info.st_mode & 07777 : 0600;
  writeFileAtomic(file, text, mode);
}

void addUser(CLI::App& app, int& status) {
  struct Options {
    std::string file, name;
    bool from_stdin = false;
  };
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("user", "Users of an htpasswd file");
  command->require_subcommand(1);
  const auto verb = [&](const char* name, const char* what) {
    auto* sub = command->add_subcommand(name, what);
    sub->add_option("--htpasswd", options->file, "The file")->required();
    return sub;
  };
  auto* add = verb("add", "Add a user, or change the password of one");
  add->add_option("NAME", options->name)->required();
  add->add_flag("--password-stdin", options->from_stdin, "Read the password from standard input");
  add->callback(guarded(status, [options] {
    const std::string before = readUsers(options->file);
    const Passwords checked(before);  // a broken file is said, not made longer
    writeUsers(options->file, withUser(before, options->name, readPassword(options->from_stdin)));
    return 0;
  }));
  auto* remove = verb("remove", "Remove a user");
  remove->add_option("NAME", options->name)->required();
  remove->callback(guarded(status, [options] {
    const auto rest = withoutUser(readUsers(options->file), options->name);
    if (!rest) {
      throw Error(ErrorKind::kNotFound,
                  "remove user " + options->name + ": not in " + options->file);
    }
    writeUsers(options->file, *rest);
    return 0;
  }));
  verb("list", "List the users")->callback(guarded(status, [options] {
    const Passwords passwords(readUsers(options->file));
    for (const std::string& name : passwords.users()) std::cout << name << "\n";
    return 0;
  }));
}

}  // namespace

int exitStatus(const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  return known && known->kind() == ErrorKind::kInvalidArgument ? 2 : 1;
}

void addMaintenanceCommands(CLI::App& app, int& status) {
  addGc(app, status);
  addVerify(app, status);
  addUser(app, status);
}

}  // namespace hull::registry
