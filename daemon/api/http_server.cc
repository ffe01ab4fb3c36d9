#include "daemon/api/http_server.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "base/error.h"
#include "base/log.h"

namespace hull::engine::api {

HttpServer::HttpServer(std::vector<Fd> listeners, Handler handler, HttpLimits limits)
    : listeners_(std::move(listeners)),
      handler_(std::move(handler)),
      limits_(limits),
      wakeup_(eventfd(0, EFD_CLOEXEC)) {
  if (!wakeup_) throw sysError("create eventfd");
  for (const Fd& listener : listeners_) setNonBlocking(listener.get());
}

HttpServer::~HttpServer() {
  stop();
}

void HttpServer::addListener(Fd listener, Admit admit) {
  setNonBlocking(listener.get());
  admits_[listener.get()] = std::move(admit);
  listeners_.push_back(std::move(listener));
}

void HttpServer::run() {
  std::vector<pollfd> waiting;
  for (const Fd& listener : listeners_) waiting.push_back({listener.get(), POLLIN, 0});
  waiting.push_back({wakeup_.get(), POLLIN, 0});
  while (!stopping_) {
    if (poll(waiting.data(), waiting.size(), -1) < 0 && errno != EINTR) {
      throw sysError("wait for clients");
    }
    for (size_t i = 0; i + 1 < waiting.size() && !stopping_; ++i) {
      if (waiting[i].revents != 0) accept(waiting[i].fd);
    }
  }
}

void HttpServer::waitForPlace() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return counted_ < limits_.connections || stopping_; });
}

void HttpServer::accept(int listener) {
  waitForPlace();
  Fd socket(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  if (!socket) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
      log::warning("accept a client: " + std::string(sysError("accept").what()));
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return;
  }
  const auto found = admits_.find(listener);
  begin(std::move(socket), found == admits_.end() ? Admit() : found->second, true, {});
}

void HttpServer::serve(Fd connection, std::shared_ptr<void> held) {
  begin(std::move(connection), {}, false, std::move(held));
}

void HttpServer::begin(Fd socket, const Admit& admit, bool counted, std::shared_ptr<void> held) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return;
  const int number = socket.get();
  open_.insert(number);
  counted_ += counted;
  try {
    std::thread([this, number, admit, counted, held = std::move(held),
                 fd = socket.duplicate()]() mutable {
      try {
        if (admit) fd = admit(std::move(fd));
        serveConnection(std::move(fd), limits_, watch_, handler_);
      } catch (const std::exception& error) {
        log::debug(std::string("connection: ") + error.what());
      }
      held.reset();
      // The listed descriptor is closed under the lock, so stop() never shuts down a stranger's.
      const std::lock_guard done(mutex_);
      open_.erase(number);
      counted_ -= counted;
      close(number);
      changed_.notify_all();
    }).detach();
    (void)socket.release();
  } catch (const std::exception& error) {
    open_.erase(number);
    counted_ -= counted;
    log::warning(std::string("serve a client: ") + error.what());
  }
}

void HttpServer::stop() {
  stopping_ = true;
  const uint64_t one = 1;
  writeFull(wakeup_.get(), std::as_bytes(std::span(&one, 1)));
  std::unique_lock lock(mutex_);
  for (const int socket : open_) shutdown(socket, SHUT_RDWR);
  changed_.notify_all();
  changed_.wait(lock, [this] { return open_.empty(); });
}

}  // namespace hull::engine::api
