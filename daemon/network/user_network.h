// Network of an engine without root: no bridges and no taps, but a passt process for each virtual
// machine (passt.h), which the VM's launch starts and which ends with it. There is the default
// network alone, and every container is alone in it: all have the same address, none reaches
// another but through published ports. What may not be reached from a container is dropped by its
// VMM (Attachment::blocked). Nothing of the host is changed. Any thread: a mutex guards the ports.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "daemon/network/network.h"

namespace hull::engine {

class UserNetwork final : public Network {
 public:
  // What the host has, for tests to say otherwise.
  struct Host {
    std::function<std::vector<Subnet>()> subnets;      // of its interfaces
    std::function<std::vector<uint32_t>()> addresses;  // its own, loopback left out
    std::function<uint16_t()> first_user_port;         // net.ipv4.ip_unprivileged_port_start
  };
  static Host thisHost();

  // `options.passt` is the program.
  explicit UserNetwork(const NetworkOptions& options, Host host = thisHost());

  void restore(const std::vector<NetworkSpec>& networks) override;
  NetworkSpec add(NetworkSpec wanted) override;
  void drop(const std::string&) override {}
  std::optional<NetworkSpec> find(const std::string& id) const override;

  // The published ports are taken here: passt must be told at its start.
  Attachment attach(const std::string& container_id, const EndpointSpec& endpoint,
                    bool running) override;
  std::optional<Attachment> addSpare(const std::string&) override { return std::nullopt; }
  std::optional<Attachment> disconnect(const std::string& container_id,
                                       const std::string& network) override;
  std::vector<Attachment> reattach(const std::string& container_id) override;
  void detach(const std::string& container_id) override;
  void rename(const std::string&, const std::string&, const std::string&) override {}

  std::vector<PortMapping> publish(const std::string& container_id,
                                   const std::vector<PortMapping>& ports) override;
  void unpublish(const std::string&) override {}  // they end with passt
  void shutdown() override {}

 private:
  Attachment attachmentFor(const std::string& container_id, const EndpointSpec& endpoint) const;
  std::vector<PortMapping> take(const std::string& container_id,
                                const std::vector<PortMapping>& ports);
  bool taken(const PortMapping& port) const;

  const std::string passt_;
  const Host host_;
  std::vector<Subnet> blocked_;
  NetworkSpec network_;
  mutable std::mutex mutex_;
  std::map<std::string, std::vector<PortMapping>> ports_;  // by container
};

}  // namespace hull::engine
