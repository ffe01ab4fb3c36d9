#include "daemon/engine/health.h"

#include "base/error.h"
#include "base/log.h"
#include "daemon/engine/containers.h"
#include "daemon/engine/execs.h"

namespace hull::engine {

namespace {

constexpr std::chrono::seconds kProbeOutputTime{1};  // a child of the probe may hold its output
constexpr std::chrono::seconds kProbeKillTime{10};

// What is left in `subscription` once its process's output has been stopped.
std::string takeOutput(OutputSubscription& subscription) {
  std::string text;
  while (const auto chunk = subscription.next()) {
    text += chunk->bytes;
    if (text.size() <= kMaxHealthOutputBytes) continue;
    text.resize(kMaxHealthOutputBytes);
    text += "...";
    break;
  }
  return text;
}

}  // namespace

HealthState afterProbe(HealthState health, HealthProbe probe, const HealthSpec& spec,
                       int64_t started_ns) {
  if (probe.exit_code == 0) {
    health.failing_streak = 0;
    health.status = HealthStatus::kHealthy;
  } else if (health.status != HealthStatus::kStarting ||
             probe.start_ns - started_ns >= spec.start_period.count()) {
    ++health.failing_streak;
    if (health.failing_streak >= spec.retries) health.status = HealthStatus::kUnhealthy;
  }
  health.probes.push_back(std::move(probe));
  if (health.probes.size() > kMaxHealthProbes) health.probes.erase(health.probes.begin());
  return health;
}

std::chrono::nanoseconds probeDelay(const HealthState& health, const HealthSpec& spec,
                                    int64_t started_ns, int64_t now_ns) {
  const bool in_start_period =
      health.status == HealthStatus::kStarting && now_ns - started_ns < spec.start_period.count();
  return in_start_period ? std::min(spec.start_interval, spec.interval) : spec.interval;
}

// --- the probes ---

HealthProbe Containers::probe(const std::shared_ptr<Container>& container) {
  const HealthSpec& spec = container->spec().health;
  ExecSpec command;
  command.arguments = spec.command;
  command.attach_stdout = command.attach_stderr = true;
  HealthProbe result;
  result.start_ns = nowNs();
  std::shared_ptr<Exec> exec;
  try {
    exec = execs_->create(container, std::move(command));
    std::unique_ptr<OutputSubscription> subscription;
    execs_->start(exec, [&](ProcessOutput& output) {
      subscription = output.subscribe(OutputSubscription::WhenSlow::kDrop);
    });
    if (exec->awaitExitFor(spec.timeout)) {
      result.exit_code = exec->state().exit_code.value_or(kProbeTimedOut);
      exec->output()->waitEnded(kProbeOutputTime);
      exec->output()->stop();
      result.output = takeOutput(*subscription);
    } else {
      result.exit_code = kProbeTimedOut;
      result.output = "Health check exceeded timeout (" +
                      std::to_string(spec.timeout.count() / 1'000'000) + "ms)";
      execs_->kill(*exec);
      exec->awaitExitFor(kProbeKillTime);
      exec->output()->stop();
    }
  } catch (const Error& error) {
    result.exit_code = exec ? exec->state().exit_code.value_or(kProbeTimedOut) : kProbeTimedOut;
    result.output = std::string(error.what()).substr(0, kMaxHealthOutputBytes);
  }
  if (exec) execs_->forget(exec->id());
  result.end_ns = nowNs();
  return result;
}

void Containers::recordProbe(const std::shared_ptr<Container>& container, HealthProbe probe) {
  const HealthSpec& spec = container->spec().health;
  const HealthState before = container->state().health;
  const auto edit = [&](ContainerState& state) {
    state.health = afterProbe(std::move(state.health), probe, spec, state.started_ns);
  };
  // One that changes nothing but the list of probes is not worth a synced write.
  const HealthState after = afterProbe(before, probe, spec, container->state().started_ns);
  const bool changed =
      after.status != before.status || after.failing_streak != before.failing_streak;
  if (changed) {
    save(*container, edit);
  } else {
    container->change(edit);
  }
  if (after.status != before.status) {
    publish(*container, "health_status: " + std::string(toString(after.status)));
  }
}

void Containers::watchHealth(const std::shared_ptr<Container>& container,
                             const std::shared_ptr<Run>& run) {
  if (container->spec().health.command.empty()) return;
  tasks_.run("health of container " + container->id(), [this, container, run] {
    for (;;) {
      const ContainerState state = container->state();
      const auto delay =
          probeDelay(state.health, container->spec().health, state.started_ns, nowNs());
      if (run->waitOverFor(delay)) return;
      if (container->state().status != Status::kRunning) continue;  // paused
      HealthProbe done = probe(container);
      if (run->waitOverFor(std::chrono::nanoseconds(0))) return;
      recordProbe(container, std::move(done));
    }
  });
}

}  // namespace hull::engine
