// The machine's console on disk, bounded: when the file reaches kConsoleLogBytes it becomes
// "<path>.1" and a new one begins. Writing never fails loudly: a full disk loses console text, not
// the machine. One thread.
#pragma once

#include <string>
#include <string_view>

#include "base/fd.h"

namespace hull::machine {

inline constexpr size_t kConsoleLogBytes = size_t{1} << 20;

class ConsoleLog {
 public:
  explicit ConsoleLog(std::string path);  // begins anew
  void write(std::string_view bytes);

 private:
  void reopen();

  std::string path_;
  Fd file_;
  size_t size_ = 0;
};

// The last `lines` lines, control characters replaced; empty when there is no log.
std::string tailOf(const std::string& path, size_t lines);

}  // namespace hull::machine
