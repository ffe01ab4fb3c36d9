#include "daemon/engine/events.h"

#include <chrono>

namespace hull::engine {

int64_t nowNs() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
}

std::optional<Event> EventSubscription::next(int64_t until_ns) {
  std::unique_lock lock(mutex_);
  const auto ready = [this] { return !queue_.empty() || ended_; };
  if (until_ns > 0) {
    const auto until = std::chrono::system_clock::time_point(
        std::chrono::duration_cast<std::chrono::system_clock::duration>(
            std::chrono::nanoseconds(until_ns)));
    changed_.wait_until(lock, until, ready);
  } else {
    changed_.wait(lock, ready);
  }
  if (queue_.empty()) return std::nullopt;
  Event event = std::move(queue_.front());
  queue_.pop_front();
  if (until_ns > 0 && event.time_ns > until_ns) return std::nullopt;
  return event;
}

void EventSubscription::cancel() {
  const std::lock_guard lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

void EventBus::publish(Event event) {
  event.time_ns = nowNs();
  const std::lock_guard lock(mutex_);
  kept_.push_back(event);
  if (kept_.size() > kKeptEvents) kept_.pop_front();
  for (auto it = subscribers_.begin(); it != subscribers_.end();) {
    const auto subscriber = it->lock();
    if (!subscriber) {
      it = subscribers_.erase(it);
      continue;
    }
    const std::lock_guard queue_lock(subscriber->mutex_);
    subscriber->queue_.push_back(event);
    if (subscriber->queue_.size() > kMaxQueuedEvents) subscriber->ended_ = true;
    subscriber->changed_.notify_all();
    it = subscriber->ended_ ? subscribers_.erase(it) : std::next(it);
  }
}

std::shared_ptr<EventSubscription> EventBus::subscribe(int64_t since_ns) {
  auto made = std::make_shared<EventSubscription>();
  const std::lock_guard lock(mutex_);
  if (since_ns > 0) {
    for (const Event& event : kept_) {
      if (event.time_ns >= since_ns) made->queue_.push_back(event);
    }
  }
  subscribers_.push_back(made);
  return made;
}

}  // namespace hull::engine
