// A container's virtual machine as the engine sees it: a hull-vmm process, the files it runs on,
// and the connection to hull-init inside. Owned by one container (or one build stage). Calls block
// and may come from any thread; events arrive on a thread of the Vm's own.
//
// The VM's folder (VmSpec::directory) holds everything needed to find it again after the engine
// was killed: vsock.sock and control.sock (bound by the engine, held open by the VMM), vmm.pid,
// size (memory and CPUs), status.json (written by the VMM at its end), console.log, writable.ext4;
// with shares also share.pid (the process that serves them; it ends with the VMM, and the VM ends
// with it) and share.log; without root passt.pid (the process that is its network; it ends with the
// VMM, which goes on without) and passt.log.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/fd.h"
#include "base/stream.h"
#include "daemon/vm/quota.h"
#include "guest-init/protocol/protocol.h"
#include "image/store/image_store.h"
#include "vmm/config/vm_config.h"

namespace hull::engine {

// Programs and files every VM needs; found once at start-up, missing ones named with a next step.
struct VmResources {
  std::string vmm_program;  // hull-vmm
  std::string kernel;       // vmlinux
  std::string initramfs;    // hull-initramfs
  // Where templates of writable disks are kept: a path, each size adds "-<MiB>"; made on first use.
  std::string template_disk;
  // hull-share and what it becomes; needed for VMs with shares only.
  std::string share_program;
  std::string virtiofsd_program;
  uint32_t vmm_uid_base = 0;  // each VM gets a uid of its own from here; 0: keep the engine's
  std::chrono::milliseconds boot_timeout = std::chrono::seconds(60);
  std::shared_ptr<Quota> quota = std::make_shared<Quota>(Quota::Limits{});  // of all its VMs
};

struct VmNetwork {
  Fd tap;
  std::array<uint8_t, 6> mac{};
  uint16_t mtu = 1500;
  // Instead of a tap: the command line of the process that is the network (passt), but for its
  // "--fd N". Of one card at most.
  std::vector<std::string> passt;
  std::vector<vmm::Ipv4Subnet> blocked;  // the guest reaches none of them
};

// How fast the guest may read and write each of its two disks, root and writable.
struct DiskLimits {
  vmm::IoLimits read;
  vmm::IoLimits write;

  bool operator==(const DiskLimits&) const = default;
};

// A folder or file of the host that the guest sees through virtio-fs.
struct VmShare {
  std::string source;      // absolute
  std::string root = "/";  // the source's symlinks do not leave it
  bool read_only = false;
  bool recursive = true;            // with what is mounted below
  bool recursive_read_only = true;  // that as well
  bool slave = false;               // and with what the host mounts there later
};

struct VmSpec {
  // Exists. A writable.ext4 in it is used again (a container that is started once more); what else
  // an ended VM left there is replaced.
  std::string directory;
  uint64_t memory_mib = 512;
  uint32_t vcpus = 1;
  image::RootDisk root;
  uint64_t writable_bytes = uint64_t{10} << 30;  // sparse; 0: no writable disk
  DiskLimits disk_limits;
  std::vector<std::string> extra_disks;  // files, opened for writing: /dev/vdc, /dev/vdd, …
  std::vector<VmShare> shares;      // guest: entries "0", "1", … of the device guest::kShareTag
  std::vector<VmNetwork> networks;  // guest: eth0, eth1, … in this order
};

// A disk that a running VM gets in addition, at the end of its writable disk: for a container that
// joins it (seat.h).
struct AddedDisk {
  image::RootDisk disk;
  bool read_only = true;
};

struct VmExit {
  std::string reason;  // vmm::ExitReason's text, or "killed" when the VMM left no status
  std::string detail;

  bool operator==(const VmExit&) const = default;
};

class Vm {
 public:
  using EventFunction =
      std::function<void(const std::string& container, const guest::ProcessExited&)>;
  using ExitFunction = std::function<void(const VmExit&)>;

  // Boots and returns once hull-init answered Hello (the clock is set). On failure everything of
  // the VM is gone again and the error says what the VMM and the console said last.
  static std::unique_ptr<Vm> start(const VmResources& resources, VmSpec spec);
  // Finds a VM that an earlier engine process started; nullptr when it has ended meanwhile (its
  // exit is then in lastExit(directory)).
  static std::unique_ptr<Vm> adopt(const VmResources& resources, const std::string& directory);
  static std::optional<VmExit> lastExit(const std::string& directory);

  virtual ~Vm() = default;  // kills the VMM if it still runs

  // The guest's disks, in the order VmSpec gave them.
  static constexpr const char* kRootDisk = "/dev/vda";
  static constexpr const char* kWritableDisk = "/dev/vdb";
  // The nth of VmSpec::extra_disks, behind a root and a writable disk.
  static constexpr size_t kMaxExtraDisks = 14;
  static std::string extraDisk(size_t n) {
    return std::string("/dev/vd") + static_cast<char>('c' + n);
  }

  // For another container in this machine: as below, but of that one alone, which the function
  // given to onProcessExit then does not hear of. An exit is told once to each function.
  virtual void listen(const std::string& container, EventFunction exited, ExitFunction ended) = 0;
  virtual void stopListening(const std::string& container) = 0;  // what is undelivered is dropped

  // Where on kWritableDisk they are, in their order, and the whole of it, to be given back. The
  // guest may not have noticed yet (guest::PrepareSeat waits).
  struct AddedDisks {
    uint64_t offset = 0;
    uint64_t length = 0;
    std::vector<guest::DiskPart> parts;
  };
  virtual AddedDisks addDisks(const std::vector<AddedDisk>& disks) = 0;
  virtual void removeDisks(uint64_t offset, uint64_t length) = 0;  // of addDisks

  // Set once, before the first process is started. Both are called on a thread of the Vm's own, in
  // order; they may call anything of the Vm, also stop it. What happened before they were set is
  // delivered then.
  virtual void onProcessExit(EventFunction function) = 0;
  virtual void onExit(ExitFunction function) = 0;  // once; at once when it has ended already

  // One request, its reply. A Failure reply becomes a hull::Error of the matching kind whose
  // message is the guest's. Throws kUnavailable when the VM is gone, kTimeout.
  virtual guest::Message request(const std::string& container, guest::Message message,
                                 std::chrono::milliseconds timeout = std::chrono::seconds(60)) = 0;

  // As request(), for a reply of one type; anything else is kCorrupt.
  template <typename Reply>
  Reply requestFor(const std::string& container, guest::Message message,
                   std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
    guest::Message reply = request(container, std::move(message), timeout);
    if (auto* wanted = std::get_if<Reply>(&reply)) return std::move(*wanted);
    throw Error(ErrorKind::kCorrupt, "the guest answered with the wrong kind of message");
  }

  // A data stream, past its handshake: blocking socket, raw or chunked as its kind says.
  virtual Fd openStream(const std::string& container, const guest::OpenStream& stream) = 0;

  // Other limits for the disks, at once. The VM has a writable disk.
  virtual void setDiskLimits(const DiskLimits& limits) = 0;

  virtual void pause() = 0;  // whole VM
  virtual void resume() = 0;
  // Orderly power-off, then SIGKILL after `grace`. Returns when the VMM is gone.
  virtual VmExit stop(std::chrono::milliseconds grace) = 0;
  virtual bool running() const = 0;
  virtual pid_t vmmPid() const = 0;

  // Leaves the VM running for a later engine process to adopt.
  virtual void abandon() = 0;
};

inline constexpr size_t kMaxChunkErrorBytes = 64 * 1024;  // the guest's verdict on a stream

// Chunked streams (guest::OpenStream): as a Source that ends at the end marker and throws what the
// guest reported, and as a Sink whose finish() waits for the guest's verdict.
class ChunkSource final : public Source {
 public:
  explicit ChunkSource(Fd socket) : socket_(std::move(socket)) {}
  size_t read(std::span<std::byte> into) override;

 private:
  Fd socket_;
  uint32_t left_in_chunk_ = 0;
  bool ended_ = false;
};

class ChunkSink final : public Sink {
 public:
  explicit ChunkSink(Fd socket) : socket_(std::move(socket)) {}
  using Sink::write;
  void write(std::span<const std::byte> bytes) override;
  void finish();  // throws what the guest reported

 private:
  Fd socket_;
};

}  // namespace hull::engine
