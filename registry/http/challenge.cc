#include "registry/http/challenge.h"

#include <cctype>
#include <optional>

namespace hull::registry {

namespace {

bool isTokenChar(char c) {
  static constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
  return std::isalnum(static_cast<unsigned char>(c)) || kOthers.find(c) != std::string_view::npos;
}

bool isToken68Char(char c) {
  static constexpr std::string_view kOthers = "-._~+/";
  return std::isalnum(static_cast<unsigned char>(c)) || kOthers.find(c) != std::string_view::npos;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::vector<Challenge> run() {
    std::vector<Challenge> result;
    while (skipSeparators()) {
      const std::string_view name = token();
      if (name.empty()) {
        skipElement();
        continue;
      }
      if (!result.empty() && parameterFollows()) {
        takeParameter(result.back(), name);
        continue;
      }
      if (result.size() == kMaxChallenges) break;
      result.push_back({lower(name), {}});
      skipSpaces();
      skipToken68();
    }
    return result;
  }

 private:
  bool atEnd() const { return at_ >= text_.size(); }
  char peek() const { return atEnd() ? '\0' : text_[at_]; }
  void skipSpaces() {
    while (!atEnd() && (peek() == ' ' || peek() == '\t')) ++at_;
  }
  bool skipSeparators() {
    while (!atEnd() && (peek() == ' ' || peek() == '\t' || peek() == ',')) ++at_;
    return !atEnd();
  }

  std::string_view token() {
    const size_t start = at_;
    while (!atEnd() && isTokenChar(peek())) ++at_;
    return text_.substr(start, at_ - start);
  }

  // After a token: is it the name of a parameter? Then the position is at the value.
  bool parameterFollows() {
    const size_t start = at_;
    skipSpaces();
    if (peek() == '=') {
      ++at_;
      skipSpaces();
      return true;
    }
    at_ = start;
    return false;
  }

  void takeParameter(Challenge& challenge, std::string_view name) {
    std::optional<std::string> value;
    if (peek() == '"') {
      value = quoted();
    } else {
      value = std::string(token());
    }
    if (!value) return;
    if (challenge.parameters.size() < kMaxChallengeParameters) {
      challenge.parameters.emplace(lower(name), std::move(*value));  // the first one counts
    }
    skipElement();
  }

  std::optional<std::string> quoted() {
    std::string value;
    for (++at_; !atEnd(); ++at_) {
      char c = peek();
      if (c == '"') {
        ++at_;
        return value;
      }
      if (c == '\\') {
        ++at_;
        if (atEnd()) return std::nullopt;
        c = peek();
      }
      value.push_back(c);
    }
    return std::nullopt;  // not closed
  }

  // "Negotiate abc==": one opaque value instead of parameters. Left alone if it is none.
  void skipToken68() {
    const size_t start = at_;
    while (!atEnd() && isToken68Char(peek())) ++at_;
    const bool some = at_ > start;
    while (peek() == '=') ++at_;
    skipSpaces();
    if (!some || !(atEnd() || peek() == ',')) at_ = start;
  }

  // To the next comma outside of quotes.
  void skipElement() {
    while (!atEnd() && peek() != ',') {
      if (peek() == '"') {
        if (!quoted()) return;
      } else {
        ++at_;
      }
    }
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

std::string Challenge::parameter(const std::string& name) const {
  const auto it = parameters.find(name);
  return it == parameters.end() ? std::string() : it->second;
}

std::vector<Challenge> parseChallenges(std::string_view header) {
  if (header.size() > kMaxChallengeBytes) return {};
  return Parser(header).run();
}

}  // namespace hull::registry
