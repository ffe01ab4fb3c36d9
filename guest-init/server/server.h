// hull-init's server: two listening sockets (AF_VSOCK in a VM, AF_UNIX in the tests), the
// containers, and the reaping of every child. The event loop's thread.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>

#include "base/event_loop.h"
#include "base/fd.h"
#include "guest-init/container/container.h"
#include "guest-init/protocol/protocol.h"
#include "guest-init/server/control.h"
#include "guest-init/server/streams.h"
#include "guest-init/server/transfer.h"

namespace hull::guest {

inline constexpr size_t kMaxContainers = 64;
// How long killed processes may take to die before they are left behind.
inline constexpr std::chrono::seconds kDeathPatience{10};

class Server {
 public:
  // `powered_off` ends the VM; called when everything is killed, synced and unmounted.
  Server(EventLoop& loop, Places places, Fd control_listener, Fd stream_listener,
         std::function<void()> powered_off);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

 private:
  using Deadline = EventLoop::Clock::time_point;
  struct Dying {  // a container that was told to die, and what follows
    std::unique_ptr<Container> container;
    std::function<void()> then;
    EventLoop::TimerId deadline;
  };

  void watchChildren();
  void reapChildren();
  void acceptControl();
  void acceptStream();

  void handle(Frame frame);
  void reply(uint64_t connection, uint32_t request, const std::string& container, Message message);
  // The reply, or Ok's absence when it comes later.
  std::optional<Message> perform(const Frame& frame);
  std::optional<Message> on(const Frame& frame, const Hello& request);
  std::optional<Message> on(const Frame& frame, const ConfigureNetwork& request);
  std::optional<Message> on(const Frame& frame, const WriteNameFiles& request);
  std::optional<Message> on(const Frame& frame, const CreateContainer& request);
  std::optional<Message> on(const Frame& frame, const StartProcess& request);
  std::optional<Message> on(const Frame& frame, const SignalProcess& request);
  std::optional<Message> on(const Frame& frame, const ResizeTerminal& request);
  std::optional<Message> on(const Frame& frame, const ForgetProcess& request);
  std::optional<Message> on(const Frame& frame, const ListState& request);
  std::optional<Message> on(const Frame& frame, const ListProcesses& request);
  std::optional<Message> on(const Frame& frame, const SetLimits& request);
  std::optional<Message> on(const Frame& frame, const ReadUsage& request);
  std::optional<Message> on(const Frame& frame, const SealLayer& request);
  std::optional<Message> on(const Frame& frame, const PrepareSeat& request);
  std::optional<Message> on(const Frame& frame, const RemoveContainer& request);
  std::optional<Message> on(const Frame& frame, const Pause& request);
  std::optional<Message> on(const Frame& frame, const Resume& request);
  std::optional<Message> on(const Frame& frame, const PowerOff& request);
  template <typename Other>
  std::optional<Message> on(const Frame& frame, const Other& request);

  void requireNew(const std::string& id) const;
  void attachSeat(const std::string& id, uint64_t connection, uint32_t request, Deadline deadline);
  Container& container(const std::string& id);
  void requireIdle(const Container& container, const char* operation);
  void kill(const std::string& id, std::function<void()> then);
  void buryDead();
  void exited(const Container& container, const ProcessExited& event);

  void openStream(Fd socket, const Frame& frame);
  void startStdio(Fd socket, const Frame& frame, const OpenStream& request);
  void startConnection(Fd socket, const Frame& frame, const OpenStream& request);
  void startTransfer(Fd socket, const Frame& frame, const OpenStream& request);

  EventLoop& loop_;
  Places places_;
  Fd control_listener_;
  Fd stream_listener_;
  std::function<void()> powered_off_;
  Fd child_signals_;
  std::unique_ptr<ControlConnection> control_;
  uint64_t control_number_ = 0;  // tells a reply's connection from its successor
  StreamSet streams_;
  std::map<std::string, Seat> seats_;  // prepared, for containers to come
  std::map<std::string, std::unique_ptr<Container>> containers_;
  std::list<Dying> dying_;
  std::map<pid_t, std::unique_ptr<Transfer>> transfers_;
  bool powering_off_ = false;
};

}  // namespace hull::guest
