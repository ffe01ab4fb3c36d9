#include "daemon/api/stats.h"

#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <sstream>
#include <thread>

#include "base/file.h"
#include "daemon/api/shapes.h"

namespace hull::engine::api {

namespace {

constexpr std::chrono::seconds kInterval{1};

struct Sample {
  uint64_t cpu_ns = 0;
  uint64_t memory_bytes = 0;
  uint64_t threads = 0;
  uint64_t system_ns = 0;
};

uint64_t perTick() {
  return 1'000'000'000 / static_cast<uint64_t>(sysconf(_SC_CLK_TCK));
}

// proc(5): /proc/PID/stat, fields behind the command's closing parenthesis.
Sample sample(int64_t pid) {
  Sample sample;
  std::istringstream system(readFile("/proc/stat", 1 << 20));
  std::string word;
  system >> word;
  for (uint64_t value = 0, i = 0; i < 8 && system >> value; ++i)
    sample.system_ns += value * perTick();
  if (pid <= 0) return sample;
  try {
    const std::string text = readFile("/proc/" + std::to_string(pid) + "/stat", 4096);
    std::istringstream fields(text.substr(text.rfind(')') + 1));
    std::vector<std::string> values;
    while (fields >> word) values.push_back(word);
    if (values.size() < 22) return sample;
    sample.cpu_ns = (std::stoull(values[11]) + std::stoull(values[12])) * perTick();
    sample.threads = std::stoull(values[17]);
    sample.memory_bytes = std::stoull(values[21]) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  } catch (const std::exception&) {
    // It ended just now: zeros.
  }
  return sample;
}

Json cpuJson(const Sample& at) {
  return {
      {"cpu_usage",
       {{"total_usage", at.cpu_ns}, {"usage_in_kernelmode", 0}, {"usage_in_usermode", at.cpu_ns}}},
      {"system_cpu_usage", at.system_ns},
      {"online_cpus", std::thread::hardware_concurrency()},
      {"throttling_data", {{"periods", 0}, {"throttled_periods", 0}, {"throttled_time", 0}}}};
}

Json statsJson(Engine& engine, const Container& container, const Sample& before,
               const Sample& now) {
  const ContainerSpec& spec = container.spec();
  const uint64_t limit = vmMemoryMib(spec.memory_bytes, engine.options().default_memory_bytes)
                         << 20;
  return {
      {"id", container.id()},
      {"name", "/" + container.name()},
      {"read", timeText(nowNs())},
      {"preread", timeText(0)},
      {"pids_stats", {{"current", now.threads}}},
      {"blkio_stats", {{"io_service_bytes_recursive", nullptr}}},
      {"num_procs", 0},
      {"storage_stats", Json::object()},
      {"cpu_stats", cpuJson(now)},
      {"precpu_stats", cpuJson(before)},
      {"memory_stats", {{"usage", now.memory_bytes}, {"limit", limit}, {"stats", Json::object()}}},
      {"networks", Json::object()}};
}

}  // namespace

void stats(Exchange& exchange, Engine& engine) {
  const auto container = engine.containers().get(exchange.parameter(0));
  const Query& query = exchange.request().query;
  Sample before;
  if (!query.flag("stream", true)) {
    if (!query.flag("one-shot")) before = sample(container->state().pid);
    return exchange.json(
        200, dump(statsJson(engine, *container, before, sample(container->state().pid))));
  }
  std::mutex mutex;
  std::condition_variable changed;
  bool gone = false;
  const auto watch = exchange.onDisconnect([&] {
    const std::lock_guard lock(mutex);
    gone = true;
    changed.notify_all();
  });
  Sink& out = exchange.stream(200, "application/json", {});
  std::unique_lock lock(mutex);
  while (!gone && !container->removed()) {
    const Sample now = sample(container->state().pid);
    out.write(dump(statsJson(engine, *container, before, now)));
    before = now;
    changed.wait_for(lock, kInterval, [&] { return gone; });
  }
}

}  // namespace hull::engine::api
