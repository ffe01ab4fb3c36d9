#include "guest-init/system/network.h"

#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/error.h"
#include "base/fd.h"

namespace hull::guest {

namespace {

constexpr uint8_t kMaxPrefixLength = 32;

in_addr parseAddress(const std::string& text) {
  in_addr address{};
  if (inet_pton(AF_INET, text.c_str(), &address) != 1) {
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

void setLinkUp(const char* name, uint32_t mtu) {
  ifinfomsg link{};
  link.ifi_family = AF_UNSPEC;
  link.ifi_index = static_cast<int>(if_nametoindex(name));
  if (link.ifi_index == 0) throw Error(ErrorKind::kInternal, std::string(name) + ": no such link");
  link.ifi_flags = IFF_UP;
  link.ifi_change = IFF_UP;
  NetlinkRequest request(RTM_NEWLINK, 0, link);
  if (mtu != 0) request.attribute(IFLA_MTU, mtu);
  request.send("bring up network link");
}

void addAddress(const char* name, in_addr address, uint8_t prefix_length) {
  ifaddrmsg message{};
  message.ifa_family = AF_INET;
  message.ifa_prefixlen = prefix_length;
  message.ifa_index = if_nametoindex(name);
  NetlinkRequest request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, message);
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

void addDefaultRoute(const char* name, in_addr gateway) {
  rtmsg message{};
  message.rtm_family = AF_INET;
  message.rtm_table = RT_TABLE_MAIN;
  message.rtm_protocol = RTPROT_BOOT;
  message.rtm_scope = RT_SCOPE_UNIVERSE;
  message.rtm_type = RTN_UNICAST;
  NetlinkRequest request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, message);
  request.attribute(RTA_GATEWAY, gateway);
  request.attribute(RTA_OIF, static_cast<uint32_t>(if_nametoindex(name)));
  request.send("set default route");
}

}  // namespace

void bringUpLoopback() {
  setLinkUp("lo", 0);
}

void configureNetwork(const ConfigureNetwork& config) {
  if (config.address.empty()) return;
  if (config.prefix_length > kMaxPrefixLength) {
    throw Error(ErrorKind::kInvalidArgument, "configure network: bad prefix length");
  }
  const in_addr address = parseAddress(config.address);
  setLinkUp("eth0", config.mtu);
  addAddress("eth0", address, config.prefix_length);
  if (!config.gateway.empty()) addDefaultRoute("eth0", parseAddress(config.gateway));
}

}  // namespace hull::guest
