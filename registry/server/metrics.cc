#include "registry/server/metrics.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>

namespace hull::registry {

namespace {

// Whatever else a client sends must not make a new label.
std::string methodLabel(const std::string& method) {
  static constexpr std::string_view kKnown[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"};
  const bool known = std::find(std::begin(kKnown), std::end(kKnown), method) != std::end(kKnown);
  return known ? method : "other";
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

void head(std::string& text, const std::string& name, const char* help, const char* type) {
  text += "# HELP " + name + " " + help + "\n# TYPE " + name + " " + type + "\n";
}

}  // namespace

void Metrics::request(const std::string& method, const char* endpoint, int status,
                      std::chrono::duration<double> took, uint64_t received, uint64_t sent) {
  {
    const std::lock_guard lock(mutex_);
    ++requests_[{methodLabel(method), endpoint, status}];
    Histogram& histogram = durations_[endpoint];
    const auto bucket = std::lower_bound(kBuckets.begin(), kBuckets.end(), took.count());
    ++histogram.counts[static_cast<size_t>(bucket - kBuckets.begin())];
    histogram.sum += took.count();
  }
  add("hull_registry_received_bytes_total", "Bytes of request bodies.", received);
  add("hull_registry_sent_bytes_total", "Bytes of answers.", sent);
}

void Metrics::add(const char* name, const char* help, uint64_t amount) {
  const std::lock_guard lock(mutex_);
  simple_.try_emplace(name, Simple{help, false, 0}).first->second.value += amount;
}

void Metrics::set(const char* name, const char* help, uint64_t value) {
  const std::lock_guard lock(mutex_);
  simple_.insert_or_assign(name, Simple{help, true, value});
}

std::string Metrics::text() const {
  const std::lock_guard lock(mutex_);
  std::string text;
  head(text, "hull_registry_requests_total", "Answered requests.", "counter");
  for (const auto& [labels, count] : requests_) {
    const auto& [method, endpoint, status] = labels;
    text += "hull_registry_requests_total{method=\"" + method + "\",endpoint=\"" + endpoint +
            "\",code=\"" + std::to_string(status) + "\"} " + std::to_string(count) + "\n";
  }
  const std::string duration = "hull_registry_request_seconds";
  head(text, duration, "Time from a request's head to the end of its answer.", "histogram");
  for (const auto& [endpoint, histogram] : durations_) {
    uint64_t sum = 0;
    for (size_t i = 0; i <= kBuckets.size(); ++i) {
      sum += histogram.counts[i];
      const std::string limit = i < kBuckets.size() ? number(kBuckets[i]) : "+Inf";
      text += duration + "_bucket{endpoint=\"" + endpoint + "\",le=\"" + limit + "\"} " +
              std::to_string(sum) + "\n";
    }
    text += duration + "_sum{endpoint=\"" + endpoint + "\"} " + number(histogram.sum) + "\n";
    text += duration + "_count{endpoint=\"" + endpoint + "\"} " + std::to_string(sum) + "\n";
  }
  for (const auto& [name, value] : simple_) {
    head(text, name, value.help, value.gauge ? "gauge" : "counter");
    text += name + " " + std::to_string(value.value) + "\n";
  }
  return text;
}

}  // namespace hull::registry
