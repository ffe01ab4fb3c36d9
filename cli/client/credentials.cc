#include "cli/client/credentials.h"

#include <stdlib.h>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"

namespace hull::cli {

using nlohmann::json;

namespace {

constexpr size_t kMaxConfigBytes = 4 << 20;

std::string configPath() {
  if (const char* folder = getenv("DOCKER_CONFIG")) return std::string(folder) + "/config.json";
  const char* home = getenv("HOME");
  return std::string(home ? home : "/root") + "/.docker/config.json";
}

json loadConfig() {
  const std::string path = configPath();
  if (!fileExists(path)) return json::object();
  const json config = json::parse(readFile(path, kMaxConfigBytes), nullptr, false);
  if (!config.is_object()) {
    throw Error(ErrorKind::kInvalidArgument,
                "read " + path + ": it is not a JSON object (mend it, or move it away)");
  }
  return config;
}

void saveConfig(const json& config) {
  const std::string path = configPath();
  makeDirectories(path.substr(0, path.rfind('/')), 0700);
  writeFileAtomic(path, config.dump(2) + "\n", 0600);
}

// A part of the file that has another type than Docker gives it counts as absent.
json objectOf(const json& from, const std::string& name) {
  const auto found = from.find(name);
  return found != from.end() && found->is_object() ? *found : json::object();
}

std::string textOf(const json& from, const std::string& name) {
  const auto found = from.find(name);
  return found != from.end() && found->is_string() ? found->get<std::string>() : "";
}

// The docker-credential-* program responsible for `key`; empty: the file itself.
std::string helperFor(const json& config, const std::string& key, const std::string& registry) {
  const json helpers = objectOf(config, "credHelpers");
  for (const auto& name : {key, registry}) {
    if (const std::string helper = textOf(helpers, name); !helper.empty())
      return "docker-credential-" + helper;
  }
  const std::string store = textOf(config, "credsStore");
  return store.empty() ? "" : "docker-credential-" + store;
}

Login fromHelper(const std::string& helper, const std::string& key) {
  const CommandResult result = runCommand({helper, "get"}, key);
  if (result.status != 0) {
    if (result.output.find("credentials not found") != std::string::npos) return {};
    throw Error(ErrorKind::kUnavailable, "read credentials: " + helper + " get: " + result.output);
  }
  const json answer = json::parse(result.output, nullptr, false);
  if (!answer.is_object())
    throw Error(ErrorKind::kUnavailable, "read credentials: " + helper + " answered no JSON");
  Login login{answer.value("Username", ""), answer.value("Secret", ""), ""};
  if (login.username == "<token>") login = {"", "", login.password};
  return login;
}

}  // namespace

std::string registryOf(std::string_view typed) {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (typed.starts_with(scheme)) typed.remove_prefix(scheme.size());
  }
  typed = typed.substr(0, typed.find('/'));
  return typed.empty() || typed == "index.docker.io" ? "docker.io" : std::string(typed);
}

std::string credentialKey(const std::string& registry) {
  return registry.empty() || registry == "docker.io" || registry == "index.docker.io"
             ? "https://index.docker.io/v1/"
             : registry;
}

Login loadLogin(const std::string& registry) {
  const json config = loadConfig();
  const std::string key = credentialKey(registry);
  if (const std::string helper = helperFor(config, key, registry); !helper.empty())
    return fromHelper(helper, key);
  const json auths = objectOf(config, "auths");
  for (const auto& name : {key, registry, "https://" + registry, "https://" + registry + "/v1/"}) {
    if (!auths.contains(name)) continue;
    const json entry = objectOf(auths, name);
    Login login;
    login.identity_token = textOf(entry, "identitytoken");
    const std::string plain = base64Decode(textOf(entry, "auth")).value_or("");
    if (const size_t colon = plain.find(':'); colon != std::string::npos) {
      login.username = plain.substr(0, colon);
      login.password = plain.substr(colon + 1);
    }
    return login;
  }
  return {};
}

void saveLogin(const std::string& registry, const Login& login) {
  json config = loadConfig();
  config["auths"] = objectOf(config, "auths");
  const std::string key = credentialKey(registry);
  if (const std::string helper = helperFor(config, key, registry); !helper.empty()) {
    const bool token = !login.identity_token.empty();
    const json stored = {{"ServerURL", key},
                         {"Username", token ? "<token>" : login.username},
                         {"Secret", token ? login.identity_token : login.password}};
    checkCommand({helper, "store"}, stored.dump());
    config["auths"][key] = json::object();
  } else {
    json entry = {{"auth", base64Encode(login.username + ":" +
                                        (login.identity_token.empty() ? login.password : ""))}};
    if (!login.identity_token.empty()) entry["identitytoken"] = login.identity_token;
    config["auths"][key] = entry;
  }
  saveConfig(config);
}

bool eraseLogin(const std::string& registry) {
  json config = loadConfig();
  const std::string key = credentialKey(registry);
  if (const std::string helper = helperFor(config, key, registry); !helper.empty())
    checkCommand({helper, "erase"}, key);
  json auths = objectOf(config, "auths");
  if (auths.erase(key) == 0) return false;
  config["auths"] = auths;
  saveConfig(config);
  return true;
}

std::string authHeader(const std::string& registry, const Login& login) {
  json auth = json::object();
  if (!login.empty()) {
    auth = {{"username", login.username},
            {"password", login.password},
            {"serveraddress", credentialKey(registry)}};
    if (!login.identity_token.empty())
      auth = {{"identitytoken", login.identity_token}, {"serveraddress", credentialKey(registry)}};
  }
  return base64Encode(auth.dump(), Base64Alphabet::kUrl);
}

std::string registryConfigHeader() {
  json all = json::object();
  const json config = loadConfig();
  for (const std::string part : {"auths", "credHelpers"}) {
    const json entries = objectOf(config, part);
    for (const auto& [registry, entry] : entries.items()) {
      const Login login = loadLogin(registry);
      if (login.empty()) continue;
      all[registry] = {{"username", login.username},
                       {"password", login.password},
                       {"identitytoken", login.identity_token}};
    }
  }
  return base64Encode(all.dump(), Base64Alphabet::kUrl);
}

}  // namespace hull::cli
