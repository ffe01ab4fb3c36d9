// What a process in a VM writes: taken from the guest, put into the container's log, acknowledged,
// and passed on to whoever is attached. One object per run of a process, shared by the engine and
// its API connections; the pump is a thread of its own. Any thread may call anything.
//
//   auto output = std::make_shared<ProcessOutput>(options);       // before the process is started,
//   auto attached = output->subscribe();                          // so that attach comes before it
//   vm.request(id, StartProcess{…});
//   output->begin([&](OutputKind kind, uint64_t offset) { return vm.openStream(…); });
//   … the exit event …
//   output->waitEnded(…);  then record the exit, then ForgetProcess: no output is lost
//
// A process adopted from an earlier engine process: options.resume = true, then begin().
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "daemon/vm/output_log.h"

namespace hull::engine {

// An attached client reads this much behind the process before it is too slow.
inline constexpr size_t kMaxQueuedOutputBytes = 1 << 20;

struct OutputChunk {
  OutputKind stream = OutputKind::kStdout;
  std::string bytes;  // as the process wrote them

  bool operator==(const OutputChunk&) const = default;
};

// One attached client's queue. Destroying it detaches.
class OutputSubscription {
 public:
  enum class WhenSlow {
    kWait,  // the process waits for the client, as with Docker's attach (`run … | less`)
    kDrop,  // the client's output ends early; overflowed() tells
  };

  ~OutputSubscription();
  OutputSubscription(const OutputSubscription&) = delete;
  OutputSubscription& operator=(const OutputSubscription&) = delete;

  std::optional<OutputChunk> next();  // blocks; nullopt at the end, cancelled or overflowed
  void cancel();                      // any thread: next() returns nullopt, nothing is queued
  bool overflowed() const;
  // The log's size when the subscription began. A LogReader with end_bytes = logBytes(), read
  // first, and then next() until the end give every byte once.
  uint64_t logBytes() const { return log_bytes_; }

 private:
  friend class ProcessOutput;
  struct Hub;
  struct Queue;
  OutputSubscription(std::shared_ptr<Hub> hub, std::shared_ptr<Queue> queue, uint64_t log_bytes)
      : hub_(std::move(hub)), queue_(std::move(queue)), log_bytes_(log_bytes) {}

  std::shared_ptr<Hub> hub_;
  std::shared_ptr<Queue> queue_;
  uint64_t log_bytes_ = 0;
};

class ProcessOutput {
 public:
  struct Options {
    std::string log_path;   // empty: nothing is kept (exec)
    bool terminal = false;  // one stream, kStdout
    bool resume = false;    // adopted: go on where the log ends
    LogLimits limits = {};
  };
  // Gives the connected stream (guest::OpenStream kStdout or kStderr) from `offset` on.
  using OpenFunction = std::function<Fd(OutputKind kind, uint64_t offset)>;

  explicit ProcessOutput(const Options& options);
  ~ProcessOutput();  // as stop()
  ProcessOutput(const ProcessOutput&) = delete;
  ProcessOutput& operator=(const ProcessOutput&) = delete;

  // Once, when the process runs: opens its streams and starts the pump.
  void begin(const OpenFunction& open);

  // From now on; queued first are the bytes of unfinished lines, which no log holds yet, when
  // `with_unfinished` (for history and then the rest, see OutputSubscription::logBytes).
  std::unique_ptr<OutputSubscription> subscribe(
      OutputSubscription::WhenSlow when_slow = OutputSubscription::WhenSlow::kWait,
      bool with_unfinished = false);

  bool ended() const;  // by the process
  bool over() const;   // ended or stopped
  // The process closed its output (or the VM is gone) and everything is in the log.
  bool waitEnded(std::chrono::milliseconds timeout);
  // Waits until the log is longer than `known_bytes`, the output ended, or the timeout; the size.
  uint64_t waitForLog(uint64_t known_bytes, std::chrono::milliseconds timeout);

  // Ends everyone's output without an end of the process: the start failed, or the engine leaves
  // the VM running for a later engine process. Idempotent.
  void stop();

 private:
  struct Stream;
  struct Round;
  void pump();
  bool waitForInput();
  void receive(Stream& stream, Round& round);
  void cutLines(Stream& stream, Round& round);
  bool store(const Round& round);
  void acknowledge(Stream& stream);
  bool publish(Round& round);
  bool pauseUnlessStopped(std::chrono::milliseconds time);

  std::unique_ptr<OutputLog> log_;  // pump's
  std::vector<std::unique_ptr<Stream>> streams_;
  std::shared_ptr<OutputSubscription::Hub> hub_;
  Fd wakeup_;  // eventfd: stop()
  std::thread thread_;
  std::mutex lifecycle_;  // begin, stop
  bool terminal_ = false;
  bool begun_ = false;
};

}  // namespace hull::engine
