#include "cli/commands/build_ssh.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <chrono>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "base/ssh_agent.h"
#include "base/subprocess.h"

namespace hull::cli {

namespace {

constexpr size_t kReadBytes = 16 * 1024;
constexpr size_t kSessionBytes = 16;
constexpr size_t kMaxKeyFiles = 32;
constexpr int kStartTries = 100;
constexpr std::chrono::milliseconds kStartPause{50};

std::string lastLine(std::string text) {
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  return text.substr(text.rfind('\n') + 1);
}

CommandResult runSsh(const std::vector<std::string>& command) {
  try {
    return runCommand(command);
  } catch (const Error& error) {
    throw Exit{1, fmt::format("--ssh: a key file takes the programs of OpenSSH's client: {}",
                              error.what())};
  }
}

// An ssh-agent that ends when this program does, however that ends.
class KeyAgent {
 public:
  explicit KeyAgent(const std::vector<std::string>& files) {
    for (const std::string& file : files) checkKey(file);
    start();
    for (const std::string& file : files) {
      const auto added = runSsh({"env", "SSH_AUTH_SOCK=" + socket(), "ssh-add", "-q", file});
      if (added.status != 0)
        throw Exit{1, fmt::format("--ssh: key {}: {}", file, lastLine(added.errors))};
    }
  }
  std::string socket() const { return folder_.path() + "/agent"; }

 private:
  // Without asking anybody for a passphrase.
  static void checkKey(const std::string& file) {
    const auto read = runSsh({"ssh-keygen", "-y", "-P", "", "-f", file});
    if (read.status == 0) return;
    throw Exit{1,
               fmt::format("--ssh: key {} cannot be used: {} (a key with a passphrase is lent by "
                           "the agent that holds it: ssh-add {}, then --ssh default)",
                           file, lastLine(read.errors), file)};
  }

  void start() {
    FdPair pipe = makePipe();
    SubprocessOptions options;
    // The shell waits for the end of its input, which is this program's.
    options.arguments = {"ssh-agent", "-a", socket(),
                         "sh",        "-c", "cat >/dev/null; kill \"$SSH_AGENT_PID\""};
    options.descriptors = {{pipe.first.get(), 0}};
    options.new_session = true;
    try {
      process_ = std::make_unique<Subprocess>(options);
    } catch (const Error& error) {
      throw Exit{1, fmt::format("--ssh: {}", error.what())};
    }
    process_->detach();  // it ends by itself
    alive_ = std::move(pipe.second);
    for (int i = 0; i < kStartTries; ++i) {
      try {
        connectUnix(socket());
        return;
      } catch (const Error&) {
        std::this_thread::sleep_for(kStartPause);
      }
    }
    throw Exit{1, "--ssh: ssh-agent did not start"};
  }

  TemporaryDirectory folder_{"hull-ssh"};
  std::unique_ptr<Subprocess> process_;
  Fd alive_;
};

bool isSocket(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode);
}

// The next message, or nothing at the end.
std::optional<std::string> receive(int fd, ssh_agent::Framer& framer) {
  for (;;) {
    if (auto message = framer.next()) return message;
    if (framer.broken()) return std::nullopt;
    std::array<char, kReadBytes> buffer;
    const size_t got = readSome(fd, std::as_writable_bytes(std::span(buffer)));
    if (got == 0) return std::nullopt;
    framer.feed({buffer.data(), got});
  }
}

void sendMessage(int fd, const std::string& message) {
  const std::string bytes = ssh_agent::framed(message);
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t put = send(fd, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (put < 0 && errno != EINTR) throw sysError("write to an agent");
    if (put > 0) at += static_cast<size_t>(put);
  }
}

std::vector<std::string> splitPaths(const std::string& text) {
  std::vector<std::string> paths;
  for (size_t start = 0; start <= text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    if (comma > start) paths.push_back(text.substr(start, comma - start));
    start = comma + 1;
  }
  return paths;
}

}  // namespace

class SshForwarding::Lent {
 public:
  explicit Lent(const std::string& text) {
    const size_t equals = text.find('=');
    id_ = text.substr(0, equals);
    if (id_.empty())
      throw Exit{125, fmt::format("--ssh {}: must be ID, ID=SOCKET or ID=KEYFILE", text)};
    const auto paths = equals == std::string::npos ? std::vector<std::string>{}
                                                   : splitPaths(text.substr(equals + 1));
    if (paths.empty()) {
      const char* own = getenv("SSH_AUTH_SOCK");
      if (own == nullptr || *own == '\0') {
        throw Exit{1, fmt::format("--ssh {}: SSH_AUTH_SOCK names no agent here (start one, or give "
                                  "--ssh {}=KEYFILE)",
                                  text, id_)};
      }
      agent_ = own;
    } else if (paths.size() == 1 && isSocket(paths[0])) {
      agent_ = paths[0];
    } else {
      if (paths.size() > kMaxKeyFiles)
        throw Exit{125, fmt::format("--ssh {}: more than {} key files", id_, kMaxKeyFiles)};
      keys_ = std::make_unique<KeyAgent>(paths);
      agent_ = keys_->socket();
    }
  }
  ~Lent() {
    if (engine_) shutdown(engine_.get(), SHUT_RDWR);
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
      if (asked_ >= 0) shutdown(asked_, SHUT_RDWR);  // it may be waiting for its user
    }
    if (thread_.joinable()) thread_.join();
  }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;

  const std::string& id() const { return id_; }

  void connect(const EngineClient& client, const std::string& session) {
    Hijacked connection;
    try {
      connection =
          client.hijack(withQuery("/build/agents", {{"session", session}, {"id", id_}}), nullptr);
    } catch (const ApiError& error) {
      if (error.status() != 404) throw;
      throw Exit{1, "--ssh: this engine takes no ssh agents (it is an older one)"};
    }
    engine_ = std::move(connection.socket);
    waitUntilKnown(std::move(connection.already_read));
    thread_ = std::thread([this] {
      try {
        ssh_agent::Framer requests;
        while (const auto request = receive(engine_.get(), requests))
          sendMessage(engine_.get(), ask(*request));
      } catch (const Error&) {
        // The engine is gone: the build tells of it.
      }
    });
  }

 private:
  // The engine's empty message: the build finds the agent from now on.
  void waitUntilKnown(std::string head) {
    const size_t had = head.size();
    head.resize(ssh_agent::kSizeBytes);
    const auto rest = std::as_writable_bytes(std::span(head)).subspan(had);
    if (had > ssh_agent::kSizeBytes || readFull(engine_.get(), rest) != rest.size() ||
        head != ssh_agent::framed("")) {
      throw Error(ErrorKind::kUnavailable, "--ssh: the engine does not take the agent " + id_);
    }
  }

  // A connection of its own for each request: whatever a step does, the next finds a fresh agent.
  std::string ask(const std::string& request) {
    if (!ssh_agent::mayPass(request)) return ssh_agent::refusal();
    try {
      const Fd socket = connectUnix(agent_);
      const Asked asked(*this, socket.get());
      sendMessage(socket.get(), request);
      ssh_agent::Framer answers;
      return receive(socket.get(), answers).value_or(ssh_agent::refusal());
    } catch (const Error&) {
      return ssh_agent::refusal();  // the agent is gone
    }
  }

  // The agent's connection, for the destructor to end.
  class Asked {
   public:
    Asked(Lent& lent, int fd) : lent_(lent) {
      const std::lock_guard lock(lent_.mutex_);
      if (lent_.over_) shutdown(fd, SHUT_RDWR);
      lent_.asked_ = fd;
    }
    ~Asked() {
      const std::lock_guard lock(lent_.mutex_);
      lent_.asked_ = -1;
    }
    Asked(const Asked&) = delete;
    Asked& operator=(const Asked&) = delete;

   private:
    Lent& lent_;
  };

  std::string id_;
  std::string agent_;  // its socket
  std::mutex mutex_;   // over_, asked_
  bool over_ = false;
  int asked_ = -1;
  std::unique_ptr<KeyAgent> keys_;
  Fd engine_;
  std::thread thread_;
};

SshForwarding::SshForwarding(const EngineClient& engine, const std::vector<std::string>& wanted)
    : session_(randomHex(kSessionBytes)) {
  for (const std::string& text : wanted) {
    auto lent = std::make_unique<Lent>(text);
    for (const auto& other : lent_) {
      if (other->id() == lent->id())
        throw Exit{125, fmt::format("--ssh {}: given twice", lent->id())};
    }
    lent_.push_back(std::move(lent));
  }
  for (const auto& lent : lent_) lent->connect(engine, session_);
}

SshForwarding::~SshForwarding() = default;

Query SshForwarding::query() const {
  Query query;
  if (lent_.empty()) return query;
  query.emplace_back("sshsession", session_);
  for (const auto& lent : lent_) query.emplace_back("ssh", lent->id());
  return query;
}

}  // namespace hull::cli
