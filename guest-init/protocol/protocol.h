// The language between the engine on the host and hull-init in the guest, over vsock streams. Pure
// data: messages, their encoding, their bounds. Both ends distrust the other: every decode is
// bounded, and a message that does not decode completely closes the connection.
//
// Two ports, both served by hull-init, connections always opened by the host:
//   kControlPort  requests and replies in any order (matched by `request`), and events (request 0).
//                 One connection at a time; a new one replaces the old (the engine restarted).
//                 State outlives connections: exits stay listed until ForgetProcess.
//   kStreamPort   one OpenStream frame, one reply frame (Ok or Failure), then data as its kind
//   says.
//
// Frame: u32 payload size, u16 type, u16 zero, u32 request, then the payload, which starts with the
// container id. All little-endian (base/bytes.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace hull::guest {

inline constexpr uint32_t kProtocolVersion = 4;
inline constexpr uint32_t kControlPort = 1024;
inline constexpr uint32_t kStreamPort = 1025;

inline constexpr size_t kFrameHeaderBytes = 12;
inline constexpr size_t kMaxPayloadBytes = 4 << 20;
inline constexpr size_t kMaxContainerIdBytes = 64;
inline constexpr size_t kMaxStringBytes = 1 << 20;  // one argument or environment variable
inline constexpr size_t kMaxListItems = 16384;
inline constexpr uint64_t kRetainedOutputBytes =
    256 * 1024;                                      // per output stream, until acknowledged
inline constexpr const char* kMainProcess = "main";  // the process id of a container's own command
inline constexpr const char* kShareTag = "hull";     // the virtio-fs device with the host's folders

// --- requests, host → guest; the reply is Ok, Failure or the type named ---

struct Hello {  // → HelloReply
  uint32_t version = kProtocolVersion;
  int64_t wall_clock_ns = 0;  // the guest sets its clock; 0 leaves it
};

// One network card as it shall be from now on; loopback is always up.
struct ConfigureNetwork {
  std::string address;  // "172.17.0.2"; empty: the card is down and has none
  uint8_t prefix_length = 0;
  std::string gateway;  // empty: the default route does not lead here
  uint16_t mtu = 1500;
  std::string interface = "eth0";
  std::string address6 = {};  // empty: no IPv6
  uint8_t prefix_length6 = 0;
  std::string gateway6 = {};
};

// A container's /etc/hosts and /etc/resolv.conf anew, where CreateContainer wrote them.
struct WriteNameFiles {
  std::string hosts;
  std::string resolv_conf;
};

// Mounts are made shallow before deep, whatever their order here.
struct Mount {
  enum class Kind : uint8_t {
    kTmpfs = 0,
    kVirtioFs = 1,  // the entry `source` at the top of the device kShareTag
    kDisk = 2,      // the directory kDiskFolder of the ext4 disk `source` (/dev/vdX), made when new
    // A socket of the guest's named `source`, root's with mode 0660, that listens as long as the
    // container is there: its connections are the host's to take (OpenStream::Kind::kConnection).
    kSocket = 3,
  };
  Kind kind = Kind::kTmpfs;
  std::string source;
  std::string destination;  // absolute, inside the container; created when missing
  std::string options;      // tmpfs: "size=…,mode=…"; others: "ro" …
  // kVirtioFs, kDisk: when it is empty, it gets what the image has at the destination: contents,
  // owner, mode.
  bool initialise = false;
  std::string subpath = {};  // kVirtioFs, kDisk: what is mounted of it; symlinks stay inside
};
inline constexpr const char* kDiskFolder = "data";  // beside lost+found

// Lets a container use device nodes; type 'b' or 'c', anything else for both.
struct DeviceRule {
  uint8_t type = 'a';
  int32_t major_number = -1;  // negative: any
  int32_t minor_number = -1;
  uint32_t access = 0;  // 1 mknod, 2 read, 4 write (BPF_DEVCG_ACC_*)
};

// Assembles the root file system and the container's namespaces and cgroup; runs nothing.
struct CreateContainer {
  std::string root_disk;      // "/dev/vda": the image's stitched ext4, mounted read-only
  std::string writable_disk;  // "/dev/vdb": ext4 for the upper directories; empty: tmpfs
  bool read_only_root = false;
  std::string hostname;
  std::string resolv_conf;  // contents; empty leaves the image's file
  std::string hosts;        // contents of /etc/hosts; empty leaves the image's file
  std::vector<Mount> mounts;
  uint64_t shm_bytes = 64 << 20;
  std::vector<std::string> masked_paths;  // hidden behind /dev/null or an empty tmpfs
  std::vector<std::string> read_only_paths;
  uint64_t pids_limit = 0;    // 0: none
  uint64_t memory_bytes = 0;  // cgroup limit inside the VM; 0: the VM's memory is the limit
  std::vector<std::string> sysctls = {};      // "net.core.somaxconn=1024": of the whole guest
  bool init = false;                          // a reaper is PID 1, the main process its child
  bool privileged = false;                    // all devices of the guest, /sys and cgroups writable
  std::vector<std::string> devices = {};      // of the guest's kernel: "/dev/fuse"
  std::vector<DeviceRule> device_rules = {};  // empty: every device may be used
};

// Limits of a container inside the VM, at once for what runs. 0: none.
struct SetLimits {
  uint64_t pids = 0;
  uint64_t memory_bytes = 0;
  uint64_t memory_low_bytes = 0;  // reclaimed from others first
  uint64_t cpu_quota_us = 0;      // of each period
  uint64_t cpu_period_us = 100'000;
};

struct Rlimit {
  uint32_t resource = 0;  // RLIMIT_*
  uint64_t soft = 0;
  uint64_t hard = 0;
};

// What only one process sees (RUN --mount). Mount points that the root file system lacks appear in
// no layer. For a container's main process.
struct StepMount {
  enum class Kind : uint8_t {
    kTmpfs = 0,
    kTree = 1,    // what kWriteTree put under the name `source`, or "name/entry" of it
    kDisk = 2,    // a directory kept on the ext4 disk `source` (/dev/vdX), made when it is new
    kFile = 3,    // a file with the contents `source`, in memory only
    kSocket = 4,  // the socket `source` that OpenStream::Kind::kConnection was opened for
  };
  Kind kind = Kind::kTmpfs;
  std::string source;
  std::string destination;  // absolute, inside the container
  bool read_only = false;
  bool file = false;  // the destination is a file
  uint32_t uid = 0;   // kDisk when new, kFile, kSocket
  uint32_t gid = 0;
  uint16_t mode = 0755;
  std::string options;  // kTmpfs: "size=…"
};

struct StartProcess {   // → ProcessStarted, or Failure with kNotFound / kPermission / …
  std::string process;  // kMainProcess or an exec id; unique within the container
  std::vector<std::string> arguments;    // [0] is looked up in PATH of `environment`
  std::vector<std::string> environment;  // "K=V"; HOME is set from passwd when absent
  std::string working_directory;         // created (0755, root) when missing, as Docker does
  std::string user;                      // "", "name", "uid", "name:group", "uid:gid"
  std::vector<std::string> additional_groups;
  // The bounding set, and for root the effective and permitted ones; inheritable and ambient stay
  // empty, as in Docker since 20.10.14.
  uint64_t capabilities = 0;
  bool no_new_privileges = false;
  std::vector<Rlimit> rlimits;
  bool terminal = false;
  uint16_t rows = 0;
  uint16_t columns = 0;
  bool open_stdin = false;  // false: /dev/null
  std::vector<StepMount> mounts = {};
  std::string seccomp = {};  // struct sock_filter[]; empty: none
  int32_t oom_score_adj = 0;
};

struct SignalProcess {
  std::string process;
  uint32_t signal = 15;
  bool whole_container = false;  // every process of the container
};

struct ResizeTerminal {
  std::string process;
  uint16_t rows = 0;
  uint16_t columns = 0;
};

struct ForgetProcess {  // drops an exited process's record and unread output
  std::string process;
};

struct ListState {};  // → StateReply

struct ListProcesses {};  // → ProcessTable (docker top)

struct ReadUsage {};  // → Usage (docker stats)

// Build: what was written so far becomes a read-only layer below a new, empty upper directory.
// Refused while a process of the container runs. The reply is LayerSealed. Sealed layers, written
// ones (kWriteLayer) included, are numbered from 1 in the order they were made; kWriteLayer seals
// what the upper directory holds first, when it holds anything.
struct SealLayer {};

struct RemoveContainer {};  // kills what runs, unmounts

struct Pause {};  // freezes the container's cgroup
struct Resume {};

struct PowerOff {};  // kills everything, syncs, unmounts, powers off; Ok is sent first

// Before the CreateContainer of a container that runs beside `host` in its machine: parts of the
// disk `disk` become block devices of their own, and the host's /etc/hosts, /etc/resolv.conf and
// /etc/hostname will be its as well. The disk may have to grow first, which the reply waits for.
// What was prepared goes with RemoveContainer, also when there is no container yet. → SeatPrepared
struct DiskPart {
  uint64_t offset = 0;  // in bytes, multiples of 512
  uint64_t length = 0;
  bool read_only = false;
};
struct PrepareSeat {
  std::string host;
  std::string disk;  // "/dev/vdb"
  std::vector<DiskPart> parts;
};
inline constexpr size_t kMaxSeatParts = 16;

// Opens a data stream (kStreamPort only).
struct OpenStream {
  enum class Kind : uint8_t {
    // host → guest raw bytes. Half-close (shutdown, then wait for the guest to close) is the end
    // of input; closing at once, or a reset, only detaches: a later stream goes on.
    kStdin = 0,
    kStdout = 1,  // guest → host raw bytes from `offset` on; host → guest: u64 acknowledged totals.
    kStderr = 2,      //   The guest keeps what is not acknowledged (kRetainedOutputBytes, then the
                      //   process blocks). The guest half-closes at the end of output. A terminal's
                      //   output is kStdout.
    kReadLayer = 3,   // chunks: tar of the sealed layer `offset`, OCI whiteouts, sorted by path
    kWriteLayer = 4,  // chunks host → guest: tar applied as a sealed layer
    kReadArchive = 5,   // chunks: tar of `path` in the container, as docker cp wants it
    kWriteArchive = 6,  // chunks host → guest: tar unpacked into the directory `path`
    kExport = 7,        // chunks: tar of the whole merged root file system
    kReadChanges = 8,   // chunks: the upper directory as an OCI layer tar without sealing
                        // (docker commit and diff)
    kWriteTree = 9,  // chunks host → guest: tar unpacked outside the container's root under the
                     // new name `path`, for StepMount::Kind::kTree
    // chunks host → guest: tar whose directory "data" becomes what StepMount::Kind::kDisk mounts of
    // the disk `path` (/dev/vdX), all or nothing; when the disk has one already, that stays.
    kSeedDisk = 10,
    // The next connection that somebody makes to the container's socket `path`, which is made when
    // it
    // is not there (Mount::Kind::kSocket, StepMount::Kind::kSocket). The guest sends kConnected
    // when
    // there is one; from then on raw bytes both ways, the end of each way passed on. Others wait.
    kConnection = 11,
  };
  std::string process;
  Kind kind = Kind::kStdout;
  uint64_t offset = 0;
  std::string path;
};
// Chunked kinds: u32 size and that many bytes, repeated; size 0 ends, followed by a u32-sized error
// text (empty: success). For writes the guest answers the end with its own end (size 0, error).
inline constexpr uint32_t kMaxChunkBytes = 256 * 1024;
inline constexpr char kConnected = 1;  // the first byte of kConnection

// --- replies and events, guest → host ---

struct Ok {};

enum class FailureCode : uint16_t {
  kOther = 0,
  kNotFound = 1,    // no such program, container, process or path → exit code 127 for programs
  kPermission = 2,  // not executable, is a directory → exit code 126
  kInvalid = 3,     // bad user, bad working directory, bad argument
  kConflict = 4,    // exists already, or still running
};
struct Failure {
  FailureCode code = FailureCode::kOther;
  std::string message;
};

struct HelloReply {
  uint32_t version = kProtocolVersion;
  std::string kernel_release;
};

struct ProcessStarted {
  uint32_t pid = 0;  // in the guest
};

struct LayerSealed {
  uint64_t layer = 0;  // names it in OpenStream::offset
};

struct SeatPrepared {
  std::vector<std::string> devices;  // "/dev/loop0", one for each part
};

struct ProcessExited {  // event
  std::string process;
  int32_t exit_code = 0;  // 0–255; 128 + signal when killed
  bool out_of_memory = false;
};

struct ProcessState {
  std::string process;
  uint32_t pid = 0;
  bool running = false;
  int32_t exit_code = 0;
  bool out_of_memory = false;
};
struct ContainerState {
  std::string id;
  std::vector<ProcessState> processes;
};
struct StateReply {
  std::vector<ContainerState> containers;
};

struct ProcessTable {
  std::vector<std::string> titles;             // UID PID PPID C STIME TTY TIME CMD
  std::vector<std::vector<std::string>> rows;  // each as long as titles
};

struct Counter {
  std::string name;
  uint64_t value = 0;
};

struct NetworkUsage {
  std::string interface;
  uint64_t rx_bytes = 0, rx_packets = 0, rx_errors = 0, rx_dropped = 0;
  uint64_t tx_bytes = 0, tx_packets = 0, tx_errors = 0, tx_dropped = 0;
};

struct BlockUsage {
  std::string device;  // "254:0"
  uint64_t read_bytes = 0, write_bytes = 0, reads = 0, writes = 0;
};

struct Usage {  // of a container since its start
  uint64_t cpu_ns = 0, cpu_user_ns = 0, cpu_system_ns = 0;
  uint64_t cpu_periods = 0, cpu_throttled_periods = 0, cpu_throttled_ns = 0;
  uint64_t system_cpu_ns = 0;  // of all the guest's CPUs, idle time included
  uint32_t cpus = 0;
  uint64_t memory_bytes = 0, memory_peak_bytes = 0;
  uint64_t memory_limit_bytes = 0;  // of the container, or the guest's memory
  std::vector<Counter> memory;      // memory.stat
  uint64_t pids = 0, pids_limit = 0;
  std::vector<NetworkUsage> networks;
  std::vector<BlockUsage> disks;
};

using Message =
    std::variant<Hello, ConfigureNetwork, CreateContainer, StartProcess, SignalProcess,
                 ResizeTerminal, ForgetProcess, ListState, ListProcesses, SealLayer,
                 RemoveContainer, Pause, Resume, PowerOff, OpenStream, Ok, Failure, HelloReply,
                 ProcessStarted, LayerSealed, ProcessExited, StateReply, ProcessTable,
                 WriteNameFiles, SetLimits, ReadUsage, Usage, PrepareSeat, SeatPrepared>;
// The frame type is the index in Message: append only.

struct Frame {
  uint32_t request = 0;   // chosen by the host; 0 for events
  std::string container;  // empty: the whole VM
  Message message;
};

std::string encode(const Frame& frame);  // header and payload

// Header of a frame: nullopt when it can belong to no valid frame.
struct FrameHeader {
  uint32_t payload_bytes = 0;
  uint16_t type = 0;
  uint32_t request = 0;
};
std::optional<FrameHeader> decodeHeader(std::string_view bytes);  // kFrameHeaderBytes of them
std::optional<Frame> decodePayload(const FrameHeader& header, std::string_view payload);

}  // namespace hull::guest
