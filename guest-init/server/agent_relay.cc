#include "guest-init/server/agent_relay.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <vector>

namespace hull::guest {

namespace {

constexpr size_t kReceiveBytes = 16 * 1024;

// Sends what the socket takes now; false when the other end is gone.
bool sendSome(int socket, std::string& bytes) {
  while (!bytes.empty()) {
    const ssize_t put = send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put > 0) {
      bytes.erase(0, static_cast<size_t>(put));
    } else if (errno != EINTR) {
      return errno == EAGAIN;
    }
  }
  return true;
}

// What the socket has now, into `framer`; false at its end.
bool receiveSome(int socket, ssh_agent::Framer& framer) {
  std::array<char, kReceiveBytes> buffer;
  const ssize_t got = recv(socket, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  framer.feed({buffer.data(), static_cast<size_t>(got)});
  return got > 0;
}

}  // namespace

AgentRelay::AgentRelay(EventLoop& loop, Fd host, Fd listener, std::string path, StreamDone done)
    : loop_(loop),
      host_(std::move(host)),
      path_(std::move(path)),
      done_(std::move(done)),
      listener_(std::move(listener)) {
  loop_.add(listener_.get(), EPOLLIN, [this](uint32_t) { accept(); });
  loop_.add(host_.get(), EPOLLIN, [this](uint32_t events) { hostReady(events); });
}

AgentRelay::~AgentRelay() {
  done_ = [] {};
  finish();
}

void AgentRelay::accept() {
  Fd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket || clients_.size() >= kMaxAgentConnections) return;
  const uint64_t id = next_client_++;
  auto client = std::make_unique<Client>();
  client->socket = std::move(socket);
  loop_.add(client->socket.get(), EPOLLIN,
            [this, id](uint32_t events) { clientReady(id, events); });
  clients_[id] = std::move(client);
}

void AgentRelay::clientReady(uint64_t id, uint32_t events) {
  Client& client = *clients_.at(id);
  if ((events & EPOLLOUT) != 0 && !flush(client)) return drop(id);
  // One that waits is not watched for input: what comes then is its end.
  if (client.waits && (events & (EPOLLHUP | EPOLLERR)) != 0) return drop(id);
  if (!client.waits && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !receive(id, client))
    drop(id);
}

bool AgentRelay::receive(uint64_t id, Client& client) {
  const bool more = receiveSome(client.socket.get(), client.requests);
  takeRequest(id, client);
  return (more || client.waits) && !client.requests.broken();
}

void AgentRelay::takeRequest(uint64_t id, Client& client) {
  if (client.waits) return;
  auto request = client.requests.next();
  if (!request) return;
  client.waits = true;
  watch(client);
  waiting_.emplace_back(id, std::move(*request));
  askNext();
}

bool AgentRelay::flush(Client& client) {
  if (!sendSome(client.socket.get(), client.output)) return false;
  watch(client);
  return true;
}

void AgentRelay::watch(const Client& client) {
  loop_.modify(client.socket.get(), (client.waits ? 0u : uint32_t{EPOLLIN}) |
                                        (client.output.empty() ? 0u : uint32_t{EPOLLOUT}));
}

void AgentRelay::drop(uint64_t id) {
  const auto found = clients_.find(id);
  loop_.remove(found->second->socket.get());
  clients_.erase(found);
}

void AgentRelay::askNext() {
  while (!asking_ && !waiting_.empty()) {
    auto [id, request] = std::move(waiting_.front());
    waiting_.pop_front();
    if (!clients_.contains(id)) continue;
    asking_ = id;
    output_ += ssh_agent::framed(request);
  }
  flushHost();  // a host that is gone is told by its own event
}

bool AgentRelay::flushHost() {
  if (!sendSome(host_.get(), output_)) return false;
  loop_.modify(host_.get(), uint32_t{EPOLLIN} | (output_.empty() ? 0u : uint32_t{EPOLLOUT}));
  return true;
}

void AgentRelay::hostReady(uint32_t events) {
  if ((events & EPOLLOUT) != 0 && !flushHost()) return finish();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !receiveAnswers()) finish();
}

bool AgentRelay::receiveAnswers() {
  const bool more = receiveSome(host_.get(), answers_);
  while (const auto answer = answers_.next()) {
    if (!asking_) return false;  // to nobody
    deliver(*answer);
  }
  return more && !answers_.broken();
}

void AgentRelay::deliver(const std::string& answer) {
  const uint64_t id = *asking_;
  asking_.reset();
  if (const auto found = clients_.find(id); found != clients_.end()) {
    Client& client = *found->second;
    client.waits = false;
    client.output += ssh_agent::framed(answer);
    if (!flush(client)) {
      drop(id);
    } else {
      takeRequest(id, client);  // it may have sent several at once
    }
  }
  askNext();
}

void AgentRelay::finish() {
  if (finished_) return;
  finished_ = true;
  loop_.remove(listener_.get());
  loop_.remove(host_.get());
  for (const auto& [id, client] : clients_) loop_.remove(client->socket.get());
  clients_.clear();
  listener_.reset();
  host_.reset();
  unlink(path_.c_str());
  done_();
}

}  // namespace hull::guest
