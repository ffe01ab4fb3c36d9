#include "image/build/testing/file_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/error.h"

namespace hull::build::testing {

FileServer::FileServer(std::map<std::string, Answer> answers)
    : answers_(std::move(answers)), listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) < 0 ||
      listen(listener_.get(), 16) < 0 ||
      getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) < 0) {
    throw sysError("listen");
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { serve(); });
}

FileServer::~FileServer() {
  shutdown(listener_.get(), SHUT_RDWR);
  thread_.join();
}

std::string FileServer::url(const std::string& path) const {
  return "http://127.0.0.1:" + std::to_string(port_) + path;
}

void FileServer::serve() {
  for (;;) {
    const Fd client(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) return;
    std::string request;
    std::byte buffer[4096];
    while (request.find("\r\n\r\n") == std::string::npos) {
      const size_t got = readSome(client.get(), buffer);
      if (got == 0) break;
      request.append(reinterpret_cast<const char*>(buffer), got);
    }
    ++requests_;
    const size_t start = request.find(' ') + 1;
    const auto found = answers_.find(request.substr(start, request.find(' ', start) - start));
    const Answer answer = found == answers_.end() ? Answer{"", "", 404} : found->second;
    writeFull(client.get(), "HTTP/1.1 " + std::to_string(answer.status) + " X\r\nContent-Length: " +
                                std::to_string(answer.body.size()) + "\r\nConnection: close\r\n" +
                                answer.headers + "\r\n" + answer.body);
  }
}

}  // namespace hull::build::testing
