// Tells other servers about pushes and deletions: a POST with distribution's notification envelope
// (application/vnd.docker.distribution.events.v2+json), signed when there is a secret, tried again
// with growing pauses, from a bounded queue that a restart empties. One thread of its own;
// publish() from any.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "registry/server/configuration.h"
#include "registry/server/metrics.h"

namespace hull::registry {

inline constexpr size_t kMaxQueuedEvents = 1000;
inline constexpr int kMaxHookAttempts = 5;

struct Event {
  std::string action;  // "push", "delete"
  std::string repository;
  std::string tag;  // empty: none
  std::string digest;
  std::string media_type;
  uint64_t size = 0;
  std::string actor;    // user; empty: anonymous
  std::string address;  // of the client
  std::string host;     // as the client named this server
  std::string method;
  std::string user_agent;
};

// The body of the POST.
std::string eventEnvelope(const Event& event, const std::string& id, const std::string& timestamp);
// Hex HMAC-SHA256.
std::string hmacSha256(std::string_view key, std::string_view text);

class Webhooks {
 public:
  explicit Webhooks(Metrics& metrics);
  ~Webhooks();
  // Queues the event for each of `hooks` that wants it. Never waits.
  void publish(const std::vector<WebhookOptions>& hooks, const Event& event);
  // Waits until nothing is queued or being sent; for tests and an orderly end.
  void drain();

 private:
  struct Delivery {
    WebhookOptions hook;
    std::string body;
  };
  void work();
  void deliver(const Delivery& delivery);
  bool attempt(const Delivery& delivery, std::string& why) const;
  bool pause(int attempt);  // false: stopping

  Metrics& metrics_;
  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Delivery> queue_;  // guarded by mutex_
  bool busy_ = false;           // guarded by mutex_
  std::thread thread_;
};

}  // namespace hull::registry
