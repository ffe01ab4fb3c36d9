// Notices when somebody takes packet rules away ("nft flush ruleset", a firewall's restart): the
// kernel tells every change of nftables to who listens (NFNLGRP_NFTABLES). Has a thread of its own,
// on which `changed` is called, also for changes of our own: whoever is called looks for itself.
#pragma once

#include <functional>
#include <string>
#include <thread>

#include "base/fd.h"

namespace hull::engine {

class FirewallWatch {
 public:
  // `table`: whose removal, or that of its chains, rules or sets, counts. Throws.
  FirewallWatch(std::string table, std::function<void()> changed);
  ~FirewallWatch();
  FirewallWatch(const FirewallWatch&) = delete;
  FirewallWatch& operator=(const FirewallWatch&) = delete;

 private:
  void run();
  bool readMessages();  // true: something of the table was removed

  const std::string table_;
  const std::function<void()> changed_;
  Fd netlink_, stop_;
  std::thread thread_;
};

}  // namespace hull::engine
