// Asking the user at a terminal. Main thread of a command-line program; no state.
#pragma once

#include <string>
#include <string_view>

namespace hull {

enum class Echo { kShown, kHidden };

// Writes `question` to stderr and reads one line from stdin, without its end. kHidden: a terminal
// does not show what is typed (termios(3), ECHO); where stdin is none the line is read as it comes.
// Empty at the end of input.
std::string promptLine(std::string_view question, Echo echo);

}  // namespace hull
