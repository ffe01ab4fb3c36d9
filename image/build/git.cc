// Git repositories as sources. git(1) runs with a configuration of its own: nothing of this host's
// or user's, no hooks, no filters, no prompts, named protocols only. Nothing is checked out: the
// tree leaves the repository as a tar (git archive), which meets the layer reader's bounds.
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <cstdlib>

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

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, message);
}

bool isCommit(std::string_view text) {
  return text.size() == kCommitDigits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
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
  std::string run(const std::vector<std::string>& arguments,
                  const std::function<bool()>& cancelled) const {
    FdPair out = makePipe();
    SubprocessOptions process;
    process.arguments = command(arguments);
    process.environment = gitEnvironment(folder.path(), options.protocols);
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
                "git " + arguments[0] + " " + address.repository +
                    (address.reference.empty() ? "" : " " + address.reference) + ": " + said);
  }

  void pipe(const std::vector<std::string>& arguments, Sink& to) const {
    FdPair out = makePipe();
    SubprocessOptions process;
    process.arguments = arguments;
    process.environment = gitEnvironment(folder.path(), options.protocols);
    process.descriptors = {{out.second.get(), 1}};
    Subprocess child(process);
    out.second.reset();
    FdSource source(out.first.get());
    copy(source, to);
    if (child.wait() != 0) {
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
    const std::string wanted = address.reference.empty() ? "HEAD" : address.reference;
    const std::vector<std::string> base = {"fetch", "--quiet", "--no-tags",
                                           "--no-recurse-submodules", "--no-write-fetch-head"};
    std::vector<std::string> shallow = base;
    shallow.insert(shallow.end(), {"--depth=1", "--end-of-options", address.repository,
                                   wanted + ":refs/hull/wanted"});
    try {
      run(shallow, cancelled);
      commit = resolve("refs/hull/wanted^{commit}", cancelled);
      return;
    } catch (const Error& error) {
      // A short commit is no ref, and some servers give no single commit: look in all there is.
      const bool hexadecimal =
          wanted.find_first_not_of("0123456789abcdef") == std::string::npos && wanted.size() >= 7;
      if (error.kind() == ErrorKind::kCancelled || !hexadecimal) throw;
    }
    std::vector<std::string> full = base;
    full.insert(full.end(), {"--end-of-options", address.repository,
                             "+refs/heads/*:refs/hull/heads/*", "+refs/tags/*:refs/hull/tags/*"});
    run(full, cancelled);
    commit = resolve(wanted + "^{commit}", cancelled);
  }

  std::string resolve(const std::string& name, const std::function<bool()>& cancelled) const {
    std::string found =
        run({"rev-parse", "--verify", "--quiet", "--end-of-options", name}, cancelled);
    while (found.ends_with('\n')) found.pop_back();
    found = found.substr(found.rfind('\n') + 1);
    if (!isCommit(found)) fail("git: \"" + name + "\" names no commit");
    return found;
  }

  const TemporaryDirectory folder;
  const GitAddress address;
  const GitOptions options;
  std::string commit;
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
                                state_->commit + (folder.empty() ? "" : ":" + folder)}),
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
