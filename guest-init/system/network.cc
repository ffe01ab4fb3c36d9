#include "guest-init/system/network.h"

#include <arpa/inet.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <string>

#include "base/error.h"
#include "base/fd.h"
#include "guest-init/system/files.h"

namespace hull::guest {

namespace {

constexpr uint8_t kMaxPrefixLength = 32, kMaxPrefixLength6 = 128;

in_addr parseAddress(const std::string& text) {
  in_addr address{};
  if (inet_pton(AF_INET, text.c_str(), &address) != 1) {
    throw Error(ErrorKind::kInvalidArgument, "configure network: bad address " + text);
  }
  return address;
}

in6_addr parseAddress6(const std::string& text) {
  in6_addr address{};
  if (inet_pton(AF_INET6, text.c_str(), &address) != 1) {
    throw Error(ErrorKind::kInvalidArgument, "configure network: bad address " + text);
  }
  return address;
}

// One request and its acknowledgement (rtnetlink(7)).
class NetlinkRequest {
 public:
  template <typename Body>
  NetlinkRequest(uint16_t type, uint16_t flags, const Body& body) {
    nlmsghdr header{};
    header.nlmsg_type = type;
    header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
    append(&header, sizeof header);
    append(&body, sizeof body);
  }

  template <typename Value>
  void attribute(uint16_t type, const Value& value) {
    const rtattr header{static_cast<uint16_t>(RTA_LENGTH(sizeof value)), type};
    append(&header, sizeof header);
    append(&value, sizeof value);
  }

  void send(const char* what) {
    const auto size = static_cast<uint32_t>(bytes_.size());
    std::memcpy(bytes_.data() + offsetof(nlmsghdr, nlmsg_len), &size, sizeof size);
    const Fd netlink(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!netlink || ::send(netlink.get(), bytes_.data(), bytes_.size(), 0) < 0) {
      throw sysError(what);
    }
    struct {
      nlmsghdr header;
      nlmsgerr error;
      char rest[4096];
    } answer;
    const ssize_t got = recv(netlink.get(), &answer, sizeof answer, 0);
    if (got < static_cast<ssize_t>(sizeof answer.header + sizeof answer.error.error)) {
      throw sysError(what);
    }
    if (answer.header.nlmsg_type == NLMSG_ERROR && answer.error.error != 0 &&
        answer.error.error != -EEXIST) {
      const int cause = -answer.error.error;
      throw Error(ErrorKind::kInternal, sysError(what, cause).what());
    }
  }

 private:
  void append(const void* data, size_t size) {
    bytes_.append(static_cast<const char*>(data), size);
    bytes_.resize(NLMSG_ALIGN(bytes_.size()));
  }
  std::string bytes_;
};

unsigned indexOf(const std::string& name) {
  const unsigned index = if_nametoindex(name.c_str());
  if (index == 0) throw Error(ErrorKind::kNotFound, name + ": no such network card");
  return index;
}

void setLink(const std::string& name, bool up, uint32_t mtu) {
  ifinfomsg link{};
  link.ifi_family = AF_UNSPEC;
  link.ifi_index = static_cast<int>(indexOf(name));
  link.ifi_flags = up ? IFF_UP : 0;
  link.ifi_change = IFF_UP;
  NetlinkRequest request(RTM_NEWLINK, 0, link);
  if (mtu != 0) request.attribute(IFLA_MTU, mtu);
  request.send(up ? "bring up network link" : "take down network link");
}

ifaddrmsg addressMessage(const std::string& name, uint8_t family, uint8_t prefix_length) {
  ifaddrmsg message{};
  message.ifa_family = family;
  message.ifa_prefixlen = prefix_length;
  message.ifa_index = indexOf(name);
  return message;
}

void addAddress(const std::string& name, in_addr address, uint8_t prefix_length) {
  NetlinkRequest request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE,
                         addressMessage(name, AF_INET, prefix_length));
  request.attribute(IFA_LOCAL, address);
  request.attribute(IFA_ADDRESS, address);
  // Host bits all set (RFC 919), as every other tool would do; a /31 or /32 has none.
  if (prefix_length < 31) {
    in_addr broadcast = address;
    broadcast.s_addr |= htonl(prefix_length == 0 ? ~0U : (1U << (32 - prefix_length)) - 1);
    request.attribute(IFA_BROADCAST, broadcast);
  }
  request.send("set network address");
}

// The engine sees to it that nobody else has it: no duplicate address detection to wait for.
void addAddress6(const std::string& name, const in6_addr& address, uint8_t prefix_length) {
  ifaddrmsg message = addressMessage(name, AF_INET6, prefix_length);
  message.ifa_flags = IFA_F_NODAD;
  NetlinkRequest request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, message);
  request.attribute(IFA_LOCAL, address);
  request.attribute(IFA_ADDRESS, address);
  request.send("set network address");
}

template <typename Address>
void addDefaultRoute(const std::string& name, uint8_t family, const Address& gateway) {
  rtmsg message{};
  message.rtm_family = family;
  message.rtm_table = RT_TABLE_MAIN;
  message.rtm_protocol = RTPROT_BOOT;
  message.rtm_scope = RT_SCOPE_UNIVERSE;
  message.rtm_type = RTN_UNICAST;
  NetlinkRequest request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, message);
  request.attribute(RTA_GATEWAY, gateway);
  request.attribute(RTA_OIF, static_cast<uint32_t>(indexOf(name)));
  request.send("set default route");
}

// Nothing is learned from what other guests say, and without IPv6 there are no such addresses.
void setIpv6(const std::string& name, bool on) {
  const std::string folder = "/proc/sys/net/ipv6/conf/" + name + "/";
  writeControl(folder + "accept_ra", "0");
  writeControl(folder + "disable_ipv6", on ? "0" : "1");
}

// What a card has from us. Down, a card loses its IPv6 addresses and all routes; the IPv4 address
// has to be taken away.
void clear(const std::string& name, const ConfigureNetwork& before) {
  setLink(name, false, 0);
  if (before.address.empty()) return;
  NetlinkRequest request(RTM_DELADDR, 0, addressMessage(name, AF_INET, before.prefix_length));
  request.attribute(IFA_LOCAL, parseAddress(before.address));
  request.send("take away network address");
}

}  // namespace

void bringUpLoopback() {
  setLink("lo", true, 0);
}

void configureNetwork(const ConfigureNetwork& config) {
  // By card; the event loop's thread only.
  static std::map<std::string, ConfigureNetwork> configured;
  if (config.interface.empty() || config.interface.size() >= IFNAMSIZ ||
      config.interface.find('/') != std::string::npos) {
    throw Error(ErrorKind::kInvalidArgument, "configure network: bad card name");
  }
  if (config.prefix_length > kMaxPrefixLength || config.prefix_length6 > kMaxPrefixLength6) {
    throw Error(ErrorKind::kInvalidArgument, "configure network: bad prefix length");
  }
  const bool wanted = !config.address.empty();
  if (wanted) parseAddress(config.address);  // before anything is changed
  if (const auto before = configured.find(config.interface); before != configured.end()) {
    clear(config.interface, before->second);
    configured.erase(before);
  }
  if (!wanted) return;
  const in_addr address = parseAddress(config.address);
  setIpv6(config.interface, !config.address6.empty());
  configured[config.interface] = config;
  addAddress(config.interface, address, config.prefix_length);
  setLink(config.interface, true, config.mtu);
  if (!config.gateway.empty()) {
    addDefaultRoute(config.interface, AF_INET, parseAddress(config.gateway));
  }
  if (config.address6.empty()) return;
  addAddress6(config.interface, parseAddress6(config.address6), config.prefix_length6);
  if (!config.gateway6.empty()) {
    addDefaultRoute(config.interface, AF_INET6, parseAddress6(config.gateway6));
  }
}

}  // namespace hull::guest
