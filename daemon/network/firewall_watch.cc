#include "daemon/network/firewall_watch.h"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace hull::engine {

namespace {

constexpr size_t kBufferBytes = 64 * 1024;
// The first attribute of each of these messages is the table's name (NFTA_TABLE_NAME,
// NFTA_CHAIN_TABLE, NFTA_RULE_TABLE and NFTA_SET_TABLE are 1 all of them).
constexpr uint16_t kTableAttribute = NFTA_TABLE_NAME;

bool removes(uint16_t type) {
  if (type >> 8 != NFNL_SUBSYS_NFTABLES) return false;
  const auto message = static_cast<uint8_t>(type);
  return message == NFT_MSG_DELTABLE || message == NFT_MSG_DELCHAIN || message == NFT_MSG_DELRULE ||
         message == NFT_MSG_DELSET;
}

// Of the attributes behind a message's headers; every length is checked against what is there.
std::string tableOf(std::string_view attributes) {
  while (attributes.size() >= sizeof(nlattr)) {
    nlattr header;
    std::memcpy(&header, attributes.data(), sizeof header);
    if (header.nla_len < sizeof header || header.nla_len > attributes.size()) return {};
    if ((header.nla_type & NLA_TYPE_MASK) == kTableAttribute) {
      const std::string_view value =
          attributes.substr(sizeof header, header.nla_len - sizeof header);
      return std::string(value.substr(0, value.find('\0')));
    }
    attributes.remove_prefix(
        std::min<size_t>(NLA_ALIGN(static_cast<size_t>(header.nla_len)), attributes.size()));
  }
  return {};
}

}  // namespace

FirewallWatch::FirewallWatch(std::string table, std::function<void()> changed)
    : table_(std::move(table)),
      changed_(std::move(changed)),
      netlink_(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER)),
      stop_(eventfd(0, EFD_CLOEXEC)) {
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  const int group = NFNLGRP_NFTABLES;
  if (!netlink_ || !stop_ ||
      bind(netlink_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0 ||
      setsockopt(netlink_.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0) {
    throw sysError("watch packet rules");
  }
  thread_ = std::thread([this] { run(); });
}

FirewallWatch::~FirewallWatch() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t told = write(stop_.get(), &one, sizeof one);
  thread_.join();
}

void FirewallWatch::run() {
  for (;;) {
    std::array<pollfd, 2> polled{{{netlink_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}}};
    if (poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) return;
    if (polled[1].revents != 0) return;
    if (polled[0].revents != 0 && readMessages()) changed_();
  }
}

bool FirewallWatch::readMessages() {
  std::array<char, kBufferBytes> buffer;
  bool removed = false;
  for (;;) {
    const ssize_t got = recv(netlink_.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == ENOBUFS) {  // more than could be kept: it may have been among that
      removed = true;
      continue;
    }
    if (got < 0) return removed;
    std::string_view rest(buffer.data(), static_cast<size_t>(got));
    while (rest.size() >= sizeof(nlmsghdr)) {
      nlmsghdr header;
      std::memcpy(&header, rest.data(), sizeof header);
      if (header.nlmsg_len < sizeof header || header.nlmsg_len > rest.size()) break;
      const std::string_view body = rest.substr(0, header.nlmsg_len);
      const size_t headers = NLMSG_ALIGN(sizeof header) + NLMSG_ALIGN(sizeof(nfgenmsg));
      if (removes(header.nlmsg_type) && body.size() > headers) {
        removed = removed || tableOf(body.substr(headers)) == table_;
      }
      rest.remove_prefix(
          std::min<size_t>(NLMSG_ALIGN(static_cast<size_t>(header.nlmsg_len)), rest.size()));
    }
  }
}

}  // namespace hull::engine
