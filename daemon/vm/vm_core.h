// A running VM: its VMM process and the control connection to its guest. Two threads: the reader
// takes replies and events from the guest and notices the end of the process; the deliverer calls
// the engine back, so that a callback may itself use the VM. Both hold the core by shared_ptr.
// Owned by one MachineVm (vm.cc).
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/fd.h"
#include "daemon/vm/guest_wire.h"
#include "daemon/vm/vm.h"
#include "daemon/vm/vmm_process.h"

namespace hull::engine {

inline constexpr size_t kMaxQueuedEvents = 4096;  // undelivered; a guest that makes more is ended
// A VMM that outlives its guest's control connection by this much is ended: nobody can reach it.
inline constexpr std::chrono::seconds kLostConnectionGrace{20};

class VmCore : public std::enable_shared_from_this<VmCore> {
 public:
  // `control` is past Hello. Call run() next.
  VmCore(std::string directory, VmProcesses processes, Fd control, Quota::Lease lease);

  void run();
  guest::Message request(const std::string& container, guest::Message message,
                         std::chrono::milliseconds timeout);
  void setEventFunction(Vm::EventFunction function);
  void setExitFunction(Vm::ExitFunction function);
  void listen(const std::string& container, Vm::EventFunction exited, Vm::ExitFunction ended);
  void stopListening(const std::string& container);
  std::optional<VmExit> waitExit(Deadline deadline);
  bool ended();
  // The VM stays (`leave_running`) or is killed; no callback runs after this.
  void close(bool leave_running);

  const std::string& directory() const { return directory_; }
  const VmmProcess& process() const { return process_; }

 private:
  struct Pending {
    std::optional<guest::Message> reply;
  };
  using Lock = std::unique_lock<std::mutex>;

  void readLoop();
  bool readFrames();  // false: the connection is over
  void takeFrame(guest::Frame frame);
  void loseConnection(const std::string& why, bool guests_fault);
  void recordExit();
  void passtEnded();
  void deliverLoop();
  bool deliverNext(Lock& lock);
  const Vm::EventFunction* takerOf(const std::string& container) const;
  Vm::ExitFunction* untoldOfExit();
  void send(const guest::Frame& frame, Deadline deadline);
  [[noreturn]] void throwGone() const;

  const std::string directory_;
  VmmProcess process_;
  std::optional<VmmProcess> share_, passt_;  // helpers; reader's until the VM has ended
  const Fd control_;
  const Fd wakeup_;                  // eventfd: close()
  FrameAssembler assembler_;         // reader's
  std::optional<Deadline> give_up_;  // reader's: set when the connection was lost

  std::mutex mutex_;  // everything below
  std::condition_variable changed_;
  std::map<uint32_t, Pending> pending_;
  uint32_t next_request_ = 1;
  struct Event {
    std::string container;
    guest::ProcessExited exited;
  };
  std::deque<Event> events_;
  Vm::EventFunction event_function_;
  Vm::ExitFunction exit_function_;  // until it was called
  struct Listener {
    Vm::EventFunction exited;
    Vm::ExitFunction ended;  // until it was called
  };
  std::map<std::string, Listener> listeners_;  // by container
  std::string lost_;                           // why the connection is over; empty: it is not
  std::string ended_for_;                      // why we ended the VM; empty: it was not us
  std::optional<VmExit> exit_;
  Quota::Lease lease_;  // until the process has ended
  bool closing_ = false;
  bool sending_ = false;  // somebody writes to control_; frames must not mix
  std::thread reader_, deliverer_;
};

// The end of a log, at a line's beginning where there is one; empty when there is none.
std::string tailOf(const std::string& path);

// The exit object that the VMM left in `directory`; nullopt when there is none that makes sense.
std::optional<VmExit> readExitStatus(const std::string& directory);

inline constexpr const char* kSizeFile = "size";  // "MEMORY_MIB VCPUS\n"
inline constexpr const char* kStatusFile = "status.json";
inline constexpr const char* kVsockSocket = "vsock.sock";
inline constexpr const char* kControlSocket = "control.sock";
inline constexpr const char* kConsoleFile = "console.log";
inline constexpr const char* kVmmLogFile = "vmm.log";      // what hull-vmm says on standard error
inline constexpr const char* kShareLogFile = "share.log";  // what virtiofsd says
inline constexpr const char* kPasstLogFile = "passt.log";
inline constexpr const char* kShareFolder = "shares";      // the place of hull-share's mount
inline constexpr const char* kShareSocket = "share.sock";  // while it starts
inline constexpr const char* kWritableFile = "writable.ext4";
// What the VMM calls the container's disks.
inline constexpr const char* kRootDiskId = "root";
inline constexpr const char* kWritableDiskId = "writable";

}  // namespace hull::engine
