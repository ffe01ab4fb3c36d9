// KVM's structures that end in an array. <linux/kvm.h> declares them with a macro that in C++ adds
// a byte, which makes both the layout and the ioctl numbers (they contain the size) wrong; so they
// are restated here: a count, padding, and the entries behind. Any thread.
#pragma once

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace hull::vmm {

struct KvmListHeader {
  uint32_t count;
  uint32_t padding;
};
static_assert(sizeof(KvmListHeader) == 8);

// KVM_GET_MSR_INDEX_LIST: a count alone, and 32-bit indices behind.
struct KvmIndexListHeader {
  uint32_t count;
};
inline constexpr unsigned long kKvmGetMsrIndexList = _IOWR(KVMIO, 0x02, KvmIndexListHeader);

// struct kvm_xsave without its open end: there is none while no dynamic feature (AMX) is asked for.
struct KvmXsave {
  uint32_t region[1024];
};
static_assert(sizeof(KvmXsave) == 4096);
inline constexpr unsigned long kKvmGetXsave = _IOR(KVMIO, 0xa4, KvmXsave);
inline constexpr unsigned long kKvmSetXsave = _IOW(KVMIO, 0xa5, KvmXsave);

inline constexpr unsigned long kKvmGetSupportedCpuid = _IOWR(KVMIO, 0x05, KvmListHeader);
inline constexpr unsigned long kKvmSetCpuid2 = _IOW(KVMIO, 0x90, KvmListHeader);
inline constexpr unsigned long kKvmGetMsrs = _IOWR(KVMIO, 0x88, KvmListHeader);
inline constexpr unsigned long kKvmSetMsrs = _IOW(KVMIO, 0x89, KvmListHeader);

template <typename Entry>
class KvmList {
 public:
  explicit KvmList(size_t capacity) : bytes_(sizeof(KvmListHeader) + capacity * sizeof(Entry)) {
    setCount(capacity);
  }
  explicit KvmList(std::span<const Entry> entries) : KvmList(entries.size()) {
    std::memcpy(bytes_.data() + sizeof(KvmListHeader), entries.data(), entries.size_bytes());
  }
  void* data() { return bytes_.data(); }

  std::vector<Entry> entries() const {
    KvmListHeader header;
    std::memcpy(&header, bytes_.data(), sizeof header);
    std::vector<Entry> result(header.count);
    std::memcpy(result.data(), bytes_.data() + sizeof header, result.size() * sizeof(Entry));
    return result;
  }

 private:
  void setCount(size_t count) {
    const KvmListHeader header{static_cast<uint32_t>(count), 0};
    std::memcpy(bytes_.data(), &header, sizeof header);
  }
  std::vector<std::byte> bytes_;  // from operator new: aligned for anything in these lists
};

}  // namespace hull::vmm
