#include "daemon/engine/door.h"

#include <algorithm>
#include <utility>

#include "daemon/engine/mount_spec.h"

namespace hull::engine {

namespace {

constexpr std::string_view kDockerSocket = "/run/docker.sock";

std::string comparable(const std::string& path) {
  const std::string clean = cleanPath(path);
  return clean.starts_with("/var/run/") ? clean.substr(4) : clean;
}

}  // namespace

std::string tooManyConnections() {
  const std::string body =
      "{\"message\":\"too many connections to the engine: a container has at most " +
      std::to_string(kMaxEngineConnections) + "; close some first\"}\n";
  return "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\nConnection: close\r\n\r\n" + body;
}

void Door::open(Admit admit) {
  const std::lock_guard lock(mutex_);
  admit_ = std::move(admit);
  changed_.notify_all();
}

void Door::close() {
  std::unique_lock lock(mutex_);
  closed_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return entering_ == 0; });
}

void Door::enter(Fd connection, std::shared_ptr<void> place) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return admit_ || closed_; });
  if (closed_) return;
  ++entering_;
  lock.unlock();
  const auto leave = [this, &lock] {
    lock.lock();
    --entering_;
    changed_.notify_all();
  };
  try {
    admit_(std::move(connection), std::move(place));
  } catch (...) {
    leave();
    throw;
  }
  leave();
}

bool isEngineSocket(const std::string& path, const std::vector<std::string>& sockets) {
  const std::string wanted = comparable(path);
  return wanted == kDockerSocket ||
         std::any_of(sockets.begin(), sockets.end(), [&wanted](const std::string& each) {
           return each.starts_with('/') && comparable(each) == wanted;
         });
}

}  // namespace hull::engine
