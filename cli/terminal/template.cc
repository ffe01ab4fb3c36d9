#include "cli/terminal/template.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/terminal/template_functions.h"
#include "cli/terminal/template_syntax.h"

namespace hull::cli {

using nlohmann::json;
using Expression = TemplateExpression;
using Node = TemplateNode;

namespace {

class Expander {
 public:
  explicit Expander(const json& root) : root_(root) {}

  std::string expand(const std::vector<Node>& nodes) {
    run(nodes, root_);
    return std::move(out_);
  }

 private:
  // Variables of a block end with it.
  class Scope {
   public:
    explicit Scope(Expander& expander) : all_(expander.variables_), size_(all_.size()) {}
    ~Scope() { all_.erase(all_.begin() + static_cast<ptrdiff_t>(size_), all_.end()); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    std::vector<std::pair<std::string, json>>& all_;
    size_t size_;
  };

  void run(const std::vector<Node>& nodes, const json& dot) {
    for (const Node& node : nodes) {
      action_ = node.text;
      switch (node.kind) {
        case Node::Kind::kText:
          out_ += node.text;
          break;
        case Node::Kind::kOutput:
          out_ += templateText(value(node.value, dot));
          break;
        case Node::Kind::kDeclare:
          variables_.emplace_back(node.variables[0], value(node.value, dot));
          break;
        case Node::Kind::kAssign:
          *variable(node.variables[0]) = value(node.value, dot);
          break;
        default:
          block(node, dot);
      }
    }
  }

  void block(const Node& node, const json& dot) {
    const Scope scope(*this);
    const json chosen = condition(node.value, dot);
    if (!isTrue(chosen)) return run(node.otherwise, dot);
    if (node.kind == Node::Kind::kRange) return range(node, chosen);
    if (!node.variables.empty()) variables_.emplace_back(node.variables[0], chosen);
    run(node.body, node.kind == Node::Kind::kWith ? chosen : dot);
  }

  void range(const Node& node, const json& all) {
    if (!all.is_structured()) badTemplate(node.text, "range goes over lists and maps");
    size_t position = 0;
    for (const auto& [key, item] : all.items()) {
      const Scope scope(*this);
      const json index = all.is_object() ? json(key) : json(position++);
      if (node.variables.size() == 2) variables_.emplace_back(node.variables[0], index);
      if (!node.variables.empty()) variables_.emplace_back(node.variables.back(), item);
      run(node.body, item);
    }
  }

  json* variable(const std::string& name) {
    const auto found = std::find_if(variables_.rbegin(), variables_.rend(),
                                    [&](const auto& one) { return one.first == name; });
    if (found == variables_.rend())
      badTemplate(action_, fmt::format("there is no variable ${}", name));
    return &found->second;
  }

  // What is not there is absent, not wrong: {{if .State.Health}}.
  json condition(const Expression& expression, const json& dot) {
    const bool before = std::exchange(lenient_, true);
    json result = value(expression, dot);
    lenient_ = before;
    return result;
  }

  json value(const Expression& expression, const json& dot) {
    json result;
    switch (expression.kind) {
      case Expression::Kind::kLiteral:
        return expression.literal;
      case Expression::Kind::kDot:
        result = dot;
        break;
      case Expression::Kind::kVariable:
        result = expression.name.empty() ? root_ : *variable(expression.name);
        break;
      case Expression::Kind::kCall:
        return call(expression, dot, nullptr);
      case Expression::Kind::kPipeline:
        result = pipeline(expression, dot);
        break;
    }
    for (const std::string& name : expression.fields) result = field(result, name);
    return result;
  }

  json pipeline(const Expression& expression, const json& dot) {
    json result = value(expression.arguments.front(), dot);
    for (size_t i = 1; i < expression.arguments.size(); ++i) {
      const Expression& stage = expression.arguments[i];
      if (stage.kind != Expression::Kind::kCall)
        badTemplate(action_, "only functions follow a '|'");
      result = call(stage, dot, &result);
    }
    return result;
  }

  json call(const Expression& expression, const json& dot, const json* last) {
    std::vector<json> arguments;
    for (const Expression& argument : expression.arguments) {
      arguments.push_back(value(argument, dot));
      const bool decided = expression.name == "and"  ? !isTrue(arguments.back())
                           : expression.name == "or" ? isTrue(arguments.back())
                                                     : false;
      if (decided) return arguments.back();
    }
    if (last) arguments.push_back(*last);
    return callTemplateFunction(action_, expression.name, arguments);
  }

  json field(const json& of, const std::string& name) const {
    if (of.is_object()) {
      if (const auto found = of.find(name); found != of.end()) return *found;
    }
    if (lenient_ && (of.is_object() || of.is_null())) return nullptr;
    badTemplate(action_, fmt::format("there is no field \"{}\"", name));
  }

  const json& root_;                                     // $
  std::vector<std::pair<std::string, json>> variables_;  // innermost last
  std::string out_, action_;
  bool lenient_ = false;
};

}  // namespace

std::string expandTemplate(std::string_view text, const json& value) {
  return Expander(value).expand(parseTemplate(text));
}

}  // namespace hull::cli
