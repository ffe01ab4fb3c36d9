// Git repositories as sources. git(1) runs with a configuration of its own: nothing of this host's
// or user's, no hooks, no filters, no prompts, named protocols only. Nothing is checked out: the
// tree leaves the repository as a tar (git archive), which meets the layer reader's bounds.
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "image/build/copy.h"
#include "image/build/fetch.h"

namespace hull::build {

namespace {

constexpr int kCancelPollMs = 200;
constexpr size_t kMaxGitWords = 64 * 1024;  // of what git says
constexpr size_t kCommitDigits = 40;
constexpr size_t kMaxModulesBytes = 1 << 20;                 // of .gitmodules
constexpr const char* kWholeHistory = "--depth=2147483647";  // git-fetch(1): infinite
constexpr size_t kMaxSubmodules = 256;
constexpr size_t kMaxSubmoduleDepth = 8;

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, message);
}

bool isCommit(std::string_view text) {
  return text.size() == kCommitDigits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// Of a repository's own text, which may be of any size.
class BoundedText final : public Sink {
 public:
  void write(std::span<const std::byte> bytes) override {
    if (text.size() + bytes.size() > kMaxModulesBytes)
      throw Error(ErrorKind::kTooLarge, "git submodules: .gitmodules is larger than 1 MiB");
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  std::string text;
};

std::string lastLine(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

std::vector<std::string> gitEnvironment(const std::string& home, const std::string& protocols) {
  std::vector<std::string> environment = {
      "HOME=" + home,
      "GIT_CONFIG_NOSYSTEM=1",
      "GIT_CONFIG_GLOBAL=/dev/null",
      "GIT_TERMINAL_PROMPT=0",
      "GIT_ASKPASS=/bin/false",
      "GIT_ALLOW_PROTOCOL=" + protocols,
      "GIT_PROTOCOL_FROM_USER=0",
      "GIT_SSH_COMMAND=ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oPermitLocalCommand=no",
      "GIT_NO_REPLACE_OBJECTS=1",
      "LC_ALL=C"};
  for (const char* name : {"PATH", "SSH_AUTH_SOCK", "http_proxy", "https_proxy", "HTTP_PROXY",
                           "HTTPS_PROXY", "no_proxy", "NO_PROXY", "ALL_PROXY", "all_proxy"}) {
    if (const char* value = getenv(name)) environment.push_back(std::string(name) + "=" + value);
  }
  return environment;
}

}  // namespace

struct GitCheckout::State {
  State(const std::string& parent, const GitAddress& wanted, const GitOptions& how)
      : folder(parent, ".tmp-git-"), address(wanted), options(how) {}

  std::vector<std::string> command(const std::vector<std::string>& arguments) const {
    std::vector<std::string> all = {"git",
                                    "-c",
                                    "core.hooksPath=/dev/null",
                                    "-c",
                                    "core.fsmonitor=false",
                                    "-c",
                                    "core.attributesFile=/dev/null",
                                    "-c",
                                    "core.symlinks=true",
                                    "-c",
                                    "gc.auto=0",
                                    "-c",
                                    "transfer.fsckObjects=true",
                                    "-c",
                                    "advice.detachedHead=false",
                                    "-c",
                                    "init.defaultBranch=main",
                                    "-C",
                                    folder.path()};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return all;
  }

  // What git wrote; throws what it complained about.
  std::string run(const std::vector<std::string>& arguments, const std::function<bool()>& cancelled,
                  const std::vector<std::string>& variables = {}) const {
    FdPair out = makePipe();
    SubprocessOptions process;
    process.arguments = command(arguments);
    process.environment = gitEnvironment(folder.path(), options.protocols);
    process.environment->insert(process.environment->end(), variables.begin(), variables.end());
    process.descriptors = {{out.second.get(), 1}, {out.second.get(), 2}};
    process.new_session = true;  // its helpers (git-remote-https, ssh) end with it
    Subprocess child(process);
    out.second.reset();
    std::string said;
    std::array<std::byte, 4096> buffer;
    for (;;) {
      pollfd ready{out.first.get(), POLLIN, 0};
      if (poll(&ready, 1, kCancelPollMs) == 0) {
        if (!cancelled || !cancelled()) continue;
        ::kill(-child.pid(), SIGKILL);
        throw Error(ErrorKind::kCancelled, "build cancelled");
      }
      const size_t got = readSome(out.first.get(), buffer);
      if (got == 0) break;
      if (said.size() < kMaxGitWords)
        said.append(reinterpret_cast<const char*>(buffer.data()), got);
    }
    if (child.wait() == 0) return said;
    while (said.ends_with('\n')) said.pop_back();
    const bool missing = said.find("couldn't find remote ref") != std::string::npos ||
                         said.find("not our ref") != std::string::npos;
    throw Error(missing ? ErrorKind::kNotFound : ErrorKind::kUnavailable,
                "git " + arguments[0] + " " + where + ": " + said);
  }

  // Its standard output; returns its exit status.
  int read(const std::vector<std::string>& arguments, Sink& to) const {
    FdPair out = makePipe();
    SubprocessOptions process;
    process.arguments = arguments;
    process.environment = gitEnvironment(folder.path(), options.protocols);
    process.descriptors = {{out.second.get(), 1}};
    Subprocess child(process);
    out.second.reset();
    FdSource source(out.first.get());
    copy(source, to);
    return child.wait();
  }

  void pipe(const std::vector<std::string>& arguments, Sink& to) const {
    if (read(arguments, to) != 0) {
      throw Error(ErrorKind::kNotFound,
                  "read " + address.repository +
                      (address.folder.empty() ? "" : ": no folder \"" + address.folder + "\"") +
                      " at " + commit);
    }
  }

  void fetch(const std::function<bool()>& cancelled) {
    run({"init", "--quiet"}, cancelled);
    // The repository's own attributes must not leave files out of the archive or change them.
    makeDirectories(folder.path() + "/.git/info");
    writeFileAtomic(folder.path() + "/.git/info/attributes",
                    "* !export-ignore !export-subst !text !eol !filter !ident "
                    "!working-tree-encoding\n");
    commit = fetchCommit(address.repository, address.reference.empty() ? "HEAD" : address.reference,
                         "wanted", cancelled);
    archived = commit;
    addSubmodules(cancelled);
  }

  // Brings a reference or commit of a repository into this one; returns the commit.
  std::string fetchCommit(const std::string& repository, const std::string& wanted,
                          const std::string& name, const std::function<bool()>& cancelled) {
    where = repository + (wanted == "HEAD" ? "" : " " + wanted);
    const std::vector<std::string> base = {"fetch", "--quiet", "--no-tags",
                                           "--no-recurse-submodules", "--no-write-fetch-head"};
    const std::string place = "refs/hull/" + name;
    std::vector<std::string> shallow = base;
    shallow.insert(shallow.end(),
                   {"--depth=1", "--end-of-options", repository, wanted + ":" + place});
    try {
      run(shallow, cancelled);
      return resolve(place + "^{commit}", cancelled);
    } catch (const Error& error) {
      // A short commit is no ref, and some servers give no single commit: look in all there is.
      const bool hexadecimal =
          wanted.find_first_not_of("0123456789abcdef") == std::string::npos && wanted.size() >= 7;
      if (error.kind() == ErrorKind::kCancelled || !hexadecimal) throw;
    }
    std::vector<std::string> full = base;
    // All of it, also when an earlier fetch of the same repository has cut its history off.
    full.insert(full.end(),
                {kWholeHistory, "--end-of-options", repository,
                 "+refs/heads/*:" + place + "-heads/*", "+refs/tags/*:" + place + "-tags/*"});
    run(full, cancelled);
    return resolve(wanted + "^{commit}", cancelled);
  }

  struct Submodule {
    std::string path;        // in the whole tree
    std::string repository;  // checked
    std::string commit;
    size_t depth = 0;
  };

  // Those of a commit that .gitmodules gives an address. Others stay empty folders.
  std::vector<Submodule> submodulesOf(const Submodule& parent) const {
    BoundedText listed;
    const std::string file = parent.commit + ":.gitmodules";
    if (read(command(
                 {"config", "-z", "--blob", file, "--get-regexp", "^submodule\\..*\\.(path|url)$"}),
             listed) != 0)
      return {};
    std::map<std::string, std::pair<std::string, std::string>> named;  // name → path, url
    for (size_t start = 0; start < listed.text.size();) {
      const size_t end = std::min(listed.text.find('\0', start), listed.text.size());
      const std::string item = listed.text.substr(start, end - start);
      const size_t line = std::min(item.find('\n'), item.size());
      const std::string key = item.substr(0, line),
                        value = item.substr(std::min(line + 1, item.size()));
      auto& module = named[key.substr(0, key.rfind('.'))];
      (key.ends_with(".path") ? module.first : module.second) = value;
      start = end + 1;
    }
    if (named.size() > kMaxSubmodules) tooMany(parent.path);
    std::vector<Submodule> found;
    for (const auto& [name, module] : named) {
      const std::string path = cleanPath(module.first);
      const std::string whole = parent.path + (parent.path.empty() ? "" : "/") + path;
      if (path.empty() || module.second.empty() || !isWanted(whole)) continue;
      const std::string link = linkAt(parent.commit, path);
      if (link.empty()) continue;
      found.push_back(
          {whole, submoduleRepository(parent.repository, module.second), link, parent.depth + 1});
    }
    return found;
  }

  // What is neither in the wanted folder nor on the way to it is not fetched.
  bool isWanted(const std::string& path) const {
    const std::string wanted = address.folder + "/", at = path + "/";
    return address.folder.empty() || at.starts_with(wanted) || wanted.starts_with(at);
  }

  // The commit that a tree has at `path`; empty: there is something else.
  std::string linkAt(const std::string& tree, const std::string& path) const {
    BoundedText listed;
    constexpr std::string_view kLink = "160000 commit ";
    if (read(command({"--literal-pathspecs", "ls-tree", "-z", "--full-tree", tree, "--", path}),
             listed) != 0 ||
        !listed.text.starts_with(kLink))
      return {};
    const std::string link = listed.text.substr(kLink.size(), kCommitDigits);
    return isCommit(link) ? link : "";
  }

  [[noreturn]] void tooMany(const std::string& path) const {
    fail("git submodules of " + address.repository + ": more than " +
         std::to_string(kMaxSubmodules) + ", or nested deeper than " +
         std::to_string(kMaxSubmoduleDepth) + ", at \"" + path + "\"");
  }

  // Their trees take the places of the links, in a commit of the same time that only the archive is
  // made of.
  void addSubmodules(const std::function<bool()>& cancelled) {
    std::vector<Submodule> all = submodulesOf({"", address.repository, commit, 0});
    if (all.empty()) return;
    run({"read-tree", commit}, cancelled);
    for (size_t i = 0; i < all.size(); ++i) {
      const Submodule module = all[i];
      if (module.depth > kMaxSubmoduleDepth || all.size() > kMaxSubmodules) tooMany(module.path);
      fetchCommit(module.repository, module.commit, "module-" + std::to_string(i), cancelled);
      run({"update-index", "--force-remove", "--", module.path}, cancelled);
      run({"read-tree", "--prefix=" + module.path + "/", module.commit}, cancelled);
      const std::vector<Submodule> inner = submodulesOf(module);
      all.insert(all.end(), inner.begin(), inner.end());
    }
    const std::string tree = lastLine(run({"write-tree"}, cancelled));
    const std::string time =
        lastLine(run({"log", "-1", "--format=%ct", "--end-of-options", commit}, cancelled));
    archived = lastLine(
        run({"commit-tree", "-m", "with submodules", tree}, cancelled,
            {"GIT_AUTHOR_NAME=hull", "GIT_AUTHOR_EMAIL=hull@localhost", "GIT_COMMITTER_NAME=hull",
             "GIT_COMMITTER_EMAIL=hull@localhost", "GIT_AUTHOR_DATE=@" + time + " +0000",
             "GIT_COMMITTER_DATE=@" + time + " +0000"}));
    if (!isCommit(archived)) fail("git commit-tree: said \"" + archived + "\"");
  }

  std::string resolve(const std::string& name, const std::function<bool()>& cancelled) const {
    const std::string found =
        lastLine(run({"rev-parse", "--verify", "--quiet", "--end-of-options", name}, cancelled));
    if (!isCommit(found)) fail("git: \"" + name + "\" names no commit");
    return found;
  }

  const TemporaryDirectory folder;
  const GitAddress address;
  const GitOptions options;
  std::string commit;
  std::string archived;  // the commit, with its submodules
  std::string where;     // what is fetched, for messages
};

GitCheckout::GitCheckout(const GitAddress& address, const GitOptions& options,
                         const std::string& folder, const std::function<bool()>& cancelled)
    : state_(std::make_unique<State>(folder, address, options)) {
  state_->fetch(cancelled);
}

GitCheckout::~GitCheckout() = default;

const std::string& GitCheckout::commit() const {
  return state_->commit;
}

void GitCheckout::writeTar(Sink& out) const {
  const std::string& folder = state_->address.folder;
  state_->pipe(state_->command({"archive", "--format=tar",
                                state_->archived + (folder.empty() ? "" : ":" + folder)}),
               out);
}

void GitCheckout::writeGitDirectory(Sink& out) const {
  state_->run({"update-ref", "--no-deref", "HEAD", state_->commit}, {});
  state_->run({"read-tree", "HEAD"}, {});
  state_->run({"remote", "add", "origin", "--", state_->address.repository}, {});
  state_->pipe({"tar", "-C", state_->folder.path(), "--sort=name", "--owner=0", "--group=0",
                "--numeric-owner", "--mtime=@0", "--mode=u+rwX,go=rX", "-cf", "-", ".git"},
               out);
}

}  // namespace hull::build
