// The ports that containers have published: a socket on the host each, which keeps the port from
// others and relays to the guest's address (on the network's loop thread). What the packet rules
// lead to the guest before it gets here keeps its sender's address; the relay has the rest: this
// host's own connections, and everything where the rules cannot. Any thread.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "daemon/network/loop_thread.h"
#include "daemon/network/network.h"

namespace hull::engine {

// A port that cannot be published, in the words that Docker's clients know.
Error bindFailure(const std::string& container, const PortMapping& wanted, const Error& cause);

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
  std::unique_ptr<Port> openFirst(uint32_t guest, const PortMapping& wanted);
  void close(std::vector<std::unique_ptr<Port>> ports);

  LoopThread& loop_;
  const std::string publisher_;
  std::mutex mutex_;
  std::map<std::string, std::vector<std::unique_ptr<Port>>> ports_;
};

}  // namespace hull::engine
