#include "machine/console_log.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace hull::machine {

namespace {
constexpr size_t kTailBytes = 16 * 1024;
}

ConsoleLog::ConsoleLog(std::string path) : path_(std::move(path)) {
  ::unlink((path_ + ".1").c_str());
  reopen();
}

void ConsoleLog::reopen() {
  file_ = openFile(path_, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
  size_ = 0;
}

void ConsoleLog::write(std::string_view bytes) {
  try {
    if (size_ + bytes.size() > kConsoleLogBytes) {
      ::rename(path_.c_str(), (path_ + ".1").c_str());
      reopen();
    }
    size_ += bytes.size();
    writeFull(file_.get(), bytes);
  } catch (const Error&) {  // see the header
  }
}

std::string tailOf(const std::string& path, size_t lines) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return "";
  const uint64_t size = fileSize(file.get());
  const uint64_t begin = size > kTailBytes ? size - kTailBytes : 0;
  std::vector<char> bytes(static_cast<size_t>(size - begin));
  const size_t got = preadFull(file.get(), std::as_writable_bytes(std::span(bytes)), begin);
  std::string text;
  for (const char character : std::string_view(bytes.data(), got)) {
    const auto value = static_cast<unsigned char>(character);
    if (character == '\n' || (value >= 0x20 && value != 0x7f)) text.push_back(character);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  size_t from = text.size();
  for (size_t i = 0; i < lines && from != std::string::npos && from > 0; ++i) {
    from = text.rfind('\n', from - 1);
  }
  return from == std::string::npos || from == 0 ? text : text.substr(from + 1);
}

}  // namespace hull::machine
