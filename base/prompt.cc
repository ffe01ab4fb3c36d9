#include "base/prompt.h"

#include <termios.h>
#include <unistd.h>

#include <iostream>
#include <optional>

namespace hull {

namespace {

// Typing is not shown while one of these lives, if stdin is a terminal.
class HiddenTyping {
 public:
  HiddenTyping() {
    termios settings{};
    if (tcgetattr(STDIN_FILENO, &settings) < 0) return;
    saved_ = settings;
    settings.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    tcsetattr(STDIN_FILENO, TCSANOW, &settings);
  }
  ~HiddenTyping() {
    if (!saved_) return;
    tcsetattr(STDIN_FILENO, TCSANOW, &*saved_);
    std::cerr << "\n";  // the one that was typed was not shown either
  }
  HiddenTyping(const HiddenTyping&) = delete;
  HiddenTyping& operator=(const HiddenTyping&) = delete;

 private:
  std::optional<termios> saved_;
};

}  // namespace

std::string promptLine(std::string_view question, Echo echo) {
  std::cerr << question << std::flush;
  std::optional<HiddenTyping> hidden;
  if (echo == Echo::kHidden) hidden.emplace();
  std::string line;
  std::getline(std::cin, line);
  return line;
}

}  // namespace hull
