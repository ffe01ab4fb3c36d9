#include "registry/server/configuration.h"

#include <charconv>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "registry/server/pattern.h"

namespace hull::registry {

using Json = nlohmann::json;

namespace {

[[noreturn]] void refuse(const std::string& key, const std::string& why) {
  throw Error(ErrorKind::kInvalidArgument, key + ": " + why);
}

std::string textOf(const Json& value, const std::string& key) {
  if (!value.is_string()) refuse(key, "expected text");
  return value.get<std::string>();
}

bool flagOf(const Json& value, const std::string& key) {
  if (!value.is_boolean()) refuse(key, "expected true or false");
  return value.get<bool>();
}

uint64_t numberOf(const Json& value, const std::string& key) {
  if (!value.is_number_unsigned()) refuse(key, "expected a whole number");
  return value.get<uint64_t>();
}

uint64_t bytesOf(const Json& value, const std::string& key) {
  return value.is_string() ? parseBytes(value.get<std::string>(), key) : numberOf(value, key);
}

std::chrono::seconds durationOf(const Json& value, const std::string& key) {
  if (value.is_string()) return parseDuration(value.get<std::string>(), key);
  return parseDuration(std::to_string(numberOf(value, key)), key);
}

std::vector<std::string> textsOf(const Json& value, const std::string& key) {
  if (!value.is_array()) refuse(key, "expected a list");
  std::vector<std::string> texts;
  for (const Json& entry : value) texts.push_back(textOf(entry, key));
  return texts;
}

std::string patternOf(const Json& value, const std::string& key) {
  std::string pattern = textOf(value, key);
  if (pattern.empty() || pattern.size() > kMaxPatternBytes) refuse(key, "bad pattern");
  return pattern;
}

// The members of one object, each with what takes it; anything else is refused.
using Members = std::map<std::string, std::function<void(const Json&, const std::string&)>>;

void take(const Json& object, const std::string& at, const Members& members) {
  if (!object.is_object()) refuse(at.empty() ? "configuration" : at, "expected an object");
  for (const auto& [key, value] : object.items()) {
    const std::string path = at.empty() ? key : at + "." + key;
    const auto member = members.find(key);
    if (member == members.end()) {
      std::string known;
      for (const auto& [name, unused] : members) known += (known.empty() ? "" : ", ") + name;
      refuse(path, "unknown key (there are: " + known + ")");
    }
    member->second(value, path);
  }
}

template <typename Take>
void each(const Json& list, const std::string& key, Take&& entry) {
  if (!list.is_array()) refuse(key, "expected a list");
  size_t number = 0;
  for (const Json& value : list) entry(value, key + "[" + std::to_string(number++) + "]");
}

auto into(std::string& target) {
  return [&target](const Json& value, const std::string& key) { target = textOf(value, key); };
}
auto into(bool& target) {
  return [&target](const Json& value, const std::string& key) { target = flagOf(value, key); };
}
auto into(std::chrono::seconds& target) {
  return [&target](const Json& value, const std::string& key) { target = durationOf(value, key); };
}
auto patternInto(std::string& target) {
  return [&target](const Json& value, const std::string& key) { target = patternOf(value, key); };
}
auto into(std::vector<std::string>& target) {
  return [&target](const Json& value, const std::string& key) { target = textsOf(value, key); };
}

AccessRule accessRule(const Json& value, const std::string& at) {
  AccessRule rule;
  const auto actions = [&](const Json& list, const std::string& key) {
    for (const std::string& action : textsOf(list, key)) {
      if (action == "pull") {
        rule.pull = true;
      } else if (action == "push") {
        rule.push = true;
      } else if (action == "delete") {
        rule.remove = true;
      } else {
        refuse(key, "\"" + action + "\" is none of pull, push, delete");
      }
    }
  };
  take(value, at,
       {{"repository", patternInto(rule.repository)},
        {"users", into(rule.users)},
        {"actions", actions}});
  if (rule.repository.empty()) refuse(at, "repository is missing");
  if (rule.users.empty()) refuse(at, "users is missing (names, \"*\" or \"anonymous\")");
  return rule;
}

RetentionRule retentionRule(const Json& value, const std::string& at) {
  RetentionRule rule;
  take(value, at,
       {{"repository", patternInto(rule.repository)},
        {"tag", patternInto(rule.tag)},
        {"keep", into(rule.keep)},
        {"keep_newest",
         [&](const Json& n, const std::string& key) { rule.keep_newest = numberOf(n, key); }},
        {"keep_younger", into(rule.keep_younger)}});
  if (rule.repository.empty()) refuse(at, "repository is missing");
  if (rule.keep_newest == 0 && rule.keep_younger.count() == 0) {
    refuse(at, "one of keep_newest and keep_younger must be given, or every tag would go");
  }
  return rule;
}

WebhookOptions webhook(const Json& value, const std::string& at) {
  WebhookOptions hook;
  take(value, at,
       {{"url", into(hook.url)},
        {"repository", patternInto(hook.repository)},
        {"events", into(hook.events)},
        {"secret", into(hook.secret)}});
  if (!hook.url.starts_with("http://") && !hook.url.starts_with("https://")) {
    refuse(at + ".url", "expected http:// or https://");
  }
  return hook;
}

QuotaRule quotaRule(const Json& value, const std::string& at) {
  QuotaRule rule;
  take(value, at,
       {{"repository", patternInto(rule.repository)},
        {"bytes", [&](const Json& n, const std::string& key) { rule.bytes = bytesOf(n, key); }}});
  if (rule.repository.empty()) refuse(at, "repository is missing");
  return rule;
}

void takeAccess(const Json& value, const std::string& at, AccessOptions& access) {
  const auto token = [&](const Json& object, const std::string& key) {
    access.tokens = true;
    take(object, key,
         {{"realm", into(access.token_realm)},
          {"service", into(access.token_service)},
          {"issuer", into(access.token_issuer)},
          {"keys", into(access.token_keys)}});
    if (!access.token_realm.empty() && access.token_keys.empty()) {
      refuse(key, "keys is missing: the public keys of " + access.token_realm);
    }
  };
  const auto rules = [&](const Json& list, const std::string& key) {
    access.rules.clear();
    each(list, key, [&](const Json& entry, const std::string& name) {
      access.rules.push_back(accessRule(entry, name));
    });
  };
  take(value, at,
       {{"htpasswd", into(access.htpasswd)},
        {"anonymous_pull", into(access.anonymous_pull)},
        {"token", token},
        {"rules", rules}});
}

void takeCollection(const Json& value, const std::string& at, CollectionOptions& collection) {
  const auto retention = [&](const Json& list, const std::string& key) {
    collection.retention.clear();
    each(list, key, [&](const Json& entry, const std::string& name) {
      collection.retention.push_back(retentionRule(entry, name));
    });
  };
  take(value, at,
       {{"interval", into(collection.interval)},
        {"grace", into(collection.grace)},
        {"untagged", into(collection.untagged)},
        {"retention", retention}});
}

void takeCache(const Json& value, const std::string& at, CacheOptions& cache) {
  take(value, at,
       {{"upstream", into(cache.upstream)},
        {"username", into(cache.username)},
        {"password", into(cache.password)},
        {"ca", into(cache.ca_bundle)},
        {"revalidate", into(cache.revalidate)}});
}

void takeLimits(const Json& value, const std::string& at, ServerOptions& options) {
  const auto connections = [&](const Json& n, const std::string& key) {
    options.connections = numberOf(n, key);
    if (options.connections == 0) refuse(key, "expected at least 1");
  };
  take(value, at,
       {{"connections", connections},
        {"blob_bytes",
         [&](const Json& n, const std::string& key) {
           options.policy.max_blob_bytes = bytesOf(n, key);
         }},
        {"requests_per_second", [&](const Json& n, const std::string& key) {
           options.policy.requests_per_second = numberOf(n, key);
         }}});
}

}  // namespace

uint64_t parseBytes(std::string_view text, std::string_view what) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  static const std::map<std::string_view, uint64_t> kUnits = {
      {"", 1},
      {"B", 1},
      {"kB", 1000},
      {"MB", 1000000},
      {"GB", 1000000000},
      {"TB", 1000000000000},
      {"KiB", uint64_t{1} << 10},
      {"MiB", uint64_t{1} << 20},
      {"GiB", uint64_t{1} << 30},
      {"TiB", uint64_t{1} << 40},
  };
  const auto factor = kUnits.find(unit);
  if (error != std::errc() || factor == kUnits.end() || value > UINT64_MAX / factor->second) {
    refuse(std::string(what), "\"" + std::string(text) + "\" is no size (as in 500MiB, 10GB)");
  }
  return value * factor->second;
}

std::chrono::seconds parseDuration(std::string_view text, std::string_view what) {
  constexpr uint64_t kMaxSeconds = uint64_t{100} * 366 * 24 * 3600;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  static const std::map<std::string_view, uint64_t> kUnits = {
      {"", 1}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}, {"w", 7 * 86400}};
  const auto factor = kUnits.find(unit);
  if (error != std::errc() || factor == kUnits.end() || value > kMaxSeconds / factor->second) {
    refuse(std::string(what), "\"" + std::string(text) + "\" is no time (as in 45s, 12h, 30d)");
  }
  return std::chrono::seconds(value * factor->second);
}

void applyConfiguration(std::string_view text, ServerOptions& options) {
  if (text.size() > kMaxConfigurationBytes) {
    throw Error(ErrorKind::kTooLarge, "the configuration is larger than 1 MiB");
  }
  Json document;
  try {
    document = Json::parse(text, nullptr, true, true);  // with comments
  } catch (const Json::parse_error& error) {
    throw Error(ErrorKind::kInvalidArgument,
                "it is not JSON: at byte " + std::to_string(error.byte));
  }
  Policy& policy = options.policy;
  const auto tls = [&](const Json& value, const std::string& at) {
    take(value, at,
         {{"certificate", into(options.tls_certificate)}, {"key", into(options.tls_key)}});
  };
  const auto quotas = [&](const Json& value, const std::string& at) {
    policy.quotas.clear();
    each(value, at, [&](const Json& entry, const std::string& key) {
      policy.quotas.push_back(quotaRule(entry, key));
    });
  };
  const auto webhooks = [&](const Json& value, const std::string& at) {
    policy.webhooks.clear();
    each(value, at, [&](const Json& entry, const std::string& key) {
      policy.webhooks.push_back(webhook(entry, key));
    });
  };
  const auto immutable = [&](const Json& value, const std::string& at) {
    policy.immutable_tags = textsOf(value, at);
    for (const std::string& pattern : policy.immutable_tags) {
      if (pattern.find(':') == std::string::npos) refuse(at, "expected \"repository:tag\"");
    }
  };
  take(document, "",
       {{"listen", into(options.listen)},
        {"metrics_listen", into(options.metrics_listen)},
        {"root", into(options.root)},
        {"tls", tls},
        {"access_log", into(options.access_log)},
        {"access", [&](const Json& v, const std::string& k) { takeAccess(v, k, policy.access); }},
        {"read_only", into(policy.read_only)},
        {"allow_delete", into(policy.allow_delete)},
        {"immutable_tags", immutable},
        {"quotas", quotas},
        {"collection",
         [&](const Json& v, const std::string& k) { takeCollection(v, k, policy.collection); }},
        {"webhooks", webhooks},
        {"cache", [&](const Json& v, const std::string& k) { takeCache(v, k, options.cache); }},
        {"limits", [&](const Json& v, const std::string& k) { takeLimits(v, k, options); }}});
}

}  // namespace hull::registry
