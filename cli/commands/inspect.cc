#include "cli/commands/inspect.h"

#include <iostream>

#include "cli/terminal/format.h"
#include "cli/terminal/template.h"

namespace hull::cli {

using nlohmann::json;

void printInspected(const std::string& format, const std::vector<json>& found) {
  if (!format.empty() && format != "json") {
    for (const auto& object : found) std::cout << expandTemplate(format, object) << "\n";
  } else {
    std::cout << json(found).dump(format == "json" ? -1 : 4) << "\n";
  }
}

void inspectEach(Context& context, const std::string& format, const std::vector<std::string>& names,
                 const std::function<json(const std::string&)>& get) {
  std::vector<json> found;
  forEachName(context, names, [&](const std::string& name) { found.push_back(get(name)); });
  printInspected(format, found);
}

}  // namespace hull::cli
