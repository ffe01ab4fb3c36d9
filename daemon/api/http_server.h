// Serves HTTP/1.1 on listening sockets: a thread per connection, at most `connections` of them
// (further clients wait in the socket's backlog), besides what serve() is given; bounded headers,
// deadlines against clients that never finish a request. Owned by main; run() blocks one thread,
// stop() may come from any.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "base/fd.h"
#include "daemon/api/disconnect_watch.h"
#include "daemon/api/http.h"

namespace hull::engine::api {

struct HttpLimits {
  size_t header_bytes = 256 * 1024;  // X-Registry-Config of a build names every known registry
  std::chrono::milliseconds header_timeout{30'000};  // first to last byte of a header
  std::chrono::milliseconds idle_timeout{600'000};   // between two requests
  std::chrono::milliseconds body_timeout{300'000};   // without a byte of an expected body
  size_t connections = 512;
};

// One connection until its end (http_connection.cc).
void serveConnection(Fd socket, const HttpLimits& limits, DisconnectWatch& watch,
                     const Handler& handler);

class HttpServer {
 public:
  HttpServer(std::vector<Fd> listeners, Handler handler, HttpLimits limits = {});
  ~HttpServer();

  // One more, before run(). `admit` turns an accepted connection into the one to serve (TLS), in
  // the connection's own thread; what it throws ends the connection.
  using Admit = std::function<Fd(Fd accepted)>;
  void addListener(Fd listener, Admit admit);

  // One connection more that came in another way, not counted with those of the listeners: `held`
  // is let go of when it has ended. After stop() it is closed. Any thread.
  void serve(Fd connection, std::shared_ptr<void> held);

  void run();   // until stop()
  void stop();  // refuses new connections, ends the open ones, waits for their handlers

 private:
  void accept(int listener);
  void waitForPlace();
  void begin(Fd socket, const Admit& admit, bool counted, std::shared_ptr<void> held);

  std::vector<Fd> listeners_;
  std::map<int, Admit> admits_;  // by listener
  Handler handler_;
  HttpLimits limits_;
  DisconnectWatch watch_;
  Fd wakeup_;
  std::atomic<bool> stopping_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<int> open_;  // sockets being served
  size_t counted_ = 0;  // of them, by the limit
};

}  // namespace hull::engine::api
