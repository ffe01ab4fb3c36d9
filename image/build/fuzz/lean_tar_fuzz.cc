// Any bytes as a lean tar: refused with an Error, or a tar of as many bytes as its records say.
// What the writer makes of a tar is read as that tar.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "image/build/lean_tar.h"

namespace {

using namespace hull;
using namespace hull::build;

constexpr uint64_t kLongest = 1 << 16;  // of a content that is there

// So many bytes, all the first of the digest.
class Repeated final : public Source {
 public:
  Repeated(std::byte value, uint64_t size) : value_(value), left_(size) {}
  size_t read(std::span<std::byte> into) override {
    const size_t size = std::min<uint64_t>(left_, into.size());
    std::fill_n(into.begin(), size, value_);
    left_ -= size;
    return size;
  }

 private:
  std::byte value_;
  uint64_t left_;
};

std::unique_ptr<Source> open(const Sha256& digest, uint64_t size) {
  if (size > kLongest) throw Error(ErrorKind::kConflict, "not here");
  const bool liar = digest[1] == std::byte{0xff};  // it is shorter than it should be
  return std::make_unique<Repeated>(digest[0], liar ? size - 1 : size);
}

// In pieces of changing sizes, none of them larger than asked for.
std::string expand(std::string_view bytes) {
  StringSource in(bytes);
  LeanTarSource tar(in, open);
  std::string out;
  std::string piece(997, '\0');
  for (size_t ask = 1;; ask = ask % piece.size() + 1) {
    const size_t got = tar.read(std::as_writable_bytes(std::span(piece)).first(ask));
    if (got > ask) abort();
    if (got == 0) break;
    out.append(piece, 0, got);
    if (out.size() > 64 * kLongest) throw Error(ErrorKind::kTooLarge, "enough");
  }
  if (tar.read(std::as_writable_bytes(std::span(piece))) != 0) abort();  // the end stays the end
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    expand(bytes);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kCorrupt && error.kind() != ErrorKind::kConflict &&
        error.kind() != ErrorKind::kTooLarge)
      abort();
  }
  StringSink lean;
  LeanTarWriter writer(lean);
  writer.write(bytes.substr(0, size / 2));
  Sha256 digest{};
  if (size > 0) {
    digest[0] = std::byte{data[0]};
    writer.name(digest, size);
  }
  writer.write(bytes.substr(size / 2));
  writer.finish();
  std::string meant(bytes.substr(0, size / 2));
  if (size > 0) meant.append(size, static_cast<char>(data[0]));
  meant += bytes.substr(size / 2);
  if (expand(lean.text) != meant) abort();
  return 0;
}
