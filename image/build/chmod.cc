#include "image/build/chmod.h"

#include <charconv>
#include <string>

#include "base/error.h"

namespace hull::build {

namespace {

constexpr uint16_t kUser = 04700, kGroup = 02070, kOthers = 01007, kAll = 07777;
constexpr uint16_t kExecute = 0111;

// The bit that `letter` means for everyone; 0: none.
uint16_t bitsOf(char letter) {
  switch (letter) {
    case 'r':
      return 0444;
    case 'w':
      return 0222;
    case 'x':
      return kExecute;
    case 's':
      return 06000;
    case 't':
      return 01000;
    default:
      return 0;
  }
}

uint16_t whoOf(char letter) {
  switch (letter) {
    case 'u':
      return kUser;
    case 'g':
      return kGroup;
    case 'o':
      return kOthers;
    case 'a':
      return kAll;
    default:
      return 0;
  }
}

bool isOperation(std::string_view rest) {
  return !rest.empty() && (rest[0] == '+' || rest[0] == '-' || rest[0] == '=');
}

}  // namespace

ModeChange ModeChange::parse(std::string_view text) {
  ModeChange change;
  if (!text.empty() && text[0] >= '0' && text[0] <= '9') {
    unsigned mode = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), mode, 8);
    if (failed == std::errc{} && end == text.data() + text.size() && mode <= kAll) {
      Action action;
      action.who = kAll;
      action.bits = static_cast<uint16_t>(mode);
      change.actions_.push_back(action);
      return change;
    }
  } else {
    std::string_view rest = text;
    for (;;) {
      const size_t before = change.actions_.size();
      parseClause(rest, change.actions_);
      if (change.actions_.size() == before) break;  // neither who nor what
      if (rest.empty()) return change;
      if (rest[0] != ',') break;
      rest.remove_prefix(1);
    }
  }
  throw Error(ErrorKind::kInvalidArgument,
              "invalid --chmod=" + std::string(text) + " (octal like 755, or like u+rwX,go-w)");
}

// [ugoa…] then operations: each +, - or = with permissions, or with one of u, g and o to copy from.
void ModeChange::parseClause(std::string_view& rest, std::vector<Action>& actions) {
  uint16_t who = 0;
  for (; !rest.empty() && whoOf(rest[0]) != 0; rest.remove_prefix(1)) who |= whoOf(rest[0]);
  while (isOperation(rest)) {
    Action action;
    action.who = who == 0 ? kAll : who;
    action.operation = rest[0];
    rest.remove_prefix(1);
    if (!rest.empty() && whoOf(rest[0]) != 0 && rest[0] != 'a') {
      action.copies = true;
      action.copied_shift = rest[0] == 'u' ? 6 : rest[0] == 'g' ? 3 : 0;
      rest.remove_prefix(1);
    } else {
      for (; !rest.empty() && (rest[0] == 'X' || bitsOf(rest[0]) != 0); rest.remove_prefix(1)) {
        action.search |= rest[0] == 'X';
        action.bits |= bitsOf(rest[0]);
      }
    }
    actions.push_back(action);
  }
}

uint16_t ModeChange::apply(uint16_t mode, bool directory) const {
  const bool searchable = directory || (mode & kExecute) != 0;  // as it was in the beginning
  unsigned now = mode & kAll;
  for (const Action& action : actions_) {
    unsigned bits = action.bits;
    if (action.search && searchable) bits |= kExecute;
    if (action.copies) bits = ((now >> action.copied_shift) & 07U) * 0111U;
    bits &= action.who;
    if (action.operation == '-')
      now &= ~bits;
    else
      now = (action.operation == '=' ? now & ~static_cast<unsigned>(action.who) : now) | bits;
  }
  return static_cast<uint16_t>(now);
}

}  // namespace hull::build
