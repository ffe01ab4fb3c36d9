#include "image/build/dockerfile.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <nlohmann/json.hpp>

namespace hull::build {

using nlohmann::json;

namespace {

constexpr std::array<std::string_view, 18> kKeywords = {
    "ADD",    "ARG",   "CMD",         "COPY",  "ENTRYPOINT", "ENV",
    "EXPOSE", "FROM",  "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD",
    "RUN",    "SHELL", "STOPSIGNAL",  "USER",  "VOLUME",     "WORKDIR"};
constexpr std::array<std::string_view, 4> kKeywordsWithHeredocs = {"ADD", "COPY", "RUN", "ONBUILD"};
constexpr std::array<std::string_view, 9> kKeywordsWithExec = {
    "ADD", "CMD", "COPY", "ENTRYPOINT", "HEALTHCHECK", "ONBUILD", "RUN", "SHELL", "VOLUME"};
constexpr std::array<std::string_view, 5> kKeywordsWithFlags = {"ADD", "COPY", "FROM",
                                                                "HEALTHCHECK", "RUN"};

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

// Edits between two words; swapping neighbours counts as one (optimal string alignment).
size_t editDistance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> rows(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        rows[i][j] = i + j;
        continue;
      }
      const bool same = a[i - 1] == b[j - 1];
      rows[i][j] =
          std::min({rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (same ? 0U : 1U)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        rows[i][j] = std::min(rows[i][j], rows[i - 2][j - 2] + 1);
      }
    }
  }
  return rows[a.size()][b.size()];
}

// The keyword a misspelt one may have meant; empty when none is near.
std::string nearestKeyword(const std::string& word) {
  constexpr size_t kFarthest = 2, kLongestKeyword = 16;
  if (word.size() > kLongestKeyword) return {};
  std::string_view best;
  size_t best_distance = kFarthest + 1;
  for (const std::string_view keyword : kKeywords) {
    const size_t distance = editDistance(word, keyword);
    if (distance < best_distance) {
      best_distance = distance;
      best = keyword;
    }
  }
  return std::string(best);
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
      if (key == "escape") {
        if (value != "\\" && value != "`")
          throw lineError(at_, 1, "invalid escape '" + value + "' (\\ or `)");
        file_.escape = value[0];
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

  std::string joinLines() {
    std::string joined = file_.lines[at_++];
    bool more = cutContinuation(joined);
    while (more && at_ < file_.lines.size()) {
      const std::string_view stripped = trimLeft(file_.lines[at_]);
      if (stripped.empty()) {
        file_.warnings.push_back(file_.name + ":" + std::to_string(at_ + 1) +
                                 ": empty continuation line");
        ++at_;
        continue;
      }
      if (stripped.front() == '#') {
        ++at_;
        continue;
      }
      std::string next = file_.lines[at_++];
      more = cutContinuation(next);
      joined += next;
      if (joined.size() > kMaxDockerfileBytes)
        throw lineError(at_ - 1, 1, "instruction is too long");
    }
    return joined;
  }

  void parseOne() {
    Instruction instruction;
    instruction.line = static_cast<int>(at_) + 1;
    const std::string joined = joinLines();
    const std::string_view body = trimLeft(joined);
    const size_t indent = joined.size() - body.size();
    const size_t keyword_end = std::min(body.find_first_of(" \t\r\v\f"), body.size());
    instruction.keyword = upper(body.substr(0, keyword_end));
    instruction.column = static_cast<int>(indent) + 1;
    checkKeyword(instruction, std::string(body.substr(0, keyword_end)));
    std::string_view rest = trimLeft(body.substr(keyword_end));
    const auto columnOf = [&](std::string_view part) {
      return static_cast<int>(part.data() - joined.data()) + 1;
    };
    if (contains(kKeywordsWithFlags, instruction.keyword)) parseFlags(instruction, rest, columnOf);
    if (!rest.empty()) instruction.column = columnOf(rest);
    instruction.rest = std::string(trimRight(rest));
    instruction.text = instruction.keyword + (instruction.rest.empty() ? "" : " ") +
                       std::string(trimRight(trimLeft(body.substr(keyword_end))));
    if (instruction.rest.empty() && instruction.keyword != "CMD" &&
        instruction.keyword != "ENTRYPOINT") {
      throw file_.error(instruction.line, instruction.column,
                        instruction.keyword + " requires at least one argument");
    }
    if (contains(kKeywordsWithExec, instruction.keyword)) parseExec(instruction);
    if (contains(kKeywordsWithHeredocs, instruction.keyword) && !instruction.exec)
      readHeredocs(instruction);
    file_.instructions.push_back(std::move(instruction));
  }

  void checkKeyword(const Instruction& instruction, const std::string& written) const {
    if (contains(kKeywords, instruction.keyword)) return;
    const std::string near = nearestKeyword(instruction.keyword);
    throw file_.error(
        instruction.line, instruction.column,
        "unknown instruction: " + written + (near.empty() ? "" : " (did you mean " + near + "?)"));
  }

  template <typename Column>
  void parseFlags(Instruction& instruction, std::string_view& rest, const Column& columnOf) const {
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
      flag.value = equals == std::string_view::npos ? "true" : std::string(word.substr(equals + 1));
      flag.column = columnOf(rest);
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
        throw file_.error(instruction.line, instruction.column,
                          "the exec form holds something that is not a string");
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
        const char mark =
            at < text.size() && (text[at] == '"' || text[at] == '\'') ? text[at++] : '\0';
        heredoc.expand = mark == '\0';
        const size_t start = at;
        while (at < text.size() &&
               (std::isalnum(static_cast<unsigned char>(text[at])) || text[at] == '_'))
          ++at;
        heredoc.name = std::string(text.substr(start, at - start));
        if (mark != '\0' && (at == text.size() || text[at] != mark)) heredoc.name.clear();
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

Error Dockerfile::error(int line, int column, const std::string& message) const {
  std::string text =
      name + ":" + std::to_string(line) + ":" + std::to_string(column) + ": " + message;
  if (line >= 1 && static_cast<size_t>(line) <= lines.size()) {
    constexpr size_t kShownBytes = 200;
    const std::string number = std::to_string(line);
    std::string shown = lines[static_cast<size_t>(line) - 1].substr(0, kShownBytes);
    std::replace(shown.begin(), shown.end(), '\t', ' ');
    text +=
        "\n  " + number + " | " + shown + "\n  " + std::string(number.size(), ' ') + " | " +
        std::string(static_cast<size_t>(std::clamp(column - 1, 0, static_cast<int>(kShownBytes))),
                    ' ') +
        "^";
  }
  return Error(ErrorKind::kInvalidArgument, text);
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
