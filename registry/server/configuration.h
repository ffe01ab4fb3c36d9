// What hull-registry is told: the command line's options and the JSON file of --config, which is
// read again while serving (all of it but the addresses, the folder, the cache and the limits on
// connections). docs/registry.md describes the file. Trusted input, but typing errors are: unknown
// keys, wrong types and bad values are refused with the key's name. Pure data.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hull::registry {

inline constexpr size_t kMaxConfigurationBytes = size_t{1} << 20;
inline constexpr size_t kDefaultConnections = 512;
inline constexpr uint64_t kDefaultMaxBlobBytes = uint64_t{64} << 30;

struct AccessRule {
  std::string repository;          // pattern
  std::vector<std::string> users;  // names; "anonymous": everybody; "*": whoever logged in
  bool pull = false;
  bool push = false;
  bool remove = false;
};

struct AccessOptions {
  std::string htpasswd;  // file
  // Tokens of another server: where clients get them, who that is, and its public keys.
  std::string token_realm;  // URL; empty with kToken: this server gives tokens itself, at /token
  std::string token_service = "hull-registry";
  std::string token_issuer;
  std::string token_keys;  // PEM file: public keys or certificates
  bool tokens = false;
  bool anonymous_pull = false;    // everybody may pull everything
  std::vector<AccessRule> rules;  // empty: users may do everything, nobody else anything
};

struct QuotaRule {
  std::string repository;  // pattern: what matches shares the quota
  uint64_t bytes = 0;
};

// Tags of matching repositories that garbage collection removes: all but the newest `keep_newest`,
// those younger than `keep_younger`, those that match one of `keep`, and immutable ones.
struct RetentionRule {
  std::string repository;
  std::string tag = "**";
  std::vector<std::string> keep;
  size_t keep_newest = 0;
  std::chrono::seconds keep_younger{0};
};

struct CollectionOptions {
  std::chrono::seconds interval{0};  // 0: only when asked
  std::chrono::seconds grace{3600};  // nothing younger is removed
  bool untagged = false;             // remove manifests that no tag, index or subject leads to
  std::vector<RetentionRule> retention;
};

struct WebhookOptions {
  std::string url;
  std::string repository = "**";
  std::vector<std::string> events = {"push", "delete"};
  std::string secret;  // signs the body: X-Hull-Signature-256
};

struct CacheOptions {
  std::string upstream;  // "docker.io", "https://host[:port]"; empty: no cache
  std::string username;
  std::string password;
  std::string ca_bundle;
  std::chrono::seconds revalidate{60};  // how long a tag is believed without asking again
};

// May change while serving.
struct Policy {
  AccessOptions access;
  bool read_only = false;
  bool allow_delete = true;
  std::vector<std::string> immutable_tags;  // "<repository pattern>:<tag pattern>"
  std::vector<QuotaRule> quotas;
  CollectionOptions collection;
  std::vector<WebhookOptions> webhooks;
  uint64_t max_blob_bytes = kDefaultMaxBlobBytes;
  uint64_t requests_per_second = 0;  // of one address; 0: no limit
};

struct ServerOptions {
  std::string listen = "127.0.0.1:5000";  // address:port; [v6]:port; port 0: any free one
  std::string metrics_listen;             // /metrics and /healthz without passwords; empty: nowhere
  std::string root;
  std::string tls_certificate;  // PEM files; both or none
  std::string tls_key;
  std::string access_log;  // file, "-" for standard output, "none"; empty: with the other lines
  size_t connections = kDefaultConnections;
  CacheOptions cache;
  Policy policy;
};

// Adds what the JSON text says to `options`; throws kInvalidArgument.
void applyConfiguration(std::string_view text, ServerOptions& options);

// "10GiB", "500MB", "1024"; throws kInvalidArgument naming `what`.
uint64_t parseBytes(std::string_view text, std::string_view what);
// "30d", "12h", "10m", "45s"; a bare number counts seconds.
std::chrono::seconds parseDuration(std::string_view text, std::string_view what);

}  // namespace hull::registry
