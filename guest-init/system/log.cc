#include "guest-init/system/log.h"

#include <unistd.h>

#include <string>

namespace hull::guest {

namespace {
constexpr size_t kMaxLineBytes = 4096;
}

void note(std::string_view message) {
  std::string line = "hull-init: ";
  for (const char c : message.substr(0, kMaxLineBytes)) {
    const auto code = static_cast<unsigned char>(c);
    line += code < 0x20 || code == 0x7f ? '?' : c;
  }
  line += '\n';
  [[maybe_unused]] const ssize_t put = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace hull::guest
