// Counters of a running registry in Prometheus' text format (exposition format 0.0.4). Any thread.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

namespace hull::registry {

class Metrics {
 public:
  // One answered request. `endpoint` is one of a few fixed names, never text of the request.
  void request(const std::string& method, const char* endpoint, int status,
               std::chrono::duration<double> took, uint64_t received, uint64_t sent);
  // Adds to a counter of no labels ("hull_registry_cache_hits_total") that `help` explains.
  void add(const char* name, const char* help, uint64_t amount = 1);
  // Sets a gauge.
  void set(const char* name, const char* help, uint64_t value);

  std::string text() const;

 private:
  // Seconds; the last is +Inf.
  static constexpr std::array kBuckets = {0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0};
  struct Histogram {
    std::array<uint64_t, kBuckets.size() + 1> counts{};
    double sum = 0;
  };
  struct Simple {
    const char* help;
    bool gauge;
    uint64_t value;
  };

  mutable std::mutex mutex_;
  std::map<std::tuple<std::string, std::string, int>, uint64_t> requests_;  // guarded by mutex_
  std::map<std::string, Histogram> durations_;                              // by endpoint
  std::map<std::string, Simple> simple_;
};

}  // namespace hull::registry
