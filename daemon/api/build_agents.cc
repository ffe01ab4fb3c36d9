#include "daemon/api/build_agents.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>

#include "base/error.h"
#include "base/fd.h"
#include "base/ssh_agent.h"
#include "daemon/vm/guest_wire.h"

namespace hull::engine::api {

namespace {

constexpr size_t kReadBytes = 16 * 1024;
constexpr std::chrono::milliseconds kAbandonPoll{200};

[[noreturn]] void gone() {
  throw Error(ErrorKind::kUnavailable, "ask the client's ssh agent: the client went away");
}

}  // namespace

class BuildAgents::Agent final : public build::SshAgent {
 public:
  explicit Agent(const RawConnection& connection) : fd_(connection.fd) {
    answers_.feed(connection.already_read);
  }

  std::string answer(const std::string& request, const std::function<bool()>& abandoned) override {
    const Turn turn(*this, abandoned);
    // The client answers in order; what an abandoned step asked for comes first.
    for (; owed_ > 0; --owed_) receive(abandoned);
    sendBlocking(fd_, asBytes(ssh_agent::framed(request)));
    ++owed_;
    std::string answer = receive(abandoned);
    --owed_;
    return answer;
  }

  // Returns when nobody uses the descriptor, and nobody will.
  void close() {
    shutdown(fd_, SHUT_RDWR);  // ends an answer() under way
    std::unique_lock lock(mutex_);
    closed_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !busy_; });
  }

 private:
  // One request at a time.
  class Turn {
   public:
    Turn(Agent& agent, const std::function<bool()>& abandoned) : agent_(agent) {
      std::unique_lock lock(agent_.mutex_);
      while (!agent_.changed_.wait_for(lock, kAbandonPoll,
                                       [&] { return !agent_.busy_ || agent_.closed_; })) {
        checkAbandoned(abandoned);
      }
      if (agent_.closed_) gone();
      agent_.busy_ = true;
    }
    ~Turn() {
      const std::lock_guard lock(agent_.mutex_);
      agent_.busy_ = false;
      agent_.changed_.notify_all();
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Agent& agent_;
  };

  static void checkAbandoned(const std::function<bool()>& abandoned) {
    if (abandoned())
      throw Error(ErrorKind::kCancelled, "ask the client's ssh agent: nobody waits any more");
  }

  std::string receive(const std::function<bool()>& abandoned) {
    for (;;) {
      if (auto answer = answers_.next()) return *answer;
      if (answers_.broken()) gone();
      pollfd readable{fd_, POLLIN, 0};
      const int ready = poll(&readable, 1, static_cast<int>(kAbandonPoll.count()));
      checkAbandoned(abandoned);
      if (ready <= 0) continue;
      std::array<char, kReadBytes> buffer;
      const size_t got = readSome(fd_, std::as_writable_bytes(std::span(buffer)));
      if (got == 0) gone();
      answers_.feed({buffer.data(), got});
    }
  }

  const int fd_;               // the connection's
  ssh_agent::Framer answers_;  // and owed_: of who has the turn
  size_t owed_ = 0;            // answers to requests that were abandoned
  std::mutex mutex_;           // below
  std::condition_variable changed_;
  bool busy_ = false;
  bool closed_ = false;
};

void BuildAgents::serve(Exchange& exchange) {
  const Query& query = exchange.request().query;
  const BuildSessionKey key{query.get("session"), query.get("id")};
  checkBuildSessionKey(key, "build agents");
  {
    const std::lock_guard lock(mutex_);
    if (agents_.contains(key))
      throw Error(ErrorKind::kConflict, "build agents: " + key.second + " is there already");
    agents_[key] = nullptr;
  }
  struct Place {
    BuildAgents& all;
    const BuildSessionKey& key;
    std::shared_ptr<Agent> agent;
    ~Place() {
      {
        const std::lock_guard lock(all.mutex_);
        all.agents_.erase(key);
      }
      if (agent) agent->close();
    }
  } place{*this, key, nullptr};
  const RawConnection connection = exchange.hijack("application/vnd.hull.ssh-agent");
  place.agent = std::make_shared<Agent>(connection);
  {
    const std::lock_guard lock(mutex_);
    agents_[key] = place.agent;
  }
  sendBlocking(connection.fd, asBytes(ssh_agent::framed("")));
  pollfd closed{connection.fd, POLLRDHUP, 0};
  while (poll(&closed, 1, -1) < 0 && errno == EINTR) {
  }
}

std::map<std::string, std::shared_ptr<build::SshAgent>> BuildAgents::find(
    const std::string& session, const std::vector<std::string>& ids) {
  if (ids.size() > kMaxBuildAgents) {
    throw Error(ErrorKind::kTooLarge,
                "a build uses at most " + std::to_string(kMaxBuildAgents) + " ssh agents");
  }
  std::map<std::string, std::shared_ptr<build::SshAgent>> found;
  const std::lock_guard lock(mutex_);
  for (const std::string& id : ids) {
    const auto at = agents_.find({session, id});
    if (at == agents_.end() || !at->second) {
      throw Error(ErrorKind::kInvalidArgument,
                  "ssh agent " + id + ": the client keeps no connection for it");
    }
    found[id] = at->second;
  }
  return found;
}

}  // namespace hull::engine::api
