#include "image/build/dockerfile.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>
#include <span>
#include <tuple>

#include "image/build/suggest.h"

namespace hull::build {

using nlohmann::json;

namespace {

constexpr std::array<std::string_view, 18> kKeywords = {
    "ADD",    "ARG",   "CMD",         "COPY",  "ENTRYPOINT", "ENV",
    "EXPOSE", "FROM",  "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD",
    "RUN",    "SHELL", "STOPSIGNAL",  "USER",  "VOLUME",     "WORKDIR"};
constexpr std::array<std::string_view, 4> kKeywordsWithHeredocs = {"ADD", "COPY", "RUN", "ONBUILD"};
constexpr std::array<std::string_view, 7> kKeywordsWithExec = {
    "ADD", "CMD", "COPY", "ENTRYPOINT", "RUN", "SHELL", "VOLUME"};

// The flags of an instruction; those of kBareFlags may stand without a value, those of
// kRepeatedFlags more than once.
constexpr std::array<std::string_view, 1> kFromFlags = {"platform"};
constexpr std::array<std::string_view, 3> kRunFlags = {"mount", "network", "security"};
constexpr std::array<std::string_view, 6> kCopyFlags = {"from", "chown",   "chmod",
                                                        "link", "exclude", "parents"};
constexpr std::array<std::string_view, 7> kAddFlags = {
    "chown", "chmod", "link", "exclude", "keep-git-dir", "checksum", "unpack"};
constexpr std::array<std::string_view, 5> kHealthFlags = {"interval", "timeout", "start-period",
                                                          "start-interval", "retries"};
constexpr std::array<std::string_view, 4> kBareFlags = {"link", "parents", "keep-git-dir",
                                                        "unpack"};
constexpr std::array<std::string_view, 2> kRepeatedFlags = {"mount", "exclude"};

std::span<const std::string_view> flagsOf(std::string_view keyword) {
  if (keyword == "FROM") return kFromFlags;
  if (keyword == "RUN") return kRunFlags;
  if (keyword == "COPY") return kCopyFlags;
  if (keyword == "ADD") return kAddFlags;
  if (keyword == "HEALTHCHECK") return kHealthFlags;
  return {};
}

template <size_t N>
bool contains(const std::array<std::string_view, N>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

bool isBlank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

std::string_view trimLeft(std::string_view text) {
  while (!text.empty() && isBlank(text.front())) text.remove_prefix(1);
  return text;
}

std::string_view trimRight(std::string_view text) {
  while (!text.empty() && isBlank(text.back())) text.remove_suffix(1);
  return text;
}

std::string upper(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return result;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

class Parser {
 public:
  Parser(const std::string& name, std::string_view text) {
    file_.name = name;
    if (text.size() > kMaxDockerfileBytes) {
      throw Error(ErrorKind::kTooLarge,
                  name + ": larger than " + std::to_string(kMaxDockerfileBytes) + " bytes");
    }
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    while (!text.empty()) {
      const size_t end = std::min(text.find('\n'), text.size());
      std::string_view line = text.substr(0, end);
      if (line.ends_with('\r')) line.remove_suffix(1);
      file_.lines.emplace_back(line);
      text.remove_prefix(std::min(end + 1, text.size()));
      if (line.size() > kMaxLineBytes) throw error(1, "line is longer than 65535 bytes");
      if (line.find('\0') != std::string_view::npos) throw error(1, "line holds a NUL byte");
    }
  }

  Dockerfile parse() {
    parseDirectives();
    while (at_ < file_.lines.size()) {
      const std::string_view line = trimLeft(file_.lines[at_]);
      if (line.empty() || line.front() == '#') {
        ++at_;
      } else {
        if (file_.instructions.size() == kMaxInstructions)
          throw lineError(at_, 1, "too many instructions");
        parseOne();
      }
    }
    if (file_.instructions.empty()) {
      throw Error(ErrorKind::kInvalidArgument,
                  file_.name + ": the Dockerfile holds no instruction (it begins with FROM)");
    }
    return std::move(file_);
  }

 private:
  Error error(int column, const std::string& message) const {
    return file_.error(static_cast<int>(file_.lines.size()), column, message);
  }
  Error lineError(size_t index, int column, const std::string& message) const {
    return file_.error(static_cast<int>(index) + 1, column, message);
  }

  // "# key=value" lines at the very top; the first other line ends the section.
  void parseDirectives() {
    std::vector<std::string> seen;
    for (; at_ < file_.lines.size(); ++at_) {
      std::string_view line = trimLeft(file_.lines[at_]);
      if (!line.starts_with('#')) return;
      line = trimLeft(line.substr(1));
      const size_t equals = line.find('=');
      if (equals == std::string_view::npos) return;
      const std::string key = lower(trimRight(line.substr(0, equals)));
      const std::string value(trimRight(trimLeft(line.substr(equals + 1))));
      if (key != "syntax" && key != "escape" && key != "check") return;
      if (std::find(seen.begin(), seen.end(), key) != seen.end()) {
        throw lineError(at_, 1, "only one " + key + " directive can be used");
      }
      seen.push_back(key);
      if (key == "syntax") file_.syntax = value;
      if (key == "check") parseCheck(value);
      if (key == "escape") {
        if (value != "\\" && value != "`")
          throw lineError(at_, 1, "invalid escape '" + value + "' (\\ or `)");
        file_.escape = value[0];
      }
    }
  }

  // "skip=RuleA,RuleB;error=true"
  void parseCheck(std::string_view text) {
    while (!text.empty()) {
      const size_t end = std::min(text.find(';'), text.size());
      const std::string_view part = trimLeft(trimRight(text.substr(0, end)));
      text.remove_prefix(std::min(end + 1, text.size()));
      const size_t equals = part.find('=');
      const std::string key = lower(part.substr(0, equals));
      std::string_view value = equals == std::string_view::npos ? "" : part.substr(equals + 1);
      if (key == "error") {
        if (value != "true" && value != "false")
          throw lineError(at_, 1, "check=error= takes true or false");
        file_.check.error = value == "true";
      } else if (key == "skip" || key == "experimental") {
        auto& rules = key == "skip" ? file_.check.skip : file_.check.experimental;
        while (!value.empty()) {
          const size_t comma = std::min(value.find(','), value.size());
          rules.push_back(lower(trimLeft(trimRight(value.substr(0, comma)))));
          value.remove_prefix(std::min(comma + 1, value.size()));
        }
      } else {
        throw lineError(at_, 1,
                        "unknown check option \"" + key + "\" (skip=…, error=true, joined by ;)");
      }
    }
  }

  // True when the line continues: its last character is an escape that is not itself escaped.
  bool cutContinuation(std::string& line) const {
    const std::string_view trimmed = trimRight(line);
    if (!trimmed.ends_with(file_.escape)) return false;
    size_t run = 0;
    while (run < trimmed.size() && trimmed[trimmed.size() - 1 - run] == file_.escape) ++run;
    if (run % 2 == 0) return false;
    line.resize(trimmed.size() - 1);
    return true;
  }

  // An instruction's lines as one text, and where each of them begins in it.
  struct Joined {
    std::string text;
    std::vector<std::pair<size_t, int>> starts;  // offset, line

    std::pair<int, int> place(size_t offset) const {  // line and column
      size_t i = starts.size() - 1;
      while (i > 0 && starts[i].first > offset) --i;
      return {starts[i].second, static_cast<int>(offset - starts[i].first) + 1};
    }
  };

  Joined joinLines() {
    Joined joined;
    joined.starts.emplace_back(0, static_cast<int>(at_) + 1);
    joined.text = file_.lines[at_++];
    bool more = cutContinuation(joined.text);
    while (more && at_ < file_.lines.size()) {
      const std::string_view stripped = trimLeft(file_.lines[at_]);
      if (stripped.empty()) {
        file_.warnings.push_back(
            {"NoEmptyContinuation", "Empty continuation line", static_cast<int>(at_) + 1});
        ++at_;
        continue;
      }
      if (stripped.front() == '#') {
        ++at_;
        continue;
      }
      joined.starts.emplace_back(joined.text.size(), static_cast<int>(at_) + 1);
      std::string next = file_.lines[at_++];
      more = cutContinuation(next);
      joined.text += next;
      if (joined.text.size() > kMaxDockerfileBytes)
        throw lineError(at_ - 1, 1, "instruction is too long");
    }
    return joined;
  }

  void parseOne() {
    Instruction instruction;
    instruction.line = static_cast<int>(at_) + 1;
    const Joined joined = joinLines();
    instruction.end_line = joined.starts.back().second;
    const std::string_view body = trimLeft(joined.text);
    const size_t keyword_end = std::min(body.find_first_of(" \t\r\v\f"), body.size());
    instruction.written = std::string(body.substr(0, keyword_end));
    instruction.keyword = upper(instruction.written);
    instruction.column = static_cast<int>(joined.text.size() - body.size()) + 1;
    checkKeyword(instruction);
    std::string_view rest = trimLeft(body.substr(keyword_end));
    const auto place = [&](std::string_view part) {
      return joined.place(static_cast<size_t>(part.data() - joined.text.data()));
    };
    if (!flagsOf(instruction.keyword).empty()) {
      parseFlags(instruction, rest, place);
      checkFlags(instruction);
    }
    if (!rest.empty()) {
      const auto [line, column] = place(rest);
      if (line == instruction.line) instruction.column = column;
    }
    instruction.rest = std::string(trimRight(rest));
    instruction.text = instruction.keyword + (instruction.rest.empty() ? "" : " ") +
                       std::string(trimRight(trimLeft(body.substr(keyword_end))));
    if (instruction.rest.empty() && instruction.keyword != "CMD" &&
        instruction.keyword != "ENTRYPOINT") {
      throw file_.error(instruction, instruction.keyword + " requires at least one argument");
    }
    if (contains(kKeywordsWithExec, instruction.keyword)) parseExec(instruction);
    if (contains(kKeywordsWithHeredocs, instruction.keyword) && !instruction.exec)
      readHeredocs(instruction);
    file_.instructions.push_back(std::move(instruction));
  }

  void checkKeyword(const Instruction& instruction) const {
    if (contains(kKeywords, instruction.keyword)) return;
    throw file_.error(instruction, "unknown instruction: " + instruction.written +
                                       suggestion(instruction.keyword, kKeywords));
  }

  void checkFlags(const Instruction& instruction) const {
    const auto known = flagsOf(instruction.keyword);
    std::vector<std::string_view> seen;
    for (const Flag& flag : instruction.flags) {
      if (std::find(known.begin(), known.end(), flag.name) == known.end()) {
        throw file_.error(flag,
                          "unknown flag: --" + flag.name + suggestion(flag.name, known, "--"));
      }
      if (!contains(kRepeatedFlags, flag.name) &&
          std::find(seen.begin(), seen.end(), flag.name) != seen.end()) {
        throw file_.error(flag, "duplicate flag: --" + flag.name);
      }
      seen.push_back(flag.name);
      if (contains(kBareFlags, flag.name)) {
        if (flag.value != "true" && flag.value != "false")
          throw file_.error(flag, "--" + flag.name + " takes true or false");
      } else if (flag.bare) {
        throw file_.error(flag, "missing a value on flag: --" + flag.name + "=…");
      }
    }
  }

  template <typename Place>
  void parseFlags(Instruction& instruction, std::string_view& rest, const Place& place) const {
    while (rest.starts_with("--")) {
      size_t end = 0;
      char quote = 0;
      while (end < rest.size() && (quote != 0 || !isBlank(rest[end]))) {
        if (quote == 0 && (rest[end] == '"' || rest[end] == '\''))
          quote = rest[end];
        else if (rest[end] == quote)
          quote = 0;
        ++end;
      }
      const std::string_view word = rest.substr(2, end - 2);
      if (word.empty()) {  // "--" ends the flags
        rest = trimLeft(rest.substr(end));
        return;
      }
      Flag flag;
      const size_t equals = word.find('=');
      flag.name = std::string(word.substr(0, equals));
      flag.bare = equals == std::string_view::npos;
      flag.value = flag.bare ? "true" : std::string(word.substr(equals + 1));
      std::tie(flag.line, flag.column) = place(rest);
      instruction.flags.push_back(std::move(flag));
      rest = trimLeft(rest.substr(end));
    }
  }

  // A JSON array of strings is exec form; other valid JSON arrays are errors; the rest is a string.
  void parseExec(Instruction& instruction) const {
    if (!instruction.rest.starts_with('[')) return;
    const json parsed = json::parse(instruction.rest, nullptr, false);
    if (!parsed.is_array()) return;
    std::vector<std::string> words;
    for (const auto& item : parsed) {
      if (!item.is_string()) {
        throw file_.error(instruction, "the exec form holds something that is not a string");
      }
      words.push_back(item.get<std::string>());
    }
    instruction.exec = std::move(words);
  }

  void readHeredocs(Instruction& instruction) {
    for (Heredoc& heredoc : findHeredocs(instruction.rest)) {
      const bool strip = heredoc.content == "-";
      heredoc.content.clear();
      const size_t first = at_;
      for (;; ++at_) {
        if (at_ == file_.lines.size()) {
          throw lineError(first == 0 ? 0 : first - 1, 1,
                          "unterminated heredoc: no line holds just " + heredoc.name);
        }
        std::string_view line = file_.lines[at_];
        while (strip && line.starts_with('\t')) line.remove_prefix(1);
        if (line == heredoc.name) break;
        heredoc.content += std::string(line) + "\n";
      }
      ++at_;
      instruction.heredocs.push_back(std::move(heredoc));
    }
  }

  // A redirection begins a word, perhaps with the number of its descriptor in front ("3<<EOF").
  static bool startsWord(std::string_view text, size_t at) {
    while (at > 0 && std::isdigit(static_cast<unsigned char>(text[at - 1]))) --at;
    return at == 0 || isBlank(text[at - 1]);
  }

  // A here-document's delimiter at `at`, which moves behind it: up to a blank or what ends a word
  // in a shell. Quotes are removed and forbid expansion; an open quote makes it no delimiter.
  static std::string delimiter(std::string_view text, size_t& at, bool& expand) {
    std::string name;
    char quote = 0;
    for (; at < text.size(); ++at) {
      const char c = text[at];
      if (quote != 0) {
        if (c == quote)
          quote = 0;
        else
          name += c;
      } else if (c == '"' || c == '\'') {
        quote = c;
        expand = false;
      } else if (isBlank(c) || std::string_view("<>|&;()").find(c) != std::string_view::npos) {
        break;
      } else {
        name += c;
      }
    }
    return quote == 0 ? name : "";
  }

  // "<<[-]NAME" outside quotes, NAME perhaps quoted. `content` is "-" for the stripping kind.
  static std::vector<Heredoc> findHeredocs(std::string_view text) {
    std::vector<Heredoc> found;
    char quote = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const char c = text[i];
      if (c == '\\' && quote != '\'') {
        ++i;
      } else if (quote != 0) {
        if (c == quote) quote = 0;
      } else if (c == '\'' || c == '"') {
        quote = c;
      } else if (text.substr(i, 2) == "<<" && startsWord(text, i)) {
        size_t at = i + 2;
        Heredoc heredoc;
        if (at < text.size() && text[at] == '-') {
          heredoc.content = "-";
          ++at;
        }
        if (at < text.size() && text[at] != '<') heredoc.name = delimiter(text, at, heredoc.expand);
        if (!heredoc.name.empty()) found.push_back(std::move(heredoc));
        i = at;
      }
    }
    return found;
  }

  Dockerfile file_;
  size_t at_ = 0;  // the line that is read next
};

}  // namespace

namespace {

constexpr size_t kShownBytes = 200;
constexpr int kShownLines = 12;

// "  7 | RUN make", tabs as blanks so that a caret below stands right.
std::string shownLine(const Dockerfile& file, int line, size_t digits) {
  const std::string number = std::to_string(line);
  std::string text = file.lines[static_cast<size_t>(line) - 1].substr(0, kShownBytes);
  std::replace(text.begin(), text.end(), '\t', ' ');
  return "\n  " + std::string(digits - number.size(), ' ') + number + " | " + text;
}

std::string located(const Dockerfile& file, const Warning& at, int column, int last) {
  const int line = at.line;
  std::string text =
      file.name + ":" + std::to_string(line) + ":" + std::to_string(column) + ": " + at.message;
  if (line < 1 || static_cast<size_t>(line) > file.lines.size()) return text;
  last = std::clamp(last, line, std::min(line + kShownLines, static_cast<int>(file.lines.size())));
  const size_t digits = std::to_string(last).size();
  text += shownLine(file, line, digits) + "\n  " + std::string(digits, ' ') + " | " +
          std::string(static_cast<size_t>(std::clamp(column - 1, 0, static_cast<int>(kShownBytes))),
                      ' ') +
          "^";
  for (int next = line + 1; next <= last; ++next) text += shownLine(file, next, digits);
  return text;
}

}  // namespace

Error Dockerfile::error(int line, int column, const std::string& message) const {
  return Error(ErrorKind::kInvalidArgument, located(*this, {"", message, line}, column, line));
}

Error Dockerfile::error(const Instruction& at, const std::string& message) const {
  return Error(ErrorKind::kInvalidArgument,
               located(*this, {"", message, at.line}, at.column, at.end_line));
}

Dockerfile parseDockerfile(const std::string& name, std::string_view text) {
  return Parser(name, text).parse();
}

Instruction parseInstruction(const std::string& origin, std::string_view text) {
  Dockerfile file = Parser(origin, text).parse();
  if (file.instructions.size() != 1) throw file.error(1, 1, "expected one instruction");
  return std::move(file.instructions.front());
}

}  // namespace hull::build
