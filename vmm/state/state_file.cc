#include "vmm/state/state_file.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>

#include "base/bytes.h"
#include "base/error.h"
#include "base/fd.h"

namespace hull::vmm {

namespace {

constexpr std::string_view kMagic = "HULL-VM\n";
constexpr size_t kHeaderBytes = 24;

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  constexpr uint32_t kPolynomial = 0xedb88320;
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) != 0 ? kPolynomial : 0);
    table[i] = value;
  }
  return table;
}();

[[noreturn]] void refuse(ErrorKind kind, const std::string& why) {
  throw Error(kind, "read the saved state: " + why);
}

}  // namespace

uint32_t crc32(std::string_view bytes) noexcept {
  uint32_t crc = UINT32_MAX;
  for (const char byte : bytes) {
    crc = kCrcTable[(crc ^ static_cast<uint8_t>(byte)) & 0xff] ^ crc >> 8;
  }
  return ~crc;
}

std::string sealState(std::string_view body) {
  ByteWriter out;
  out.raw(kMagic);
  out.u32(kStateVersion);
  out.u32(crc32(body));
  out.u64(body.size());
  out.raw(body);
  return out.take();
}

std::string_view openState(std::string_view file) {
  ByteReader in(file);
  if (in.raw(kMagic.size()) != kMagic) refuse(ErrorKind::kCorrupt, "not a saved VM");
  const uint32_t version = in.u32();
  const uint32_t sum = in.u32();
  const uint64_t bytes = in.u64();
  if (!in.ok()) refuse(ErrorKind::kCorrupt, "it is cut short");
  if (version != kStateVersion) {
    refuse(ErrorKind::kNotSupported,
           fmt::format("it has version {}, this hull-vmm reads version {} (start the VM anew)",
                       version, kStateVersion));
  }
  if (bytes != in.remaining()) {
    refuse(ErrorKind::kCorrupt, fmt::format("it says {} bytes and has {}", bytes, in.remaining()));
  }
  const std::string_view body = in.raw(in.remaining());
  if (crc32(body) != sum) refuse(ErrorKind::kCorrupt, "it is damaged (its check sum is another)");
  return body;
}

void writeStateFile(int fd, std::string_view body) {
  if (ftruncate(fd, 0) < 0) throw sysError("write the saved state");
  pwriteFull(fd, asBytes(sealState(body)), 0);
}

std::string readStateFile(int fd) {
  const uint64_t bytes = fileSize(fd);
  if (bytes > kMaxStateBytes + kHeaderBytes) refuse(ErrorKind::kCorrupt, "it is too long");
  std::string file(bytes, '\0');
  file.resize(preadFull(fd, std::as_writable_bytes(std::span(file)), 0));
  return std::string(openState(file));
}

}  // namespace hull::vmm
