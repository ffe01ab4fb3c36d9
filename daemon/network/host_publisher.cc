#include "daemon/network/host_publisher.h"

#include <sys/socket.h>
#include <sys/time.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace hull::engine {

namespace {
constexpr size_t kMaxAnswerBytes = 4096;
constexpr timeval kAnswerTimeout{20, 0};
}  // namespace

HostPort publishOnHost(const std::string& socket_path, const std::string& address, uint16_t port,
                       const std::string& protocol, uint16_t target_port) {
  HostPort published;
  published.connection = connectUnix(socket_path);
  const int fd = published.connection.get();
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kAnswerTimeout, sizeof kAnswerTimeout);
  const nlohmann::json request{{"publish",
                                {{"address", address},
                                 {"port", port},
                                 {"protocol", protocol},
                                 {"target", "127.0.0.1:" + std::to_string(target_port)}}}};
  const std::string text = request.dump() + "\n";
  if (send(fd, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) {
    throw sysError("ask the machine's host for a port");
  }
  std::string line;
  for (char c = 0; c != '\n'; line += c) {
    if (line.size() >= kMaxAnswerBytes || recv(fd, &c, 1, 0) != 1) {
      throw Error(ErrorKind::kUnavailable, "the machine's host did not answer");
    }
  }
  const auto answer = nlohmann::json::parse(line, nullptr, false);
  if (!answer.is_object()) throw Error(ErrorKind::kCorrupt, "the machine's host answered nonsense");
  if (const auto error = answer.find("error"); error != answer.end()) {
    throw Error(ErrorKind::kConflict,
                error->is_string() ? error->get<std::string>() : "the machine's host refused");
  }
  published.port = port;
  if (const auto real = answer.find("port"); real != answer.end() && real->is_number_unsigned()) {
    published.port = real->get<uint16_t>();
  }
  return published;
}

}  // namespace hull::engine
