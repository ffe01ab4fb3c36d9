// What a hull-vmm process is told about its machine: pure data, shared by the engine (which writes
// it) and the VMM (which reads it). Every file is named by a descriptor number of the VMM process,
// already open: the VMM opens nothing but /dev/kvm. Serialised as JSON. Any thread.
//
//   hull-vmm --config-fd N      reads the JSON from descriptor N to its end
//
// Exit: the VMM writes one JSON object {"reason": "...", "detail": "..."} (ExitReason's text) to
// `status_fd` and ends with the exit status given at ExitReason.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hull::vmm {

inline constexpr uint32_t kMaxVcpus = 64;
inline constexpr uint64_t kMinMemoryMib = 32;
inline constexpr uint64_t kMaxMemoryMib = 1024 * 1024;
inline constexpr size_t kMaxDisks = 16;
inline constexpr size_t kMaxNets = 8;
inline constexpr size_t kMaxBlockedSubnets = 1024;  // of one network card
inline constexpr size_t kMaxSegmentsPerDisk = 1024;
inline constexpr size_t kMaxSegmentsPerGrowth = 4;
inline constexpr size_t kMaxGrownSegments = 1600;  // of a disk: each keeps a descriptor open
inline constexpr uint64_t kSectorBytes = 512;

// [disk_offset, disk_offset + length) of the disk is [file_offset, file_offset + length) of `fd`.
// All three in bytes, multiples of kSectorBytes. Segments are sorted by disk_offset and do not
// overlap; what no segment covers reads as zeros and refuses writes.
struct DiskSegment {
  int fd = -1;
  uint64_t file_offset = 0;
  uint64_t disk_offset = 0;
  uint64_t length = 0;
  bool read_only = false;  // of a writable disk; only DiskGrowth's can be
};

// A token bucket: so much a second on average, up to `burst` at once. 0 a second: no limit; burst
// 0: one second's worth.
struct Rate {
  uint64_t per_second = 0;
  uint64_t burst = 0;

  bool operator==(const Rate&) const = default;
};

// Of one direction; both hold.
struct IoLimits {
  Rate bytes;
  Rate operations;  // disks: requests; network: frames as the guest hands them over

  bool operator==(const IoLimits&) const = default;
};

struct DiskConfig {
  std::string id;  // virtio-blk serial, at most 20 bytes
  uint64_t size_bytes = 0;
  bool read_only = true;
  std::vector<DiskSegment> segments;
  IoLimits read{};
  IoLimits write{};
};

struct Ipv4Subnet {
  uint32_t address = 0;  // 127.0.0.0 is 0x7f000000
  uint8_t prefix_length = 32;

  bool operator==(const Ipv4Subnet&) const = default;
};

// One of two descriptors is the host's end of the card.
struct NetConfig {
  int tap_fd = -1;  // IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, attached to its interface
  std::array<uint8_t, 6> mac{};
  uint16_t mtu = 1500;
  IoLimits receive{};  // by the guest
  IoLimits transmit{};
  // Connected to a process that is the network (passt): frames both ways, each behind its length
  // (4 bytes, big-endian). When the process ends the guest has no network any more.
  int stream_fd = -1;
  // Not empty: the guest's ARP and IPv4 leave, nothing else, and no packet to one of these.
  std::vector<Ipv4Subnet> blocked{};
};

// The host side of virtio-vsock. `listener_fd` is a listening AF_UNIX stream socket: a client
// connects, writes "CONNECT <port>\n", reads "OK <port>\n" once the guest accepted (or
// "ERR <reason>\n" and the end), and from then on owns a byte stream to that guest port.
// shutdown(2) is half-close, both ways. Guest-initiated connections are reset.
struct VsockConfig {
  uint32_t guest_cid = 3;
  int listener_fd = -1;
};

// virtio-fs: shared folders. `socket_fd` is connected to a vhost-user-fs back end (virtiofsd),
// which gets the guest's memory; when it ends, the VM does ("error"): a guest cannot go on without.
struct FsConfig {
  std::string tag;  // what the guest mounts; 1–36 bytes
  int socket_fd = -1;
};

// Where a saved VM is ({"command":"save"} below), instead of a boot: both files as they were saved.
// The rest of the configuration must describe the same VM: memory, vCPUs, disks, networks with
// their addresses, vsock. The state file is read once. The memory file is mapped and must never
// change while the VM runs; any number of VMs may share one.
struct RestoreConfig {
  int state_fd = -1;   // for reading
  int memory_fd = -1;  // for reading
};

struct VmConfig {
  uint64_t memory_mib = 512;
  uint32_t vcpus = 1;
  int kernel_fd = -1;  // uncompressed ELF vmlinux
  int initrd_fd = -1;
  std::string command_line;       // appended to the VMM's own
  std::vector<DiskConfig> disks;  // guest: /dev/vda, /dev/vdb, … in this order
  std::vector<NetConfig> nets;    // guest: eth0, eth1, … in this order
  std::optional<VsockConfig> vsock;
  std::optional<FsConfig> fs;
  std::optional<RestoreConfig> restore;
  bool stable_cpu = false;  // only features that every host of the vendor has (kvm/cpu_model.h)
  bool large_pages =
      false;             // 2 MiB at a time from the host: faster, but memory goes in larger steps
  bool balloon = false;  // free memory of the guest goes back to the host
  int console_fd = -1;   // what the guest writes to hvc0 (bounded by the VMM); -1: dropped
  int control_fd = -1;   // listening AF_UNIX stream socket, one JSON object per line; -1: none
  int status_fd = -1;    // the exit object; -1: none
  bool early_serial = false;  // ttyS0 to console_fd from the first instruction; slow, for debugging
  // Identity after the jail: both 0 keeps the caller's.
  uint32_t uid = 0;
  uint32_t gid = 0;
};

// Both throw hull::Error(kInvalidArgument) naming the field; a parsed config is valid in itself
// (ranges, order, counts), though its descriptors are not looked at.
std::string toJson(const VmConfig& config);
VmConfig parseVmConfig(std::string_view json);

// New limits for a running VM, as a line for the control socket: {"command":"limits", …}.
struct LimitsChange {
  std::string disk;   // its id; empty: the network
  IoLimits inbound;   // read; received by the guest
  IoLimits outbound;  // written; sent by the guest
};
std::string toJson(const LimitsChange& change);
LimitsChange parseLimitsChange(std::string_view json);

// More of a writable disk of a running VM, behind what it has: {"command":"grow", …}, sent together
// with a descriptor for each segment, in their order, which are numbered so by their `fd`. Several
// may follow each other; the guest sees the new size from the first on.
struct DiskGrowth {
  std::string disk;                   // its id
  uint64_t size_bytes = 0;            // from now on; not less than before
  bool read_only = true;              // all of these segments, whose descriptors then cannot write
  std::vector<DiskSegment> segments;  // 1 to kMaxSegmentsPerGrowth, behind the disk's first size
};
std::string toJson(const DiskGrowth& growth);
DiskGrowth parseDiskGrowth(std::string_view json);

// Takes back what grew within [offset, offset + length): {"command":"cut", …}. Requests there fail
// from then on and its descriptors are closed; the disk keeps its size.
struct DiskCut {
  std::string disk;
  uint64_t offset = 0;
  uint64_t length = 0;
};
std::string toJson(const DiskCut& cut);
DiskCut parseDiskCut(std::string_view json);

enum class ExitReason {
  kPowerOff,     // "poweroff", exit status 0: the guest asked for it
  kReset,        // "reset", 0: the guest asked for a restart; the VMM never restarts by itself
  kPanic,        // "panic", 10: the guest kernel said so
  kTripleFault,  // "triple-fault", 11: the vCPU shut down without a word
  kTerminated,   // "terminated", 12: SIGTERM, or {"command":"stop"} on the control socket
  kError,        // "error", 13: the VMM or KVM failed; detail says what
};
std::string_view toString(ExitReason reason);

// What the guest side of Hull writes to the exit port (8-bit I/O port), with ioperm(2).
inline constexpr uint16_t kExitPort = 0x500;
enum class ExitPortValue : uint8_t {
  kReady = 1,  // hull-init is serving: the VMM notes the time; the VM goes on
  kPowerOff = 2,
  kReset = 3,
  kPanic = 4,
};

// Control socket, one JSON object per line each way:
//   {"command":"status"} → {"state":"running"|"paused","ready_us":N|null,"vcpus":N,"memory_mib":N,
//                           "returned_bytes":N,"disks":{"ID":N,…}}, the disks' sizes in bytes
//   {"command":"pause"|"resume"|"stop"} → {"ok":true} or {"error":"..."}
//   {"command":"limits", …} (LimitsChange) → the same
//   {"command":"grow", …} (DiskGrowth), {"command":"cut", …} (DiskCut) → the same
//   {"command":"balloon","mib":N} → the same: the guest shall give up N MiB
//   {"command":"save"}, sent together with two descriptors of regular files (SCM_RIGHTS), for state
//     and memory, both for reading and writing → {"ok":true,"state_bytes":N,"memory_bytes":N}: the
//     VM is paused, the files replaced, and it stays paused; or {"error":"..."}: it does what it
//     did before, and the files are worthless. A VM with shared folders (fs), or with
//     a disk that has grown, cannot be saved.
//     Connections over vsock end for the restored VM. Two VMs restored from the same files draw the
//     same random numbers until somebody reseeds them.

}  // namespace hull::vmm
