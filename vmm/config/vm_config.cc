#include "vmm/config/vm_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "vmm/config/fields.h"

namespace hull::vmm {

using namespace config;

namespace {

constexpr size_t kMaxDiskIdBytes = 20;         // virtio 1.2 §5.2.6: VIRTIO_BLK_ID_BYTES
constexpr size_t kMaxFsTagBytes = 36;          // virtio 1.2 §5.11.4
constexpr size_t kMaxCommandLineBytes = 1536;  // the kernel's 2048 less the VMM's own part
constexpr uint16_t kMinMtu = 68;               // RFC 791
constexpr uint16_t kMaxMtu = 65521;            // what fits a 64 KiB frame with its header
constexpr uint32_t kFirstGuestCid = 3;         // virtio 1.2 §5.10.4: 0–2 are reserved

std::string macText(const std::array<uint8_t, 6>& mac) {
  return fmt::format("{:02x}", fmt::join(mac, ":"));
}

std::array<uint8_t, 6> parseMac(const std::string& text, const std::string& field) {
  constexpr size_t kMacTextBytes = 17;
  std::array<uint8_t, 6> mac{};
  const auto digit = [&](char c) -> uint8_t {
    if (c >= '0' && c <= '9') return static_cast<uint8_t>(c - '0');
    if (c >= 'a' && c <= 'f') return static_cast<uint8_t>(c - 'a' + 10);
    if (c >= 'A' && c <= 'F') return static_cast<uint8_t>(c - 'A' + 10);
    fail(field, "not a MAC address");
  };
  if (text.size() != kMacTextBytes) fail(field, "not a MAC address");
  for (size_t i = 0; i < mac.size(); ++i) {
    if (i > 0 && text[i * 3 - 1] != ':') fail(field, "not a MAC address");
    mac[i] = static_cast<uint8_t>(digit(text[i * 3]) << 4 | digit(text[i * 3 + 1]));
  }
  return mac;
}

void checkDisk(const DiskConfig& disk, const std::string& field) {
  if (disk.id.size() > kMaxDiskIdBytes) fail(field + ".id", "longer than 20 bytes");
  if (!std::all_of(disk.id.begin(), disk.id.end(), [](char c) { return c > 0x20 && c < 0x7f; })) {
    fail(field + ".id", "not printable ASCII");
  }
  if (disk.size_bytes == 0 || disk.size_bytes % kSectorBytes != 0 ||
      disk.size_bytes > kMaxDiskBytes) {
    fail(field + ".size_bytes", "not a positive multiple of 512 up to 1 EiB");
  }
  if (disk.segments.size() > kMaxSegmentsPerDisk) fail(field + ".segments", "too many");
  checkSegments(disk.segments, disk.size_bytes, field + ".segments");
}

void checkNet(const NetConfig& net, const std::string& field) {
  if (net.tap_fd >= 0 && net.stream_fd >= 0) fail(field, "has both tap_fd and stream_fd");
  if (net.stream_fd < 0) requireFd(net.tap_fd, field + ".tap_fd");
  for (const Ipv4Subnet& subnet : net.blocked) {
    if (subnet.prefix_length > 32) fail(field + ".blocked", "a prefix longer than 32 bits");
  }
  constexpr uint8_t kMulticastBit = 1;
  if ((net.mac[0] & kMulticastBit) != 0) fail(field + ".mac", "a multicast address");
  if (net.mac == std::array<uint8_t, 6>{}) fail(field + ".mac", "all zeros");
  if (net.mtu < kMinMtu || net.mtu > kMaxMtu) fail(field + ".mtu", "not between 68 and 65521");
}

void check(const VmConfig& config) {
  if (config.memory_mib < kMinMemoryMib || config.memory_mib > kMaxMemoryMib) {
    fail("memory_mib", fmt::format("not between {} and {}", kMinMemoryMib, kMaxMemoryMib));
  }
  if (config.vcpus < 1 || config.vcpus > kMaxVcpus) {
    fail("vcpus", fmt::format("not between 1 and {}", kMaxVcpus));
  }
  requireFd(config.kernel_fd, "kernel_fd");
  if (config.command_line.size() > kMaxCommandLineBytes) {
    fail("command_line", fmt::format("longer than {} bytes", kMaxCommandLineBytes));
  }
  if (config.command_line.find_first_of(std::string_view("\0\n", 2)) != std::string::npos) {
    fail("command_line", "contains a line feed or NUL");
  }
  if (config.disks.size() > kMaxDisks) fail("disks", fmt::format("more than {}", kMaxDisks));
  for (size_t i = 0; i < config.disks.size(); ++i) {
    checkDisk(config.disks[i], fmt::format("disks[{}]", i));
  }
  if (config.nets.size() > kMaxNets) fail("nets", fmt::format("more than {}", kMaxNets));
  for (size_t i = 0; i < config.nets.size(); ++i) {
    checkNet(config.nets[i], fmt::format("nets[{}]", i));
  }
  if (config.vsock) {
    requireFd(config.vsock->listener_fd, "vsock.listener_fd");
    if (config.vsock->guest_cid < kFirstGuestCid || config.vsock->guest_cid == UINT32_MAX) {
      fail("vsock.guest_cid", "reserved");
    }
  }
  if (config.fs) {
    requireFd(config.fs->socket_fd, "fs.socket_fd");
    if (config.fs->tag.empty() || config.fs->tag.size() > kMaxFsTagBytes) {
      fail("fs.tag", "not 1 to 36 bytes");
    }
  }
  if (config.restore) {
    requireFd(config.restore->state_fd, "restore.state_fd");
    requireFd(config.restore->memory_fd, "restore.memory_fd");
    if (config.fs) fail("restore", "a VM with shared folders (fs) cannot have been saved");
  }
  if (config.early_serial && config.console_fd < 0) fail("early_serial", "needs console_fd");
  constexpr uint32_t kNobody = UINT32_MAX;  // setuid(-1) means "unchanged"
  if (config.uid == kNobody || config.gid == kNobody) fail("uid/gid", "out of range");
  if ((config.uid == 0) != (config.gid == 0)) fail("uid/gid", "give both or neither");
}

DiskConfig diskOf(const json& value, const std::string& path) {
  DiskConfig disk;
  Fields fields(value, path);
  fields.string("id", disk.id);
  fields.number("size_bytes", disk.size_bytes);
  fields.boolean("read_only", disk.read_only);
  if (const json* list = fields.array("segments", kMaxSegmentsPerDisk)) {
    for (size_t i = 0; i < list->size(); ++i) {
      disk.segments.push_back(segmentOf((*list)[i], fmt::format("{}.segments[{}]", path, i)));
    }
  }
  limits(fields, "read", disk.read);
  limits(fields, "write", disk.write);
  fields.finish();
  return disk;
}

NetConfig netOf(const json& value, const std::string& path) {
  NetConfig net;
  Fields fields(value, path);
  fields.number("tap_fd", net.tap_fd);
  fields.number("stream_fd", net.stream_fd);
  if (const json* list = fields.array("blocked", kMaxBlockedSubnets)) {
    for (size_t i = 0; i < list->size(); ++i) {
      Fields inner((*list)[i], fmt::format("{}.blocked[{}]", path, i));
      Ipv4Subnet& subnet = net.blocked.emplace_back();
      inner.number("address", subnet.address);
      inner.number("prefix_length", subnet.prefix_length);
      inner.finish();
    }
  }
  std::string mac;
  fields.string("mac", mac);
  net.mac = parseMac(mac, path + ".mac");
  fields.number("mtu", net.mtu);
  limits(fields, "receive", net.receive);
  limits(fields, "transmit", net.transmit);
  fields.finish();
  return net;
}

VsockConfig vsockOf(const json& value) {
  VsockConfig vsock;
  Fields fields(value, "vsock");
  fields.number("guest_cid", vsock.guest_cid);
  fields.number("listener_fd", vsock.listener_fd);
  fields.finish();
  return vsock;
}

FsConfig fsOf(const json& value) {
  FsConfig fs;
  Fields fields(value, "fs");
  fields.string("tag", fs.tag);
  fields.number("socket_fd", fs.socket_fd);
  fields.finish();
  return fs;
}

RestoreConfig restoreOf(const json& value) {
  RestoreConfig restore;
  Fields fields(value, "restore");
  fields.number("state_fd", restore.state_fd);
  fields.number("memory_fd", restore.memory_fd);
  fields.finish();
  return restore;
}

VmConfig configOf(const json& document) {
  VmConfig config;
  Fields fields(document, "");
  fields.number("memory_mib", config.memory_mib);
  fields.number("vcpus", config.vcpus);
  fields.number("kernel_fd", config.kernel_fd);
  fields.number("initrd_fd", config.initrd_fd);
  fields.string("command_line", config.command_line);
  if (const json* list = fields.array("disks", kMaxDisks)) {
    for (size_t i = 0; i < list->size(); ++i) {
      config.disks.push_back(diskOf((*list)[i], fmt::format("disks[{}]", i)));
    }
  }
  if (const json* list = fields.array("nets", kMaxNets)) {
    for (size_t i = 0; i < list->size(); ++i) {
      config.nets.push_back(netOf((*list)[i], fmt::format("nets[{}]", i)));
    }
  }
  if (const json* vsock = fields.find("vsock")) config.vsock = vsockOf(*vsock);
  if (const json* fs = fields.find("fs")) config.fs = fsOf(*fs);
  if (const json* restore = fields.find("restore")) config.restore = restoreOf(*restore);
  fields.boolean("stable_cpu", config.stable_cpu);
  fields.boolean("large_pages", config.large_pages);
  fields.boolean("balloon", config.balloon);
  fields.number("console_fd", config.console_fd);
  fields.number("control_fd", config.control_fd);
  fields.number("status_fd", config.status_fd);
  fields.boolean("early_serial", config.early_serial);
  fields.number("uid", config.uid);
  fields.number("gid", config.gid);
  fields.finish();
  return config;
}

}  // namespace

std::string toJson(const VmConfig& config) {
  check(config);
  json document{{"memory_mib", config.memory_mib},
                {"vcpus", config.vcpus},
                {"kernel_fd", config.kernel_fd},
                {"initrd_fd", config.initrd_fd},
                {"command_line", config.command_line},
                {"disks", json::array()},
                {"nets", json::array()},
                {"stable_cpu", config.stable_cpu},
                {"large_pages", config.large_pages},
                {"balloon", config.balloon},
                {"console_fd", config.console_fd},
                {"control_fd", config.control_fd},
                {"status_fd", config.status_fd},
                {"early_serial", config.early_serial},
                {"uid", config.uid},
                {"gid", config.gid}};
  for (const auto& disk : config.disks) {
    json segments = json::array();
    for (const auto& segment : disk.segments) segments.push_back(jsonOf(segment));
    document["disks"].push_back({{"id", disk.id},
                                 {"size_bytes", disk.size_bytes},
                                 {"read_only", disk.read_only},
                                 {"read", jsonOf(disk.read)},
                                 {"write", jsonOf(disk.write)},
                                 {"segments", std::move(segments)}});
  }
  for (const auto& net : config.nets) {
    json blocked = json::array();
    for (const Ipv4Subnet& subnet : net.blocked) {
      blocked.push_back({{"address", subnet.address}, {"prefix_length", subnet.prefix_length}});
    }
    document["nets"].push_back({{"tap_fd", net.tap_fd},
                                {"stream_fd", net.stream_fd},
                                {"blocked", std::move(blocked)},
                                {"mac", macText(net.mac)},
                                {"mtu", net.mtu},
                                {"receive", jsonOf(net.receive)},
                                {"transmit", jsonOf(net.transmit)}});
  }
  if (config.vsock) {
    document["vsock"] = {{"guest_cid", config.vsock->guest_cid},
                         {"listener_fd", config.vsock->listener_fd}};
  }
  if (config.fs) {
    document["fs"] = {{"tag", config.fs->tag}, {"socket_fd", config.fs->socket_fd}};
  }
  if (config.restore) {
    document["restore"] = {{"state_fd", config.restore->state_fd},
                           {"memory_fd", config.restore->memory_fd}};
  }
  try {
    return document.dump();
  } catch (const json::exception&) {
    fail("command_line, fs.tag or disks.id", "not UTF-8");
  }
}

VmConfig parseVmConfig(std::string_view text) {
  VmConfig config = configOf(parseDocument(text));
  check(config);
  return config;
}

std::string_view toString(ExitReason reason) {
  switch (reason) {
    case ExitReason::kPowerOff:
      return "poweroff";
    case ExitReason::kReset:
      return "reset";
    case ExitReason::kPanic:
      return "panic";
    case ExitReason::kTripleFault:
      return "triple-fault";
    case ExitReason::kTerminated:
      return "terminated";
    case ExitReason::kError:
      return "error";
  }
  return "error";
}

}  // namespace hull::vmm
