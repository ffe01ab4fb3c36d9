#include "daemon/network/links.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netlink/cache.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/link/bridge.h>
#include <netlink/route/route.h>
#include <netlink/socket.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "base/error.h"
#include "base/file.h"

namespace hull::engine {

namespace {

template <typename T, void (*Free)(T*)>
struct NlDeleter {
  void operator()(T* object) const { Free(object); }
};
using LinkPointer = std::unique_ptr<rtnl_link, NlDeleter<rtnl_link, rtnl_link_put>>;
using AddrPointer = std::unique_ptr<rtnl_addr, NlDeleter<rtnl_addr, rtnl_addr_put>>;
using CachePointer = std::unique_ptr<nl_cache, NlDeleter<nl_cache, nl_cache_free>>;
using NlAddrPointer = std::unique_ptr<nl_addr, NlDeleter<nl_addr, nl_addr_put>>;

void check(int result, const std::string& what) {
  if (result >= 0) return;
  const bool denied = result == -NLE_PERM || result == -NLE_NOACCESS;
  throw Error(denied ? ErrorKind::kForbidden : ErrorKind::kInternal,
              what + ": " + nl_geterror(result) +
                  (denied ? " (the engine needs to be root, or CAP_NET_ADMIN)" : ""));
}

template <typename Pointer>
Pointer checked(Pointer pointer, const char* what) {
  if (!pointer) throw Error(ErrorKind::kInternal, std::string(what) + ": out of memory");
  return pointer;
}

LinkPointer findLink(nl_sock* socket, const std::string& name) {
  rtnl_link* found = nullptr;
  const int result = rtnl_link_get_kernel(socket, 0, name.c_str(), &found);
  if (result == -NLE_OBJ_NOTFOUND || result == -NLE_NODEV) return nullptr;
  check(result, "look up interface " + name);
  return LinkPointer(found);
}

LinkPointer needLink(nl_sock* socket, const std::string& name) {
  auto link = findLink(socket, name);
  if (!link) throw Error(ErrorKind::kNotFound, "interface " + name + ": does not exist");
  return link;
}

std::optional<Subnet> subnetOf(nl_addr* address) {
  if (address == nullptr || nl_addr_get_family(address) != AF_INET) return std::nullopt;
  if (nl_addr_get_len(address) != sizeof(uint32_t)) return std::nullopt;
  uint32_t bytes = 0;
  std::memcpy(&bytes, nl_addr_get_binary_addr(address), sizeof bytes);
  Subnet subnet{ntohl(bytes), static_cast<uint8_t>(nl_addr_get_prefixlen(address))};
  subnet.network &= subnet.mask();
  return subnet;
}

void writeSetting(const std::string& path, const char* value) {
  try {
    const Fd file = openFile(path, O_WRONLY);
    writeFull(file.get(), value);
  } catch (const Error&) {
    // A host without IPv6.
  }
}

// Off: no link-local addresses, no router solicitations. On: nothing is learned from guests.
void setIpv6(const std::string& name, bool on) {
  const std::string folder = "/proc/sys/net/ipv6/conf/" + name + "/";
  writeSetting(folder + "accept_ra", "0");
  writeSetting(folder + "disable_ipv6", on ? "0" : "1");
}

LinkInfo infoOf(rtnl_link* link) {
  const char* alias = rtnl_link_get_ifalias(link);
  const unsigned flags = rtnl_link_get_flags(link);
  return {rtnl_link_get_name(link), rtnl_link_get_carrier(link) != 0, (flags & IFF_UP) != 0,
          alias ? alias : ""};
}

}  // namespace

Links::Links() : socket_(nl_socket_alloc()) {
  if (socket_ == nullptr) throw Error(ErrorKind::kInternal, "open netlink socket: out of memory");
  const int result = nl_connect(socket_, NETLINK_ROUTE);
  if (result < 0) {
    nl_socket_free(socket_);
    check(result, "open netlink socket");
  }
}

Links::~Links() {
  nl_socket_free(socket_);
}

void Links::ensureBridge(const BridgeSpec& spec) {
  const std::string what = "create bridge " + spec.name;
  if (!exists(spec.name)) {
    const auto bridge = checked(LinkPointer(rtnl_link_bridge_alloc()), "create bridge");
    rtnl_link_set_name(bridge.get(), spec.name.c_str());
    const int result = rtnl_link_add(socket_, bridge.get(), NLM_F_CREATE | NLM_F_EXCL);
    if (result == -NLE_OPNOTSUPP) {
      throw Error(ErrorKind::kNotSupported, what + ": this kernel has no bridge (modprobe bridge)");
    }
    check(result, what);
  }
  setIpv6(spec.name, spec.address6.has_value());
  const auto mac = macOf(spec.address);
  const auto wanted = checked(LinkPointer(rtnl_link_alloc()), "create bridge");
  const NlAddrPointer mac_address(nl_addr_build(AF_LLC, mac.data(), mac.size()));
  rtnl_link_set_addr(wanted.get(), mac_address.get());
  rtnl_link_set_flags(wanted.get(), IFF_UP);
  rtnl_link_set_mtu(wanted.get(), spec.mtu);
  if (!spec.alias.empty()) rtnl_link_set_ifalias(wanted.get(), spec.alias.c_str());
  change(spec.name, wanted.get());

  const int index = rtnl_link_get_ifindex(needLink(socket_, spec.name).get());
  const uint32_t bytes = htonl(spec.address);
  assign(index, &bytes, sizeof bytes, spec.prefix_length, what);
  if (spec.address6) {
    assign(index, spec.address6->data(), spec.address6->size(), spec.prefix_length6, what);
  }
}

void Links::assign(int index, const void* address, size_t size, uint8_t prefix_length,
                   const std::string& what) {
  const auto assigned = checked(AddrPointer(rtnl_addr_alloc()), "create bridge");
  const int family = size == sizeof(uint32_t) ? AF_INET : AF_INET6;
  const NlAddrPointer local(nl_addr_build(family, address, size));
  nl_addr_set_prefixlen(local.get(), prefix_length);
  rtnl_addr_set_ifindex(assigned.get(), index);
  // Nobody else can have it: no wait for an answer to the contrary.
  if (family == AF_INET6) rtnl_addr_set_flags(assigned.get(), IFA_F_NODAD);
  check(rtnl_addr_set_local(assigned.get(), local.get()), what);
  const int added = rtnl_addr_add(socket_, assigned.get(), 0);
  if (added != -NLE_EXIST) check(added, what);
}

void Links::change(const std::string& name, rtnl_link* change) {
  const auto link = needLink(socket_, name);
  check(rtnl_link_change(socket_, link.get(), change, 0), "configure interface " + name);
}

Fd Links::createTap(const std::string& name) {
  Fd tap;
  try {
    tap = openFile("/dev/net/tun", O_RDWR | O_NONBLOCK);
  } catch (const Error& error) {
    throw Error(error.kind(), std::string("create tap: ") + error.what() + " (modprobe tun)");
  }
  ifreq request{};
  if (name.size() >= sizeof request.ifr_name) {
    throw Error(ErrorKind::kInvalidArgument, "create tap " + name + ": name too long");
  }
  std::memcpy(request.ifr_name, name.c_str(), name.size() + 1);
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
  if (ioctl(tap.get(), TUNSETIFF, &request) < 0) throw sysError("create tap " + name);
  if (ioctl(tap.get(), TUNSETPERSIST, 1UL) < 0) throw sysError("create tap " + name);
  setIpv6(name, false);
  return tap;
}

void Links::putIntoBridge(const std::string& name, const std::string& bridge, uint16_t mtu) {
  const auto wanted = checked(LinkPointer(rtnl_link_alloc()), "configure interface");
  rtnl_link_set_mtu(wanted.get(), mtu);
  rtnl_link_set_flags(wanted.get(), IFF_UP);
  rtnl_link_set_master(wanted.get(), rtnl_link_get_ifindex(needLink(socket_, bridge).get()));
  change(name, wanted.get());
}

void Links::takeOutOfBridge(const std::string& name) {
  const auto wanted = checked(LinkPointer(rtnl_link_alloc()), "configure interface");
  rtnl_link_unset_flags(wanted.get(), IFF_UP);
  rtnl_link_set_master(wanted.get(), 0);
  change(name, wanted.get());
}

void Links::remove(const std::string& name) {
  const auto link = findLink(socket_, name);
  if (!link) return;
  const int result = rtnl_link_delete(socket_, link.get());
  if (result != -NLE_NODEV && result != -NLE_OBJ_NOTFOUND)
    check(result, "remove interface " + name);
}

std::optional<LinkInfo> Links::find(const std::string& name) {
  const auto link = findLink(socket_, name);
  return link ? std::optional(infoOf(link.get())) : std::nullopt;
}

std::vector<LinkInfo> Links::list(const std::string& prefix) {
  nl_cache* raw = nullptr;
  check(rtnl_link_alloc_cache(socket_, AF_UNSPEC, &raw), "list interfaces");
  const CachePointer cache(raw);
  std::vector<LinkInfo> found;
  for (nl_object* item = nl_cache_get_first(raw); item != nullptr; item = nl_cache_get_next(item)) {
    auto* link = reinterpret_cast<rtnl_link*>(item);
    const char* name = rtnl_link_get_name(link);
    if (name == nullptr || !std::string_view(name).starts_with(prefix)) continue;
    found.push_back(infoOf(link));
  }
  return found;
}

std::vector<Subnet> Links::subnetsOf(const std::string& name) {
  const int index = static_cast<int>(if_nametoindex(name.c_str()));
  std::vector<Subnet> found;
  if (index == 0) return found;
  for (const auto& [on, subnet] : addresses()) {
    if (on == index) found.push_back(subnet);
  }
  return found;
}

// With the index of the interface each is on.
std::vector<std::pair<int, Subnet>> Links::addresses() {
  nl_cache* raw = nullptr;
  check(rtnl_addr_alloc_cache(socket_, &raw), "list addresses");
  const CachePointer cache(raw);
  std::vector<std::pair<int, Subnet>> found;
  for (nl_object* item = nl_cache_get_first(raw); item != nullptr; item = nl_cache_get_next(item)) {
    auto* address = reinterpret_cast<rtnl_addr*>(item);
    const auto subnet = subnetOf(rtnl_addr_get_local(address));
    if (subnet) found.emplace_back(rtnl_addr_get_ifindex(address), *subnet);
  }
  return found;
}

std::vector<Subnet> Links::takenSubnets(const std::vector<std::string>& except) {
  std::set<int> ours;
  for (const std::string& name : except)
    ours.insert(static_cast<int>(if_nametoindex(name.c_str())));
  std::vector<Subnet> taken;
  for (const auto& [on, subnet] : addresses()) {
    if (!ours.contains(on)) taken.push_back(subnet);
  }
  nl_cache* raw = nullptr;
  check(rtnl_route_alloc_cache(socket_, AF_INET, 0, &raw), "list routes");
  const CachePointer cache(raw);
  for (nl_object* item = nl_cache_get_first(raw); item != nullptr; item = nl_cache_get_next(item)) {
    auto* route = reinterpret_cast<rtnl_route*>(item);
    const auto subnet = subnetOf(rtnl_route_get_dst(route));
    rtnl_nexthop* hop = rtnl_route_nexthop_n(route, 0);
    const bool is_ours = hop != nullptr && ours.contains(rtnl_route_nh_get_ifindex(hop));
    if (subnet && subnet->prefix_length != 0 && !is_ours) taken.push_back(*subnet);
  }
  return taken;
}

}  // namespace hull::engine
