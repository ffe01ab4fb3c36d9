// The control socket: one JSON object per line each way (vm_config.h). Its clients are the
// engine's, but lines are bounded and a client that misbehaves only loses its connection.
//
// Owner: Machine. Device thread.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/fd.h"

namespace hull::vmm {

class ControlServer {
 public:
  static constexpr size_t kMaxClients = 16;
  static constexpr size_t kMaxLineBytes = 4096;
  static constexpr size_t kMaxDescriptors = 4;  // waiting with one client

  using ClientId = uint64_t;
  // The machine's side: takes a command and answers, at once or later, with reply(). Commands are
  // told apart by their "command" field; `line` is the whole object, for those that have more.
  using Handler =
      std::function<void(ClientId client, const std::string& command, std::string_view line)>;

  // Does not own `listener_fd`.
  ControlServer(int listener_fd, EventLoop& loop, Handler handler);
  ~ControlServer();
  ControlServer(const ControlServer&) = delete;
  ControlServer& operator=(const ControlServer&) = delete;

  // The descriptors that came with the command being handled (SCM_RIGHTS); those that nobody takes
  // are closed after it.
  std::vector<Fd> takeDescriptors(ClientId client);

  // One line; nothing happens when the client has gone.
  void reply(ClientId client, std::string_view json_object);

 private:
  struct Client {
    Fd fd;
    std::string input;
    std::vector<Fd> descriptors;
  };
  void acceptClient();
  void onReadable(ClientId id);
  void handleLine(ClientId id, std::string_view line);
  void remove(ClientId id);

  int listener_;
  EventLoop& loop_;
  Handler handler_;
  std::map<ClientId, Client> clients_;
  ClientId next_id_ = 1;
};

// The "command" of a line, or nothing when it is not such an object.
std::string parseCommand(std::string_view line);

}  // namespace hull::vmm
