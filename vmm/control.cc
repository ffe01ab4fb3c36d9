#include "vmm/control.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>

namespace hull::vmm {

std::string parseCommand(std::string_view line) {
  const auto object = nlohmann::json::parse(line, nullptr, false);
  if (!object.is_object()) return {};
  const auto command = object.find("command");
  return command != object.end() && command->is_string() ? command->get<std::string>()
                                                         : std::string();
}

ControlServer::ControlServer(int listener_fd, EventLoop& loop, Handler handler)
    : listener_(listener_fd), loop_(loop), handler_(std::move(handler)) {
  setNonBlocking(listener_);
  loop_.add(listener_, EPOLLIN, [this](uint32_t) { acceptClient(); });
}

ControlServer::~ControlServer() {
  loop_.remove(listener_);
  while (!clients_.empty()) remove(clients_.begin()->first);
}

void ControlServer::acceptClient() {
  Fd fd(accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd || clients_.size() >= kMaxClients) return;
  const ClientId id = next_id_++;
  loop_.add(fd.get(), EPOLLIN, [this, id](uint32_t) { onReadable(id); });
  clients_.emplace(id, Client{std::move(fd), {}});
}

void ControlServer::onReadable(ClientId id) {
  Client& client = clients_.at(id);
  std::array<char, 1024> buffer;
  const ssize_t got = recv(client.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return remove(id);
  client.input.append(buffer.data(), static_cast<size_t>(got));
  size_t end;
  while (clients_.contains(id) && (end = client.input.find('\n')) != std::string::npos) {
    const std::string line = client.input.substr(0, end);
    client.input.erase(0, end + 1);
    handleLine(id, line);
  }
  if (clients_.contains(id) && client.input.size() > kMaxLineBytes) remove(id);
}

void ControlServer::handleLine(ClientId id, std::string_view line) {
  const std::string command = parseCommand(line);
  if (command.empty()) return reply(id, R"({"error":"expected {\"command\":\"...\"}"})");
  handler_(id, command, line);
}

void ControlServer::reply(ClientId id, std::string_view json_object) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  std::string line(json_object);
  line += '\n';
  // A client that does not read its answers is not worth waiting for.
  const ssize_t sent =
      send(found->second.fd.get(), line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(line.size())) remove(id);
}

void ControlServer::remove(ClientId id) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  loop_.remove(found->second.fd.get());
  clients_.erase(found);
}

}  // namespace hull::vmm
