// What happens in the engine, for `docker events`: published to every subscriber through a bounded
// queue of its own (a reader that is too slow is ended, nobody waits for it), and the last
// kKeptEvents kept for `since`. Any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace hull::engine {

inline constexpr size_t kKeptEvents = 1024;
inline constexpr size_t kMaxQueuedEvents = 4096;

struct Event {
  std::string type;    // "container", "image", "network"
  std::string action;  // "start"
  std::string id;
  std::map<std::string, std::string> attributes;
  int64_t time_ns = 0;
};

class EventBus;

class EventSubscription {
 public:
  // The next event; nullopt once cancelled, too slow, or past `until_ns` (0: never).
  std::optional<Event> next(int64_t until_ns);
  void cancel();  // any thread

 private:
  friend class EventBus;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Event> queue_;
  bool ended_ = false;
};

class EventBus {
 public:
  void publish(Event event);  // sets the time
  // From now on, preceded by the kept ones at or after `since_ns` (0: none).
  std::shared_ptr<EventSubscription> subscribe(int64_t since_ns);

 private:
  std::mutex mutex_;
  std::deque<Event> kept_;
  std::list<std::weak_ptr<EventSubscription>> subscribers_;
};

int64_t nowNs();  // since 1970, UTC

}  // namespace hull::engine
