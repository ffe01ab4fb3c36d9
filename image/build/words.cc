#include "image/build/words.h"

#include <cctype>

#include "base/error.h"

namespace hull::build {

namespace {

constexpr int kMaxNesting = 32;  // ${a:-${b:-…}}

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, message);
}

bool isNameStart(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_';
}
bool isNamePart(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
}
bool isBlank(char c) {
  return c == ' ' || c == '\t';
}

// Shell glob with * and ? over the whole text.
bool globMatches(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = t;
    } else if (p < pattern.size() && pattern[p] == '\\' && p + 1 < pattern.size() &&
               pattern[p + 1] == text[t]) {
      p += 2;
      ++t;
    } else if (p < pattern.size() && pattern[p] != '\\' &&
               (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::string cutPrefix(std::string_view value, std::string_view pattern, bool longest) {
  for (size_t i = 0; i <= value.size(); ++i) {
    const size_t length = longest ? value.size() - i : i;
    if (globMatches(pattern, value.substr(0, length))) return std::string(value.substr(length));
  }
  return std::string(value);
}

std::string cutSuffix(std::string_view value, std::string_view pattern, bool longest) {
  for (size_t i = 0; i <= value.size(); ++i) {
    const size_t length = longest ? value.size() - i : i;
    const size_t keep = value.size() - length;
    if (globMatches(pattern, value.substr(keep))) return std::string(value.substr(0, keep));
  }
  return std::string(value);
}

std::string replace(std::string_view value, std::string_view pattern, std::string_view with,
                    bool all) {
  constexpr size_t kMaxReplaceBytes = 64 * 1024;  // the search below is quadratic
  if (value.size() > kMaxReplaceBytes) fail("substitute in a value of more than 64 KiB");
  std::string out;
  for (size_t at = 0; at < value.size();) {
    size_t length = value.size() - at;
    while (length > 0 && !globMatches(pattern, value.substr(at, length))) --length;
    if (length == 0) {
      out += value[at++];
      continue;
    }
    out += with;
    at += length;
    if (!all) return out + std::string(value.substr(at));
  }
  return out;
}

class Expander {
 public:
  Expander(std::string_view text, char escape, const Lookup& lookup, bool keep_quotes, int depth)
      : text_(text), escape_(escape), lookup_(lookup), keep_quotes_(keep_quotes), depth_(depth) {
    if (depth > kMaxNesting) fail("substitutions are nested too deeply");
  }

  std::string run() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '\'' && !keep_quotes_) {
        singleQuoted();
      } else if (c == '"' && !keep_quotes_) {
        doubleQuoted();
      } else if (c == escape_) {
        escaped();
      } else if (c == '$') {
        variable();
      } else {
        put(std::string_view(&text_[at_++], 1));
      }
    }
    return std::move(out_);
  }

 private:
  void put(std::string_view piece) {
    if (out_.size() + piece.size() > kMaxExpandedBytes)
      fail("the expanded text is larger than 4 MiB");
    out_ += piece;
  }

  void escaped() {
    if (at_ + 1 == text_.size()) {  // a lone escape at the end stays
      put(text_.substr(at_++));
      return;
    }
    if (keep_quotes_ && text_[at_ + 1] != '$' && text_[at_ + 1] != escape_)
      put(text_.substr(at_, 1));
    put(text_.substr(at_ + 1, 1));
    at_ += 2;
  }

  void singleQuoted() {
    const size_t end = text_.find('\'', at_ + 1);
    if (end == std::string_view::npos)
      fail("unexpected end of statement while looking for matching single-quote");
    put(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
  }

  void doubleQuoted() {
    for (++at_;;) {
      if (at_ == text_.size())
        fail("unexpected end of statement while looking for matching double-quote");
      const char c = text_[at_];
      if (c == '"') break;
      if (c == '$') {
        variable();
      } else if (c == escape_ && at_ + 1 < text_.size() &&
                 (text_[at_ + 1] == '"' || text_[at_ + 1] == '$' || text_[at_ + 1] == escape_)) {
        put(text_.substr(at_ + 1, 1));
        at_ += 2;
      } else {
        put(text_.substr(at_++, 1));
      }
    }
    ++at_;
  }

  std::string value(std::string_view name) const { return lookup_(name).value_or(""); }

  void variable() {
    ++at_;
    if (at_ == text_.size()) return put("$");
    if (text_[at_] == '{') return braced();
    if (!isNameStart(text_[at_])) {
      if (std::isdigit(static_cast<unsigned char>(text_[at_]))) {
        ++at_;  // positional parameters are empty in a Dockerfile
        return;
      }
      return put("$");
    }
    const size_t start = at_;
    while (at_ < text_.size() && isNamePart(text_[at_])) ++at_;
    put(value(text_.substr(start, at_ - start)));
  }

  // The position of the brace that closes the one before `from`.
  size_t closingBrace(size_t from) const {
    int open = 1;
    for (size_t i = from; i < text_.size(); ++i) {
      if (text_[i] == escape_) {
        ++i;
      } else if (text_[i] == '{' && text_[i - 1] == '$') {
        ++open;
      } else if (text_[i] == '}' && --open == 0) {
        return i;
      }
    }
    fail("syntax error: missing '}' of a substitution");
  }

  void braced() {
    const size_t start = at_ + 1, end = closingBrace(start);
    const std::string_view inside = text_.substr(start, end - start);
    at_ = end + 1;
    size_t name_end = 0;
    while (name_end < inside.size() && isNamePart(inside[name_end])) ++name_end;
    const std::string_view name = inside.substr(0, name_end), rest = inside.substr(name_end);
    if (name.empty()) fail("bad substitution: ${" + std::string(inside) + "}");
    put(rest.empty() ? value(name) : modified(name, rest));
  }

  std::string argument(std::string_view text) const {
    return Expander(text, escape_, lookup_, keep_quotes_, depth_ + 1).run();
  }

  std::string modified(std::string_view name, std::string_view rest) const {
    const std::optional<std::string> found = lookup_(name);
    const std::string current = found.value_or("");
    const bool colon = rest[0] == ':';
    if (colon) rest.remove_prefix(1);
    const char kind = rest.empty() ? '\0' : rest[0];
    const bool present = colon ? !current.empty() : found.has_value();
    const std::string_view word = rest.empty() ? rest : rest.substr(1);
    switch (kind) {
      case '-':
        return present ? current : argument(word);
      case '+':
        return present ? argument(word) : "";
      case '?':
        if (present) return current;
        fail(std::string(name) + ": " +
             (word.empty() ? "required variable is not set" : argument(word)));
      default:
        break;
    }
    if (!colon && kind == '#') return trimmed(current, word, '#', &cutPrefix);
    if (!colon && kind == '%') return trimmed(current, word, '%', &cutSuffix);
    if (!colon && kind == '/') return substituted(current, word);
    fail("unsupported modifier in substitution: ${" + std::string(name) + (colon ? ":" : "") +
         std::string(rest) + "}");
  }

  template <typename Cut>
  std::string trimmed(const std::string& current, std::string_view word, char mark, Cut cut) const {
    const bool longest = word.starts_with(mark);
    return cut(current, argument(longest ? word.substr(1) : word), longest);
  }

  std::string substituted(const std::string& current, std::string_view word) const {
    const bool all = word.starts_with('/');
    if (all) word.remove_prefix(1);
    size_t slash = 0;
    while (slash < word.size() && word[slash] != '/') slash += word[slash] == escape_ ? 2 : 1;
    if (slash >= word.size()) return replace(current, argument(word), "", all);
    return replace(current, argument(word.substr(0, slash)), argument(word.substr(slash + 1)), all);
  }

  std::string_view text_;
  char escape_;
  const Lookup& lookup_;
  bool keep_quotes_;
  int depth_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

std::string expandWord(std::string_view text, char escape, const Lookup& lookup) {
  return Expander(text, escape, lookup, false, 0).run();
}

std::string expandText(std::string_view text, char escape, const Lookup& lookup) {
  return Expander(text, escape, lookup, true, 0).run();
}

std::vector<std::string> splitWords(std::string_view text, char escape) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote == 0 && isBlank(c)) {
      if (in_word) words.push_back(std::move(word));
      word.clear();
      in_word = false;
      continue;
    }
    in_word = true;
    word += c;
    if (c == escape && quote != '\'' && i + 1 < text.size()) {
      word += text[++i];
    } else if (quote != 0) {
      if (c == quote) quote = 0;
    } else if (c == '\'' || c == '"') {
      quote = c;
    }
  }
  if (in_word) words.push_back(std::move(word));
  return words;
}

std::vector<std::pair<std::string, std::string>> splitPairs(std::string_view text, char escape,
                                                            bool legacy) {
  std::vector<std::pair<std::string, std::string>> pairs;
  const std::vector<std::string> words = splitWords(text, escape);
  if (!words.empty() && legacy && words[0].find('=') == std::string::npos) {
    const size_t key_end = text.find_first_of(" \t");
    if (key_end == std::string_view::npos) fail("must have two arguments: a name and a value");
    const size_t value_start = text.find_first_not_of(" \t", key_end);
    pairs.emplace_back(text.substr(0, key_end), text.substr(value_start));
    return pairs;
  }
  for (const auto& word : words) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) {
      fail("can't find = in \"" + word + "\". Must be of the form: name=value");
    }
    if (equals == 0) fail("a name must not be blank: \"" + word + "\"");
    pairs.emplace_back(word.substr(0, equals), word.substr(equals + 1));
  }
  return pairs;
}

}  // namespace hull::build
