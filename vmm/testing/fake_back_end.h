// A vhost-user back end for tests: the other end of the front end's socket, played by a thread that
// follows the protocol, except where a test tells it not to.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/fs/vhost_user.h"

namespace hull::vmm::virtio::testing {

class FakeBackEnd {
 public:
  struct Answer {
    VhostHeader header;
    std::vector<std::byte> payload;
    bool hang_up = false;  // instead of answering
    bool silent = false;
    bool with_descriptor = false;  // sends one along that nobody asked for
  };
  // Changes an answer before it is sent.
  using Twist = std::function<void(VhostRequest, Answer&)>;

  explicit FakeBackEnd(Twist twist = nullptr) : twist_(std::move(twist)) {
    auto pair = makeSocketPair(SOCK_STREAM);
    front_ = std::move(pair.first);
    back_ = std::move(pair.second);
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeBackEnd() {
    hangUp();
    thread_.join();
  }

  int frontEnd() const { return front_.get(); }
  void hangUp() { shutdown(back_.get(), SHUT_RDWR); }
  void say(std::string_view bytes) { writeFull(back_.get(), bytes); }

  // What arrived, in order, and the descriptors by request and queue.
  std::vector<VhostRequest> requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  std::vector<std::byte> lastPayload(VhostRequest request) {
    const std::lock_guard lock(mutex_);
    return payloads_[request];
  }
  // Waits for nothing: the front end has its acknowledgement by then.
  Fd takeDescriptor(VhostRequest request, size_t index) {
    const std::lock_guard lock(mutex_);
    auto& list = descriptors_[request];
    return index < list.size() ? std::move(list[index]) : Fd();
  }

 private:
  void serve() {
    try {
      while (serveOne()) {
      }
    } catch (const std::exception&) {
      // the front end went away in the middle of something
    }
  }

  bool serveOne() {
    VhostHeader header{};
    auto got = receiveWithFds(back_.get(), std::as_writable_bytes(std::span(&header, 1)));
    if (got.bytes != sizeof header) return false;
    std::vector<std::byte> payload(header.size);
    if (readFull(back_.get(), payload) != payload.size()) return false;
    const auto request = static_cast<VhostRequest>(header.request);
    {
      const std::lock_guard lock(mutex_);
      requests_.push_back(request);
      payloads_[request] = payload;
      for (Fd& fd : got.fds) descriptors_[request].push_back(std::move(fd));
    }
    return answer(request, header, payload);
  }

  bool answer(VhostRequest request, const VhostHeader& header,
              const std::vector<std::byte>& payload) {
    std::vector<std::byte> reply(sizeof(uint64_t));
    uint64_t value = 0;
    bool wanted = (header.flags & kVhostNeedReply) != 0;
    if (request == VhostRequest::kGetFeatures) {
      value = kTransportFeatures | kVhostProtocolFeatures;
      wanted = true;
    } else if (request == VhostRequest::kGetProtocolFeatures) {
      value = kVhostMq | kVhostReplyAck | 0xff00;
      wanted = true;
    } else if (request == VhostRequest::kGetQueueNum) {
      value = 2;
      wanted = true;
    }
    std::memcpy(reply.data(), &value, sizeof value);
    if (request == VhostRequest::kGetVringBase) {
      reply = payload;
      wanted = true;
    }
    if (!wanted) return true;
    Answer answer{
        {header.request, kVhostVersion | kVhostReply, static_cast<uint32_t>(reply.size())}, reply};
    if (twist_) twist_(request, answer);
    if (answer.silent) return true;
    if (answer.hang_up) {
      hangUp();
      return false;
    }
    std::vector<std::byte> bytes(sizeof answer.header);
    std::memcpy(bytes.data(), &answer.header, sizeof answer.header);
    bytes.insert(bytes.end(), answer.payload.begin(), answer.payload.end());
    const std::array<int, 1> extra{kStandardError};
    sendWithFds(back_.get(), bytes, std::span(extra).first(answer.with_descriptor ? 1 : 0));
    return true;
  }

  static constexpr int kStandardError = 2;
  Twist twist_;
  Fd front_, back_;
  std::mutex mutex_;  // guards what follows
  std::vector<VhostRequest> requests_;
  std::map<VhostRequest, std::vector<std::byte>> payloads_;
  std::map<VhostRequest, std::vector<Fd>> descriptors_;
  std::thread thread_;
};

}  // namespace hull::vmm::virtio::testing
