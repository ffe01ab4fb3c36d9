#include "daemon/api/metrics.h"

#include <dirent.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <sstream>

#include "base/error.h"
#include "base/file.h"

namespace hull::engine::api {

namespace {

constexpr double kNsPerSecond = 1e9;

void describe(std::ostringstream& out, const char* name, const char* type, const char* help) {
  out << "# HELP " << name << ' ' << help << "\n# TYPE " << name << ' ' << type << '\n';
}

uint64_t openDescriptors() {
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir("/proc/self/fd"), closedir);
  uint64_t count = 0;
  while (listing && readdir(listing.get())) ++count;
  return count > 3 ? count - 3 : 0;  // ".", ".." and the listing's own
}

// proc(5), statm: pages; its second field is the resident set.
uint64_t residentBytes() {
  uint64_t pages = 0, resident = 0;
  std::istringstream(readFile("/proc/self/statm", 256)) >> pages >> resident;
  return resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

uint64_t threads() {
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(opendir("/proc/self/task"), closedir);
  uint64_t count = 0;
  while (listing && readdir(listing.get())) ++count;
  return count > 2 ? count - 2 : 0;
}

void addContainers(std::ostringstream& out, Engine& engine) {
  std::map<std::string, uint64_t> states, health;
  for (const char* state : {"created", "running", "paused", "restarting", "exited"}) {
    states[state] = 0;
  }
  uint64_t restarts = 0;
  for (const auto& container : engine.containers().list()) {
    const ContainerState state = container->state();
    ++states[std::string(toString(state.status))];
    if (state.health.status != HealthStatus::kNone) {
      ++health[std::string(toString(state.health.status))];
    }
    restarts += static_cast<uint64_t>(state.restarts);
  }
  describe(out, "hull_containers", "gauge", "Containers by state.");
  for (const auto& [state, count] : states) {
    out << "hull_containers{state=\"" << state << "\"} " << count << '\n';
  }
  describe(out, "hull_containers_health", "gauge", "Containers with a health check by health.");
  for (const auto& [state, count] : health) {
    out << "hull_containers_health{health=\"" << state << "\"} " << count << '\n';
  }
  describe(out, "hull_container_restarts", "gauge",
           "Restarts by policy of the containers there are.");
  out << "hull_container_restarts " << restarts << '\n';
}

}  // namespace

RequestCounts& requestCounts() {
  static RequestCounts counts;
  return counts;
}

void RequestCounts::count(int status, std::chrono::nanoseconds took) {
  const size_t index = status >= 100 && status < 600 ? static_cast<size_t>(status / 100) : 0;
  by_class_[index].fetch_add(1, std::memory_order_relaxed);
  total_ns_.fetch_add(static_cast<uint64_t>(took.count()), std::memory_order_relaxed);
}

std::string RequestCounts::text() const {
  std::ostringstream out;
  describe(out, "hull_api_requests_total", "counter", "Requests answered, by class of status.");
  uint64_t all = 0;
  for (size_t i = 1; i < kClasses; ++i) {
    const uint64_t count = by_class_[i].load(std::memory_order_relaxed);
    out << "hull_api_requests_total{code=\"" << i << "xx\"} " << count << '\n';
    all += count;
  }
  describe(out, "hull_api_request_seconds", "summary", "Time from a request to its answer's end.");
  out << "hull_api_request_seconds_sum "
      << static_cast<double>(total_ns_.load(std::memory_order_relaxed)) / kNsPerSecond
      << "\nhull_api_request_seconds_count " << all << '\n';
  return out.str();
}

std::string metricsText(Engine& engine) {
  std::ostringstream out;
  describe(out, "hull_engine_info", "gauge", "The engine's version.");
  out << "hull_engine_info{version=\"" << kHullVersion << "\"} 1\n";
  addContainers(out, engine);
  describe(out, "hull_images", "gauge", "Images with and without a name.");
  out << "hull_images " << engine.images().list().size() << '\n';
  out << requestCounts().text();
  describe(out, "process_open_fds", "gauge", "Open descriptors.");
  out << "process_open_fds " << openDescriptors() << '\n';
  describe(out, "process_resident_memory_bytes", "gauge", "Resident memory.");
  out << "process_resident_memory_bytes " << residentBytes() << '\n';
  describe(out, "process_threads", "gauge", "Threads.");
  out << "process_threads " << threads() << '\n';
  return out.str();
}

Router makeMetricsRouter(Engine& engine) {
  Router router;
  router.add("GET", "/metrics", [&engine](Exchange& exchange) {
    exchange.reply(200, "text/plain; version=0.0.4; charset=utf-8", metricsText(engine), {});
  });
  return router;
}

}  // namespace hull::engine::api
