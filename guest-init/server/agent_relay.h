// An ssh agent's socket in the guest, for RUN --mount=type=ssh: whoever connects to it talks to the
// host over one stream. A request waits until those before it are answered, so that the stream
// needs no more than the agent protocol itself; which requests may pass is the host's to decide.
// A stream of the StreamSet: it lives until the host closes it. The event loop's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/ssh_agent.h"
#include "guest-init/server/streams.h"

namespace hull::guest {

inline constexpr size_t kMaxAgentConnections = 32;  // of a socket; more are closed at once

class AgentRelay final : public Stream {
 public:
  // `listener` listens at `path`; StepMount::Kind::kAgent brings it into the container.
  AgentRelay(EventLoop& loop, Fd host, Fd listener, std::string path, StreamDone done);
  ~AgentRelay() override;

 private:
  struct Client {
    Fd socket;
    ssh_agent::Framer requests;
    std::string output;
    bool waits = false;  // for an answer; until then nothing more is read
  };

  void accept();
  void clientReady(uint64_t id, uint32_t events);
  bool receive(uint64_t id, Client& client);  // false: the client is of no more use
  void takeRequest(uint64_t id, Client& client);
  bool flush(Client& client);
  void watch(const Client& client);
  void drop(uint64_t id);

  void askNext();
  void hostReady(uint32_t events);
  bool receiveAnswers();
  void deliver(const std::string& answer);
  bool flushHost();
  void finish();

  EventLoop& loop_;
  Fd host_;
  const std::string path_;
  StreamDone done_;
  Fd listener_;
  std::map<uint64_t, std::unique_ptr<Client>> clients_;
  uint64_t next_client_ = 1;
  std::deque<std::pair<uint64_t, std::string>> waiting_;  // at most one of each client
  std::optional<uint64_t> asking_;                        // whose request the host has
  ssh_agent::Framer answers_;
  std::string output_;  // to the host
  bool finished_ = false;
};

}  // namespace hull::guest
