#include "vmm/control.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"

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
  clients_.emplace(id, Client{std::move(fd), {}, {}});
}

void ControlServer::onReadable(ClientId id) {
  Client& client = clients_.at(id);
  std::array<char, 1024> buffer;
  ReceivedFds received;
  try {
    received = receiveWithFds(client.fd.get(), std::as_writable_bytes(std::span(buffer)));
  } catch (const Error&) {
    return remove(id);  // readiness is never wrong about a stream: it is broken
  }
  if (received.bytes == 0) return remove(id);
  client.input.append(buffer.data(), received.bytes);
  std::move(received.fds.begin(), received.fds.end(), std::back_inserter(client.descriptors));
  if (client.descriptors.size() > kMaxDescriptors) return remove(id);
  size_t end;
  while (clients_.contains(id) && (end = client.input.find('\n')) != std::string::npos) {
    const std::string line = client.input.substr(0, end);
    client.input.erase(0, end + 1);
    handleLine(id, line);
    if (clients_.contains(id)) client.descriptors.clear();
  }
  if (clients_.contains(id) && client.input.size() > kMaxLineBytes) remove(id);
}

void ControlServer::handleLine(ClientId id, std::string_view line) {
  const std::string command = parseCommand(line);
  if (command.empty()) return reply(id, R"({"error":"expected {\"command\":\"...\"}"})");
  handler_(id, command, line);
}

std::vector<Fd> ControlServer::takeDescriptors(ClientId client) {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return {};
  return std::exchange(found->second.descriptors, {});
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
