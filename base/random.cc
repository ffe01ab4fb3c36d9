#include "base/random.h"

#include <sys/random.h>

#include <cerrno>
#include <vector>

#include "base/error.h"
#include "base/hex.h"

namespace hull {

void fillRandom(std::span<std::byte> into) {
  while (!into.empty()) {
    const ssize_t got = getrandom(into.data(), into.size(), 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      throw sysError("read random bytes");
    }
    into = into.subspan(static_cast<size_t>(got));
  }
}

std::string randomHex(size_t bytes) {
  std::vector<std::byte> raw(bytes);
  fillRandom(raw);
  return toHex(raw);
}

}  // namespace hull
