#include "cli/terminal/template_syntax.h"

#include <fmt/format.h>

#include <array>
#include <cctype>

#include "base/error.h"

namespace hull::cli {

using nlohmann::json;
using Expression = TemplateExpression;
using Node = TemplateNode;

void badTemplate(std::string_view action, std::string_view cause) {
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("expand --format: {{{{{}}}}}: {}", action, cause));
}

namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr int kMaxDepth = 64;  // of blocks and parentheses

struct Piece {
  bool action = false;
  std::string text;
};

std::string_view trimmed(std::string_view text) {
  const size_t start = text.find_first_not_of(kSpace);
  if (start == std::string_view::npos) return {};
  return text.substr(start, text.find_last_not_of(kSpace) - start + 1);
}

// "\n" and "\t" outside of actions are what a shell's user means by them.
std::string unescaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool known =
        text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == 'n' || text[i + 1] == 't');
    out += !known ? text[i] : text[++i] == 'n' ? '\n' : '\t';
  }
  return out;
}

// Where the action that begins at `text` ends: behind "}}", which may stand in a string before.
size_t endOfAction(std::string_view text) {
  char quote = 0;
  for (size_t i = 2; i + 1 < text.size(); ++i) {
    if (quote != 0) {
      if (text[i] == '\\' && quote == '"')
        ++i;
      else if (text[i] == quote)
        quote = 0;
    } else if (text[i] == '"' || text[i] == '`') {
      quote = text[i];
    } else if (text[i] == '}' && text[i + 1] == '}') {
      return i + 2;
    }
  }
  badTemplate(text.substr(2), "the braces are not closed");
}

std::vector<Piece> split(std::string_view text) {
  std::vector<Piece> pieces;
  bool trim_next = false;
  while (!text.empty()) {
    const size_t open = std::min(text.find("{{"), text.size());
    std::string plain = unescaped(text.substr(0, open));
    text.remove_prefix(open);
    const bool trims =
        text.size() > 3 && text[2] == '-' && kSpace.find(text[3]) != std::string_view::npos;
    if (trim_next) plain.erase(0, std::min(plain.find_first_not_of(kSpace), plain.size()));
    if (trims) plain.erase(plain.find_last_not_of(kSpace) + 1);
    if (!plain.empty()) pieces.push_back({false, std::move(plain)});
    if (text.empty()) break;
    const size_t end = endOfAction(text);
    std::string_view action = text.substr(2, end - 4);
    text.remove_prefix(end);
    if (trims) action.remove_prefix(1);
    trim_next = action.size() > 1 && action.back() == '-' &&
                kSpace.find(action[action.size() - 2]) != std::string_view::npos;
    if (trim_next) action.remove_suffix(1);
    action = trimmed(action);
    if (!(action.starts_with("/*") && action.ends_with("*/")))
      pieces.push_back({true, std::string(action)});
  }
  return pieces;
}

struct Token {
  enum class Kind { kString, kNumber, kWord, kField, kVariable, kDot, kSign };
  Kind kind;
  std::string text;
  bool adjacent = false;  // nothing between it and the one before
};

class Lexer {
 public:
  explicit Lexer(std::string_view action) : action_(action) {}

  std::vector<Token> tokens() {
    std::vector<Token> all;
    while (at_ < action_.size()) {
      const size_t before = at_;
      at_ = std::min(action_.find_first_not_of(kSpace, at_), action_.size());
      if (at_ == action_.size()) break;
      Token token = next();
      token.adjacent = before == at_start_ && !all.empty();
      all.push_back(std::move(token));
    }
    return all;
  }

 private:
  using Kind = Token::Kind;

  static bool isNameCharacter(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
  }

  std::string name() {
    const size_t start = at_;
    while (at_ < action_.size() && isNameCharacter(action_[at_])) ++at_;
    return std::string(action_.substr(start, at_ - start));
  }

  Token next() {
    at_start_ = at_;
    const char c = action_[at_];
    if (c == '"') return {Kind::kString, quoted()};
    if (c == '`') return {Kind::kString, raw()};
    if (c == '$') return ++at_, Token{Kind::kVariable, name()};
    if (c == '.') {
      ++at_;
      std::string field = name();
      return field.empty() ? Token{Kind::kDot, {}} : Token{Kind::kField, std::move(field)};
    }
    if (std::isdigit(static_cast<unsigned char>(c)) || c == '-') return {Kind::kNumber, number()};
    if (isNameCharacter(c)) return {Kind::kWord, name()};
    for (const std::string_view sign : {":=", "=", "|", "(", ")", ","}) {
      if (action_.substr(at_).starts_with(sign))
        return at_ += sign.size(), Token{Kind::kSign, std::string(sign)};
    }
    badTemplate(action_, fmt::format("unexpected '{}'", c));
  }

  std::string number() {
    const size_t start = at_++;
    while (at_ < action_.size() && (isNameCharacter(action_[at_]) || action_[at_] == '.')) ++at_;
    return std::string(action_.substr(start, at_ - start));
  }

  std::string raw() {
    const size_t end = action_.find('`', at_ + 1);  // there is one: endOfAction() saw it
    std::string text(action_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return text;
  }

  // Escapes are those of JSON, which are Go's but for the rare ones.
  std::string quoted() {
    size_t end = at_ + 1;
    while (end < action_.size() && action_[end] != '"') end += action_[end] == '\\' ? 2 : 1;
    if (end >= action_.size()) badTemplate(action_, "a string is not closed");
    const json text = json::parse(action_.substr(at_, end + 1 - at_), nullptr, false);
    if (!text.is_string()) badTemplate(action_, "a string has an escape that is not known");
    at_ = end + 1;
    return text.get<std::string>();
  }

  std::string_view action_;
  size_t at_ = 0, at_start_ = 0;
};

// One action's tokens as expressions.
class ExpressionParser {
 public:
  ExpressionParser(std::string_view action, std::vector<Token> tokens)
      : action_(action), tokens_(std::move(tokens)) {}

  bool done() const { return at_ == tokens_.size(); }
  bool takeWord(std::string_view word) {
    if (done() || tokens_[at_].kind != Token::Kind::kWord || tokens_[at_].text != word)
      return false;
    return ++at_, true;
  }
  // "$a :=", "$a, $b :=" or "$a =", when that stands here; else nothing is taken.
  std::vector<std::string> takeVariables(bool& assigns) {
    std::vector<std::string> names;
    for (size_t i = at_; i + 1 < tokens_.size() && tokens_[i].kind == Token::Kind::kVariable;
         i += 2) {
      names.push_back(tokens_[i].text);
      const Token& behind = tokens_[i + 1];
      if (behind.kind != Token::Kind::kSign) break;
      if (behind.text == ":=" || behind.text == "=") {
        assigns = behind.text == "=";
        at_ = i + 2;
        return names;
      }
      if (behind.text != ",") break;
    }
    return {};
  }

  Expression pipeline(int depth = 0) {
    if (depth > kMaxDepth) badTemplate(action_, "too many parentheses");
    Expression result;
    result.kind = Expression::Kind::kPipeline;
    do result.arguments.push_back(command(depth));
    while (takeSign("|"));
    return result;
  }

 private:
  bool isSign(std::string_view sign) const {
    return !done() && tokens_[at_].kind == Token::Kind::kSign && tokens_[at_].text == sign;
  }
  bool takeSign(std::string_view sign) { return isSign(sign) && (++at_, true); }

  Expression command(int depth) {
    Expression first = operand(depth);
    if (first.kind != Expression::Kind::kCall || !first.arguments.empty() ||
        !first.fields.empty()) {
      if (!done() && !isSign("|") && !isSign(")"))
        badTemplate(action_, "only a function takes arguments");
      return first;
    }
    while (!done() && !isSign("|") && !isSign(")")) first.arguments.push_back(operand(depth));
    return first;
  }

  Expression operand(int depth) {
    if (done()) badTemplate(action_, "a value is missing");
    const Token token = tokens_[at_++];
    Expression result;
    using Kind = Token::Kind;
    switch (token.kind) {
      case Kind::kString:
        result.kind = Expression::Kind::kLiteral;
        result.literal = token.text;
        return result;
      case Kind::kNumber:
        return number(token);
      case Kind::kWord:
        return word(token);
      case Kind::kDot:
        break;
      case Kind::kField:
        result.fields.push_back(token.text);
        break;
      case Kind::kVariable:
        result.kind = Expression::Kind::kVariable;
        result.name = token.text;
        break;
      case Kind::kSign:
        if (token.text != "(") badTemplate(action_, fmt::format("unexpected '{}'", token.text));
        result = pipeline(depth + 1);
        if (!takeSign(")")) badTemplate(action_, "a parenthesis is not closed");
        break;
    }
    while (!done() && tokens_[at_].kind == Kind::kField && tokens_[at_].adjacent)
      result.fields.push_back(tokens_[at_++].text);
    return result;
  }

  Expression number(const Token& token) const {
    Expression result;
    result.kind = Expression::Kind::kLiteral;
    result.literal = json::parse(token.text, nullptr, false);
    if (!result.literal.is_number())
      badTemplate(action_, fmt::format("{} is no number", token.text));
    return result;
  }

  Expression word(const Token& token) const {
    Expression result;
    result.kind = Expression::Kind::kLiteral;
    if (token.text == "true" || token.text == "false")
      return result.literal = token.text == "true", result;
    if (token.text == "nil") return result;
    result.kind = Expression::Kind::kCall;
    result.name = token.text;
    return result;
  }

  std::string_view action_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

class Parser {
 public:
  explicit Parser(std::string_view text) : pieces_(split(text)) {}

  std::vector<Node> all() {
    std::vector<Node> nodes = list(0);
    if (at_ < pieces_.size()) badTemplate(pieces_[at_].text, "without a beginning");
    return nodes;
  }

 private:
  // Up to the "else" or "end" that is not of a block within, which is left.
  std::vector<Node> list(int depth) {
    if (depth > kMaxDepth) badTemplate("", "too many blocks within each other");
    std::vector<Node> nodes;
    for (; at_ < pieces_.size(); ++at_) {
      const Piece& piece = pieces_[at_];
      if (!piece.action) {
        nodes.emplace_back();
        nodes.back().text = piece.text;
        continue;
      }
      ExpressionParser parser(piece.text, Lexer(piece.text).tokens());
      if (parser.takeWord("end") || parser.takeWord("else")) return nodes;
      nodes.push_back(action(piece.text, parser, depth));
    }
    return nodes;
  }

  Node action(const std::string& text, ExpressionParser& parser, int depth) {
    Node node;
    node.text = text;
    node.kind = Node::Kind::kOutput;
    if (parser.takeWord("if"))
      node.kind = Node::Kind::kIf;
    else if (parser.takeWord("range"))
      node.kind = Node::Kind::kRange;
    else if (parser.takeWord("with"))
      node.kind = Node::Kind::kWith;
    bool assigns = false;
    node.variables = parser.takeVariables(assigns);
    const bool block = node.kind != Node::Kind::kOutput;
    const size_t most = node.kind == Node::Kind::kRange ? 2 : 1;
    if (node.variables.size() > most || (block && assigns))
      badTemplate(text, "variables that do not fit here");
    if (!node.variables.empty() && !block)
      node.kind = assigns ? Node::Kind::kAssign : Node::Kind::kDeclare;
    node.value = parser.pipeline();
    if (!parser.done()) badTemplate(text, "something is left over");
    if (block) blockOf(node, depth);
    return node;
  }

  // The rest of a block, which ends at its "end"; "else if" is a block within the other branch.
  void blockOf(Node& node, int depth) {
    ++at_;
    node.body = list(depth + 1);
    if (at_ == pieces_.size()) badTemplate(node.text, "without its {{end}}");
    const std::string text = pieces_[at_].text;
    ExpressionParser parser(text, Lexer(text).tokens());
    if (parser.takeWord("end")) {
      if (!parser.done()) badTemplate(text, "something is left over");
      return;
    }
    parser.takeWord("else");
    if (!parser.done()) {
      node.otherwise.push_back(action(text, parser, depth + 1));
      const auto kind = node.otherwise.back().kind;
      if (kind != Node::Kind::kIf && kind != Node::Kind::kWith)
        badTemplate(text, "only if or with follows else");
      return;
    }
    ++at_;
    node.otherwise = list(depth + 1);
    if (at_ == pieces_.size() || pieces_[at_].text != "end")
      badTemplate(node.text, "without its {{end}}");
  }

  std::vector<Piece> pieces_;
  size_t at_ = 0;
};

}  // namespace

std::vector<Node> parseTemplate(std::string_view text) {
  return Parser(text).all();
}

}  // namespace hull::cli
