// The parsed form of a template (template.h). Values.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace hull::cli {

struct TemplateExpression {
  enum class Kind { kLiteral, kDot, kVariable, kCall, kPipeline };
  Kind kind = Kind::kDot;
  nlohmann::json literal;
  std::string name;                           // of a variable ("" is $) or a function
  std::vector<TemplateExpression> arguments;  // of a call; the stages of a pipeline
  std::vector<std::string> fields;            // of the value: .A.B
};

struct TemplateNode {
  enum class Kind { kText, kOutput, kDeclare, kAssign, kIf, kRange, kWith };
  Kind kind = Kind::kText;
  std::string text;  // of kText; else the action, for messages
  std::vector<std::string> variables;
  TemplateExpression value;
  std::vector<TemplateNode> body, otherwise;
};

std::vector<TemplateNode> parseTemplate(std::string_view text);

// `action` is what stands between the braces.
[[noreturn]] void badTemplate(std::string_view action, std::string_view cause);

}  // namespace hull::cli
