// Where an engine is, and connections to it: a unix socket, a TCP port behind mutual TLS, or
// another host by ssh(1) (which runs `hull system dial-stdio` there). Contexts are endpoints with
// names, kept in ~/.hull/contexts.json. Any thread.
#pragma once

#include <map>
#include <string>

#include "base/fd.h"

namespace hull::cli {

struct Endpoint {
  std::string url;  // "unix:///path" or a path, "tcp://host:port", "ssh://[user@]host[:port]"
  std::string tls_folder;  // of ca.pem, cert.pem, key.pem; for tcp
  std::string description;
  bool in_machine = false;  // a unix socket whose other end is in hull machine

  bool remote() const { return url.starts_with("tcp://") || url.starts_with("ssh://"); }
};

// A new connection. Throws kInvalidArgument for another kind of URL, kUnavailable, kForbidden.
Fd connectTo(const Endpoint& endpoint);
void checkEndpoint(const Endpoint& endpoint);      // without connecting
std::string socketPathOf(const std::string& url);  // of a unix one

inline constexpr const char* kDefaultContext = "default";  // the engine of this machine

struct Contexts {
  std::string current = kDefaultContext;
  std::map<std::string, Endpoint> named;  // without the default one
};
std::string contextsPath();  // HULL_CONFIG or ~/.hull, "/contexts.json"
Contexts loadContexts();     // a missing file is no contexts; throws kCorrupt naming a broken one
void saveContexts(const Contexts& contexts);

}  // namespace hull::cli
