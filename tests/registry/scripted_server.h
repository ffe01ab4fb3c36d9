// An HTTP server that answers what a test tells it to, byte for byte: lies, truncations, redirects.
// One request per connection, one connection at a time per thread. Header-only, for tests.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"

namespace hull::registry::testing {

struct SeenRequest {
  std::string method;
  std::string target;
  std::map<std::string, std::string> headers;  // lower-case names
  std::string body;

  std::string header(const std::string& name) const {
    const auto it = headers.find(name);
    return it == headers.end() ? std::string() : it->second;
  }
};

inline std::string answer(int status, const std::string& body = {},
                          const std::vector<std::string>& headers = {}) {
  std::string text = "HTTP/1.1 " + std::to_string(status) +
                     " X\r\nContent-Length: " + std::to_string(body.size()) +
                     "\r\nConnection: close\r\n";
  for (const std::string& header : headers) text += header + "\r\n";
  return text + "\r\n" + body;
}

class ScriptedServer {
 public:
  // Returns the raw bytes of the answer. Called from several threads.
  using Script = std::function<std::string(const SeenRequest&)>;

  explicit ScriptedServer(Script script) : script_(std::move(script)) {
    listener_ = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_.get(), generic, size) < 0 || ::listen(listener_.get(), 64) < 0 ||
        ::getsockname(listener_.get(), generic, &size) < 0) {
      std::abort();
    }
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { acceptAll(); });
  }

  ~ScriptedServer() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    acceptor_.join();
    for (std::thread& thread : threads_) thread.join();
  }

  std::string registry() const { return "127.0.0.1:" + std::to_string(port_); }
  std::string url() const { return "http://" + registry(); }

  std::vector<SeenRequest> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  size_t count(const std::string& method, const std::string& target_start) const {
    size_t found = 0;
    for (const SeenRequest& request : requests()) {
      found += request.method == method && request.target.starts_with(target_start);
    }
    return found;
  }

 private:
  void acceptAll() {
    while (true) {
      Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!socket) return;
      threads_.emplace_back([this, moved = std::move(socket)]() mutable { serve(moved); });
    }
  }

  static bool fill(const Fd& socket, std::string& text) {
    char buffer[16384];
    const ssize_t got = ::recv(socket.get(), buffer, sizeof buffer, 0);
    if (got <= 0) return false;
    text.append(buffer, static_cast<size_t>(got));
    return true;
  }

  void serve(Fd& socket) {
    std::string text;
    while (text.find("\r\n\r\n") == std::string::npos) {
      if (!fill(socket, text)) return;
    }
    SeenRequest request = parse(text.substr(0, text.find("\r\n\r\n")));
    request.body = text.substr(text.find("\r\n\r\n") + 4);
    const std::string length = request.header("content-length");
    while (!length.empty() && request.body.size() < std::stoul(length)) {
      if (!fill(socket, request.body)) return;
    }
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    const std::string reply = script_(request);
    size_t sent = 0;
    while (sent < reply.size()) {
      const ssize_t now =
          ::send(socket.get(), reply.data() + sent, reply.size() - sent, MSG_NOSIGNAL);
      if (now <= 0) return;
      sent += static_cast<size_t>(now);
    }
  }

  static SeenRequest parse(const std::string& head) {
    SeenRequest request;
    size_t at = head.find("\r\n");
    const std::string line = head.substr(0, at);
    request.method = line.substr(0, line.find(' '));
    const size_t target = line.find(' ') + 1;
    request.target = line.substr(target, line.rfind(' ') - target);
    while (at != std::string::npos && at < head.size()) {
      const size_t end = std::min(head.find("\r\n", at + 2), head.size());
      const std::string field = head.substr(at + 2, end - at - 2);
      const size_t colon = field.find(':');
      if (colon != std::string::npos) {
        std::string name = field.substr(0, colon);
        for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        const size_t value = field.find_first_not_of(' ', colon + 1);
        request.headers[name] = value == std::string::npos ? "" : field.substr(value);
      }
      at = end == head.size() ? std::string::npos : end;
    }
    return request;
  }

  Script script_;
  Fd listener_;
  uint16_t port_ = 0;
  std::thread acceptor_;
  std::vector<std::thread> threads_;  // the acceptor's, then the destructor's
  mutable std::mutex mutex_;
  std::vector<SeenRequest> requests_;  // guarded by mutex_
};

}  // namespace hull::registry::testing
