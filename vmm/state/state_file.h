// The file a VM's state is saved in, beside its memory (memory_file.h). It says what it is, in
// which version, how long it is and what its bytes add up to, so that a file of another kind or
// version, a cut or a damaged one is refused before it is looked into. The sum is against accidents
// only: what is inside is taken with care all the same (saved_machine.h).
//
//   offset  bytes
//        0      8  "HULL-VM\n"
//        8      4  version of everything behind (kStateVersion)
//       12      4  CRC-32 of the body
//       16      8  bytes of the body
//       24         the body; nothing behind it
//
// Pure functions but for the last two. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hull::vmm {

// Counts up with every change of what is inside. There is one version in use at a time: a saved VM
// is for the same build of hull-vmm, or one that has not changed the format.
inline constexpr uint32_t kStateVersion = 1;
inline constexpr size_t kMaxStateBytes = size_t{8} << 20;

// CRC-32 (IEEE 802.3), the one of zlib and gzip.
uint32_t crc32(std::string_view bytes) noexcept;

std::string sealState(std::string_view body);
// The body. Throws kCorrupt, or kNotSupported for another version.
std::string_view openState(std::string_view file);

// Replaces what is in the file. Throws hull::Error.
void writeStateFile(int fd, std::string_view body);
std::string readStateFile(int fd);  // the body

}  // namespace hull::vmm
