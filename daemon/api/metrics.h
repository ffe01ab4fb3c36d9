// What the engine counts of itself, as Prometheus reads it (text format 0.0.4): requests by status,
// their time, containers by state and health, events, and the process. Served on an address of its
// own, without a word about any single container. Any thread.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

#include "daemon/api/router.h"
#include "daemon/engine/engine.h"

namespace hull::engine::api {

class RequestCounts {
 public:
  void count(int status, std::chrono::nanoseconds took);
  std::string text() const;

 private:
  static constexpr size_t kClasses = 6;  // 0: a connection that was taken over; 1xx … 5xx
  std::array<std::atomic<uint64_t>, kClasses> by_class_{};
  std::atomic<uint64_t> total_ns_ = 0;
};

RequestCounts& requestCounts();  // of this process

std::string metricsText(Engine& engine);
Router makeMetricsRouter(Engine& engine);  // GET /metrics

}  // namespace hull::engine::api
