#include "daemon/api/stats.h"

#include <condition_variable>
#include <mutex>

#include "base/log.h"
#include "daemon/api/shapes.h"

namespace hull::engine::api {

namespace {

constexpr std::chrono::seconds kInterval{1};
constexpr std::chrono::seconds kAnswerTime{10};

struct Sample {
  guest::Usage usage;
  int64_t time_ns = 0;  // 0: none was taken
};

// Of a container that does not run, or a paused one, whose guest cannot answer, all is zero.
Sample take(const Container& container) {
  Sample sample{{}, nowNs()};
  const auto run = container.run();
  if (!run || container.state().status != Status::kRunning) return sample;
  try {
    sample.usage =
        run->vm()->requestFor<guest::Usage>(container.id(), guest::ReadUsage{}, kAnswerTime);
  } catch (const Error& error) {
    log::debug("stats of container " + container.id() + ": " + error.what());  // it ends just now
  }
  return sample;
}

Json cpuJson(const guest::Usage& usage) {
  Json json{{"cpu_usage",
             {{"total_usage", usage.cpu_ns},
              {"usage_in_kernelmode", usage.cpu_system_ns},
              {"usage_in_usermode", usage.cpu_user_ns}}},
            {"throttling_data",
             {{"periods", usage.cpu_periods},
              {"throttled_periods", usage.cpu_throttled_periods},
              {"throttled_time", usage.cpu_throttled_ns}}}};
  if (usage.system_cpu_ns != 0) {
    json["system_cpu_usage"] = usage.system_cpu_ns;
    json["online_cpus"] = usage.cpus;
  }
  return json;
}

Json memoryJson(const guest::Usage& usage) {
  if (usage.memory_limit_bytes == 0) return Json::object();
  Json stats = Json::object();
  for (const auto& counter : usage.memory) stats[counter.name] = counter.value;
  return {{"usage", usage.memory_bytes},
          {"max_usage", usage.memory_peak_bytes},
          {"limit", usage.memory_limit_bytes},
          {"stats", stats}};
}

Json networksJson(const guest::Usage& usage) {
  Json networks = Json::object();
  for (const auto& network : usage.networks) {
    networks[network.interface] = {
        {"rx_bytes", network.rx_bytes},   {"rx_packets", network.rx_packets},
        {"rx_errors", network.rx_errors}, {"rx_dropped", network.rx_dropped},
        {"tx_bytes", network.tx_bytes},   {"tx_packets", network.tx_packets},
        {"tx_errors", network.tx_errors}, {"tx_dropped", network.tx_dropped}};
  }
  return networks;
}

Json blockJson(const guest::Usage& usage) {
  Json bytes = Json::array(), operations = Json::array();
  for (const auto& disk : usage.disks) {
    int64_t major = 0, minor = 0;
    if (std::sscanf(disk.device.c_str(), "%5ld:%7ld", &major, &minor) != 2) continue;
    const auto add = [&](Json& list, const char* operation, uint64_t value) {
      list.push_back({{"major", major}, {"minor", minor}, {"op", operation}, {"value", value}});
    };
    add(bytes, "read", disk.read_bytes);
    add(bytes, "write", disk.write_bytes);
    add(operations, "read", disk.reads);
    add(operations, "write", disk.writes);
  }
  return {{"io_service_bytes_recursive", bytes}, {"io_serviced_recursive", operations},
          {"io_queue_recursive", nullptr},       {"io_service_time_recursive", nullptr},
          {"io_wait_time_recursive", nullptr},   {"io_merged_recursive", nullptr},
          {"io_time_recursive", nullptr},        {"sectors_recursive", nullptr}};
}

Json statsJson(const Container& container, const Sample& before, const Sample& now) {
  const guest::Usage& usage = now.usage;
  Json pids = Json::object();
  if (usage.pids != 0) pids["current"] = usage.pids;
  if (usage.pids_limit != 0) pids["limit"] = usage.pids_limit;
  return {{"id", container.id()},
          {"name", "/" + container.name()},
          {"read", timeText(now.time_ns)},
          {"preread", timeText(before.time_ns)},
          {"pids_stats", pids},
          {"blkio_stats", blockJson(usage)},
          {"num_procs", 0},
          {"storage_stats", Json::object()},
          {"cpu_stats", cpuJson(usage)},
          {"precpu_stats", cpuJson(before.usage)},
          {"memory_stats", memoryJson(usage)},
          {"networks", networksJson(usage)}};
}

}  // namespace

void stats(Exchange& exchange, Engine& engine) {
  const auto container = engine.containers().get(exchange.parameter(0));
  const Query& query = exchange.request().query;
  std::mutex mutex;
  std::condition_variable changed;
  bool gone = false;
  const auto watch = exchange.onDisconnect([&] {
    const std::lock_guard lock(mutex);
    gone = true;
    changed.notify_all();
  });
  const auto pause = [&] {
    std::unique_lock lock(mutex);
    return !changed.wait_for(lock, kInterval, [&] { return gone; });
  };
  Sample before;
  if (!query.flag("stream", true)) {
    if (!query.flag("one-shot")) {
      before = take(*container);
      if (container->state().running() && !pause()) return;
    }
    return exchange.json(200, dump(statsJson(*container, before, take(*container))));
  }
  Sink& out = exchange.stream(200, "application/json", {});
  do {
    const Sample now = take(*container);
    out.write(dump(statsJson(*container, before, now)));
    before = now;
  } while (!container->removed() && pause());
}

}  // namespace hull::engine::api
