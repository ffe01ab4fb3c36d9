// The TCP ports that containers have published: a listener on the host each, relayed to the guest's
// address (on the network's loop thread). Any thread.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "daemon/network/loop_thread.h"
#include "daemon/network/network.h"

namespace hull::engine {

class PublishedPorts {
 public:
  // `publisher`: as NetworkOptions::port_publisher.
  PublishedPorts(LoopThread& loop, std::string publisher);
  ~PublishedPorts();

  // All or none, in addition to what the container has published already.
  std::vector<PortMapping> publish(const std::string& container, uint32_t guest,
                                   const std::vector<PortMapping>& ports);
  void unpublish(const std::string& container);

 private:
  struct Port;
  std::unique_ptr<Port> open(uint32_t guest, const PortMapping& wanted);
  void close(std::vector<std::unique_ptr<Port>> ports);

  LoopThread& loop_;
  const std::string publisher_;
  std::mutex mutex_;
  std::map<std::string, std::vector<std::unique_ptr<Port>>> ports_;
};

}  // namespace hull::engine
