#include "cli/client/key_values.h"

#include <nlohmann/json.hpp>

namespace hull::cli {

nlohmann::json keyValues(const std::vector<std::string>& items) {
  auto object = nlohmann::json::object();
  for (const auto& item : items) {
    const size_t equals = item.find('=');
    object[item.substr(0, equals)] = equals == std::string::npos ? "" : item.substr(equals + 1);
  }
  return object;
}

}  // namespace hull::cli
