// The Dockerfile language, first half: text to instructions (docs.docker.com/reference/dockerfile).
// Comments, directives, continuations, flags, exec forms and here-documents are resolved; variables
// are not (see words.h). The text is untrusted. Pure values.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace hull::build {

inline constexpr size_t kMaxDockerfileBytes = 4 << 20;
inline constexpr size_t kMaxLineBytes = 65'535;
inline constexpr size_t kMaxInstructions = 10'000;

struct Heredoc {
  std::string name;
  std::string content;  // tabs already stripped for <<-
  bool expand = true;   // false when the delimiter was quoted
};

struct Flag {
  std::string name;   // without the dashes
  std::string value;  // "true" for a bare flag
  bool bare = false;  // written without "="
  int line = 1;
  int column = 1;
};

struct Instruction {
  std::string keyword;  // upper case
  std::vector<Flag> flags;
  std::string rest;                              // behind the flags, continuations joined
  std::optional<std::vector<std::string>> exec;  // rest as a JSON array of strings
  std::vector<Heredoc> heredocs;
  std::string text;     // the whole instruction on one line, for display
  std::string written;  // the keyword as it is written
  int line = 1;         // where it starts
  int column = 1;       // where `rest` starts in that line (or the keyword when rest is empty)
  int end_line = 1;     // its last line, here-documents not counted
};

// What a build check found (https://docs.docker.com/reference/build-checks/).
struct Warning {
  std::string rule;     // "StageNameCasing"
  std::string message;  // what is wrong here
  int line = 1;
};

// The "# check=" directive.
struct CheckOptions {
  std::vector<std::string> skip;          // rules; "all" skips every one
  std::vector<std::string> experimental;  // rules that are only checked when named
  bool error = false;                     // a warning fails the build
};

struct Dockerfile {
  std::string name;  // for messages
  std::vector<std::string> lines;
  char escape = '\\';
  std::string syntax;  // the # syntax= line, accepted and not acted upon
  CheckOptions check;
  std::vector<Instruction> instructions;
  std::vector<Warning> warnings;  // of what only the text shows; lint.h finds the others

  // "name:3:5: message", the line and a caret below it.
  Error error(int line, int column, const std::string& message) const;
  Error error(const Flag& flag, const std::string& message) const {
    return error(flag.line, flag.column, message);
  }
  // The lines of the whole instruction.
  Error error(const Instruction& at, const std::string& message) const;
};

// Throws Dockerfile::error. An empty file is an error, too.
Dockerfile parseDockerfile(const std::string& name, std::string_view text);

// One instruction outside a file (ONBUILD triggers, `import --change`).
Instruction parseInstruction(const std::string& origin, std::string_view text);

}  // namespace hull::build
