// Containers: restart policies.
#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "daemon/engine/containers.h"

namespace hull::engine {

namespace {

constexpr std::chrono::milliseconds kFirstRestartDelay{100};
constexpr std::chrono::milliseconds kLastRestartDelay{60'000};
constexpr int64_t kMostDoublings = 10;  // beyond, it is the last delay anyway

std::chrono::milliseconds restartDelay(int64_t quick_ends) {
  const int64_t doublings = std::clamp<int64_t>(quick_ends - 1, 0, kMostDoublings);
  return std::min(kFirstRestartDelay * (int64_t{1} << doublings), kLastRestartDelay);
}

// A program that is not there will not come; a host without memory may have some again.
bool mayHeal(const Error& error) {
  return error.kind() != ErrorKind::kInvalidArgument && error.kind() != ErrorKind::kNotFound &&
         error.kind() != ErrorKind::kForbidden && error.kind() != ErrorKind::kNotSupported;
}

}  // namespace

bool Containers::wantsRestart(const Container& container, int exit_code) const {
  const ContainerSpec& spec = container.spec();
  const ContainerState state = container.state();
  if (state.stopped_by_user) return false;
  switch (spec.restart) {
    case RestartPolicy::kNo:
      return false;
    case RestartPolicy::kAlways:
    case RestartPolicy::kUnlessStopped:
      return true;
    case RestartPolicy::kOnFailure:
      return exit_code != 0 &&
             (spec.restart_attempts == 0 || state.restarts < spec.restart_attempts);
  }
  return false;
}

void Containers::wakeRestarts() {
  const std::lock_guard lock(stopping_mutex_);
  stopping_changed_.notify_all();
}

// False when the engine stops: "restarting" is in the database, and the next one goes on.
bool Containers::waitBeforeRestart(const std::shared_ptr<Container>& container) {
  std::unique_lock lock(stopping_mutex_);
  stopping_changed_.wait_for(lock, restartDelay(container->state().quick_ends), [&] {
    return stopping_ || container->removed() || container->state().stopped_by_user;
  });
  return !stopping_;
}

// True when it is to be tried once more.
bool Containers::restartOnce(const std::shared_ptr<Container>& container) {
  const auto operation = container->operation();
  if (container->removed()) return false;
  if (container->state().status != Status::kRestarting) return false;  // by hand, meanwhile
  if (container->state().stopped_by_user) {
    save(*container, [](ContainerState& changed) { changed.status = Status::kExited; });
    container->endRun({container->state().exit_code, ""});
    return false;
  }
  save(*container, [](ContainerState& changed) { ++changed.restarts; });
  try {
    launch(container);
    return false;
  } catch (const Error& error) {
    log::warning("restart container " + container->id() + ": " + error.what());
    const bool again = mayHeal(error) && wantsRestart(*container, container->state().exit_code);
    save(*container, [&](ContainerState& changed) {
      changed.status = again ? Status::kRestarting : Status::kExited;
      ++changed.quick_ends;
    });
    return again;
  }
}

void Containers::restartLater(const std::shared_ptr<Container>& container) {
  while (waitBeforeRestart(container) && restartOnce(container)) {
  }
}

}  // namespace hull::engine
