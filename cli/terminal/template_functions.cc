#include "cli/terminal/template_functions.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "cli/terminal/template_syntax.h"

namespace hull::cli {

using nlohmann::json;

namespace {

constexpr size_t kMaxWidth = 1000;  // of what pad and printf fill up

// What a function was called with, and complaints about it.
class Arguments {
 public:
  Arguments(std::string_view action, const std::string& name, const std::vector<json>& values)
      : action_(action), name_(name), values_(values) {}

  size_t size() const { return values_.size(); }
  const json& operator[](size_t i) const { return values_[i]; }
  void count(size_t least, size_t most) const {
    if (size() < least || size() > most) wrong("another number of arguments");
  }
  std::string text(size_t i) const {
    if (!values_[i].is_string()) wrong("a text");
    return values_[i].get<std::string>();
  }
  size_t width(size_t i) const {
    if (!values_[i].is_number_integer() || values_[i] < 0 || values_[i] > kMaxWidth)
      wrong(fmt::format("a number up to {}", kMaxWidth));
    return values_[i].get<size_t>();
  }
  [[noreturn]] void wrong(std::string_view wanted) const {
    badTemplate(action_, fmt::format("{} takes {}", name_, wanted));
  }

 private:
  std::string_view action_;
  const std::string& name_;
  const std::vector<json>& values_;
};

std::string changed(std::string text, int (*change)(int)) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [change](unsigned char c) { return static_cast<char>(change(c)); });
  return text;
}

json title(const Arguments& a) {
  a.count(1, 1);
  std::string text = templateText(a[0]);
  bool begins = true;
  for (char& c : text) {
    if (begins) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    begins = c == ' ';
  }
  return text;
}

json split(const Arguments& a) {
  a.count(2, 2);
  const std::string text = a.text(0), by = a.text(1);
  json parts = json::array();
  if (by.empty()) {
    for (const char c : text) parts.push_back(std::string(1, c));
    return parts;
  }
  for (size_t start = 0;;) {
    const size_t end = text.find(by, start);
    parts.push_back(text.substr(start, end - start));
    if (end == std::string::npos) return parts;
    start = end + by.size();
  }
}

json join(const Arguments& a) {
  a.count(2, 2);
  if (!a[0].is_array()) a.wrong("a list and a text");
  const std::string between = a.text(1);
  std::string text;
  bool first = true;
  for (const json& item : a[0]) {
    if (!first) text += between;
    first = false;
    text += templateText(item);
  }
  return text;
}

json index(const Arguments& a) {
  if (a.size() == 0) a.wrong("a value");
  json at = a[0];
  for (size_t i = 1; i < a.size(); ++i) {
    if (at.is_array() && a[i].is_number_integer() && a[i] >= 0 && a[i] < at.size())
      at = json(at[a[i].get<size_t>()]);
    else if (at.is_object() && a[i].is_string() && at.contains(a[i].get<std::string>()))
      at = json(at[a[i].get<std::string>()]);
    else
      return nullptr;
  }
  return at;
}

json length(const Arguments& a) {
  a.count(1, 1);
  if (a[0].is_string()) return a[0].get<std::string>().size();
  if (a[0].is_number() || a[0].is_boolean()) a.wrong("a text, a list or a map");
  return a[0].size();
}

// Negative, zero or positive, of two numbers or two texts.
int order(const Arguments& a) {
  a.count(2, 2);
  const bool comparable =
      (a[0].is_number() && a[1].is_number()) || (a[0].is_string() && a[1].is_string());
  if (!comparable) a.wrong("two numbers or two texts");
  return a[0] < a[1] ? -1 : a[0] == a[1] ? 0 : 1;
}

json equal(const Arguments& a) {
  if (a.size() < 2) a.wrong("at least two values");
  for (size_t i = 1; i < a.size(); ++i) {
    if (a[0] == a[i]) return true;
  }
  return false;
}

std::string printed(const Arguments& a, bool line) {
  std::string text;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool blank = i > 0 && (line || (!a[i].is_string() && !a[i - 1].is_string()));
    text += (blank ? " " : "") + templateText(a[i]);
  }
  return line ? text + "\n" : text;
}

// One %-directive of printf, as Go's fmt has them.
struct Directive {
  bool left = false, zero = false, sign = false;
  size_t width = 0;
  std::optional<size_t> precision;
  char verb = 'v';
};

size_t digits(const Arguments& a, std::string_view text, size_t& at) {
  size_t value = 0;
  for (; at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])); ++at) {
    value = value * 10 + static_cast<size_t>(text[at] - '0');
    if (value > kMaxWidth) a.wrong(fmt::format("widths up to {}", kMaxWidth));
  }
  return value;
}

Directive directive(const Arguments& a, std::string_view text, size_t& at) {
  Directive d;
  for (; at < text.size() && std::string_view("-0+ #").find(text[at]) != std::string_view::npos;
       ++at) {
    d.left |= text[at] == '-';
    d.zero |= text[at] == '0';
    d.sign |= text[at] == '+';
  }
  d.width = digits(a, text, at);
  if (at < text.size() && text[at] == '.') d.precision = digits(a, text, ++at);
  if (at == text.size()) a.wrong("a letter behind each %");
  d.verb = text[at++];
  return d;
}

std::string written(const Arguments& a, const Directive& d, const json& value) {
  switch (d.verb) {
    case 's':
    case 'v': {
      const std::string text = templateText(value);
      return d.verb == 's' && d.precision ? text.substr(0, *d.precision) : text;
    }
    case 'q':
      return json(templateText(value)).dump();
    case 't':
      if (value.is_boolean()) return value.dump();
      break;
    case 'd':
    case 'x':
      if (value.is_number_integer()) {
        const auto number = value.get<int64_t>();
        const std::string text =
            d.verb == 'd' ? fmt::format("{}", number) : fmt::format("{:x}", number);
        return (d.sign && number >= 0 ? "+" : "") + text;
      }
      break;
    case 'f':
      if (value.is_number())
        return fmt::format("{:.{}f}", value.get<double>(), d.precision.value_or(6));
      break;
    default:
      a.wrong("the verbs %s %v %q %t %d %x %f and %%");
  }
  a.wrong(fmt::format("another value for %{}", d.verb));
}

json printFormatted(const Arguments& a) {
  if (a.size() == 0) a.wrong("a text");
  const std::string format = a.text(0);
  std::string out;
  size_t next = 1;
  for (size_t at = 0; at < format.size();) {
    if (format[at] != '%') {
      out += format[at++];
      continue;
    }
    const Directive d = directive(a, format, ++at);
    if (d.verb == '%') {
      out += '%';
      continue;
    }
    if (next == a.size()) a.wrong("a value for each %");
    const std::string text = written(a, d, a[next++]);
    const size_t fill = d.width > text.size() ? d.width - text.size() : 0;
    const bool zeros = d.zero && !d.left && a[next - 1].is_number();
    out += d.left ? text + std::string(fill, ' ') : std::string(fill, zeros ? '0' : ' ') + text;
  }
  return out;
}

json padded(const Arguments& a) {
  a.count(3, 3);
  const std::string text = a.text(0);
  if (text.empty()) return text;
  return std::string(a.width(1), ' ') + text + std::string(a.width(2), ' ');
}

using Function = std::function<json(const Arguments&)>;

template <typename Work>
Function ofOne(Work work) {
  return [work](const Arguments& a) -> json {
    a.count(1, 1);
    return work(a[0]);
  };
}

const std::map<std::string, Function, std::less<>>& functions() {
  static const std::map<std::string, Function, std::less<>> all = {
      // The operands before the last have been looked at (template.cc).
      {"and",
       [](const Arguments& a) {
         return a.size() == 0 ? a.wrong("a value"), json() : a[a.size() - 1];
       }},
      {"or",
       [](const Arguments& a) {
         return a.size() == 0 ? a.wrong("a value"), json() : a[a.size() - 1];
       }},
      {"not", ofOne([](const json& v) { return !isTrue(v); })},
      {"eq", equal},
      {"ne", [](const Arguments& a) { return a.count(2, 2), json(a[0] != a[1]); }},
      {"lt", [](const Arguments& a) { return json(order(a) < 0); }},
      {"le", [](const Arguments& a) { return json(order(a) <= 0); }},
      {"gt", [](const Arguments& a) { return json(order(a) > 0); }},
      {"ge", [](const Arguments& a) { return json(order(a) >= 0); }},
      {"index", index},
      {"len", length},
      {"print", [](const Arguments& a) { return json(printed(a, false)); }},
      {"println", [](const Arguments& a) { return json(printed(a, true)); }},
      {"printf", printFormatted},
      {"json", ofOne([](const json& v) { return v.dump(); })},
      {"lower", ofOne([](const json& v) { return changed(templateText(v), std::tolower); })},
      {"upper", ofOne([](const json& v) { return changed(templateText(v), std::toupper); })},
      {"title", title},
      {"split", split},
      {"join", join},
      {"pad", padded},
      {"truncate",
       [](const Arguments& a) { return a.count(2, 2), json(a.text(0).substr(0, a.width(1))); }},
  };
  return all;
}

}  // namespace

std::string templateText(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "<no value>";
  if (value.is_array()) {
    std::string text = "[";
    for (const auto& item : value) text += (text.size() > 1 ? " " : "") + templateText(item);
    return text + "]";
  }
  if (value.is_object()) {
    std::string text = "map[";
    for (const auto& [key, item] : value.items())
      text += (text.size() > 4 ? " " : "") + key + ":" + templateText(item);
    return text + "]";
  }
  return value.dump();
}

bool isTrue(const json& value) {
  if (value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return !value.empty();
}

json callTemplateFunction(std::string_view action, const std::string& name,
                          const std::vector<json>& arguments) {
  const auto found = functions().find(name);
  if (found == functions().end()) {
    badTemplate(action, fmt::format("there is no function \"{}\" (a field begins with a dot, like "
                                    "{{{{.Name}}}})",
                                    name));
  }
  return found->second(Arguments(action, name, arguments));
}

}  // namespace hull::cli
