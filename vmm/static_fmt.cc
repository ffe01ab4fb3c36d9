// fmt's functions, compiled into hull-vmm itself: the program is static, and Debian's libfmt is
// not. Linked with main.cc only; tests link the shared library.
#define FMT_HEADER_ONLY 1
#include <fmt/format.h>

#include <string>

namespace hull::vmm {

// Never called. Its use of vformat() makes the compiler emit everything that fmt::format() calls.
std::string formatForLinking(fmt::string_view text, fmt::format_args arguments);
std::string formatForLinking(fmt::string_view text, fmt::format_args arguments) {
  return fmt::vformat(text, arguments);
}

}  // namespace hull::vmm
