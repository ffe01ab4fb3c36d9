#include "cli/commands/build_secrets.h"

#include <fmt/format.h>

#include <cstdlib>

#include "base/file.h"
#include "base/random.h"

namespace hull::cli {

namespace {

constexpr size_t kMaxSecretBytes = 500 * 1024;
constexpr size_t kSessionBytes = 16;

// What one --secret says; a part that it leaves out is empty.
struct Wanted {
  std::string id, file, variable, type;
};

Wanted parse(const std::string& text) {
  Wanted wanted;
  for (size_t start = 0; start <= text.size();) {
    const size_t comma = std::min(text.find(',', start), text.size());
    const std::string field = text.substr(start, comma - start);
    const size_t equals = field.find('=');
    const std::string key = field.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : field.substr(equals + 1);
    if (key == "id" && !value.empty())
      wanted.id = value;
    else if ((key == "src" || key == "source") && !value.empty())
      wanted.file = value;
    else if (key == "env" && !value.empty())
      wanted.variable = value;
    else if (key == "type" && (value == "file" || value == "env"))
      wanted.type = value;
    else
      throw Exit{
          125, fmt::format("--secret {}: must be id=NAME,src=FILE or id=NAME,env=VARIABLE", text)};
    start = comma + 1;
  }
  if (wanted.id.empty()) throw Exit{125, fmt::format("--secret {}: id=NAME is missing", text)};
  return wanted;
}

std::string read(Wanted wanted) {
  if (wanted.type == "env" && wanted.variable.empty()) std::swap(wanted.variable, wanted.file);
  if (wanted.file.empty() && wanted.variable.empty())
    (getenv(wanted.id.c_str()) ? wanted.variable : wanted.file) = wanted.id;
  if (!wanted.file.empty()) return readFile(wanted.file, kMaxSecretBytes);
  const char* value = getenv(wanted.variable.c_str());
  if (!value)
    throw Exit{1, fmt::format("--secret {}: no variable {} here", wanted.id, wanted.variable)};
  return value;
}

}  // namespace

SecretForwarding::SecretForwarding(const std::vector<std::string>& wanted) {
  for (const std::string& text : wanted) {
    Wanted one = parse(text);
    const std::string id = one.id;
    if (values_.contains(id)) throw Exit{125, fmt::format("--secret {}: given twice", id)};
    values_[id] = read(std::move(one));
  }
}

Query SecretForwarding::send(const EngineClient& engine) const {
  Query query;
  if (values_.empty()) return query;
  const std::string session = randomHex(kSessionBytes);
  query.emplace_back("secretsession", session);
  for (const auto& [id, value] : values_) {
    try {
      engine.call("POST", withQuery("/build/secrets", {{"session", session}, {"id", id}}), value);
    } catch (const ApiError& error) {
      if (error.status() != 404) throw;
      throw Exit{1, "--secret: this engine takes no secrets this way (it is an older one)"};
    }
    query.emplace_back("secret", id);
  }
  return query;
}

}  // namespace hull::cli
