#include "cli/client/endpoint.h"

#include <netdb.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <charconv>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "base/tls.h"

namespace hull::cli {

using nlohmann::json;

namespace {

constexpr const char* kTcpPort = "2376";  // Docker's for TLS
constexpr size_t kMaxContextsBytes = 1 << 20;

struct HostAndPort {
  std::string host, port;
};

// "host:2376", "[::1]:2376", "host"
HostAndPort splitAddress(const std::string& text, const std::string& url) {
  HostAndPort parts{text, ""};
  const size_t colon = text.rfind(':');
  if (colon != std::string::npos && text.find(']', colon) == std::string::npos) {
    parts = {text.substr(0, colon), text.substr(colon + 1)};
  }
  if (parts.host.starts_with('[') && parts.host.ends_with(']')) {
    parts.host = parts.host.substr(1, parts.host.size() - 2);
  }
  unsigned port = 0;
  const char* const end = parts.port.data() + parts.port.size();
  const auto [rest, failed] = std::from_chars(parts.port.data(), end, port);
  const bool bad_port =
      !parts.port.empty() && (failed != std::errc() || rest != end || port > 65535);
  // A leading dash would be an option to ssh.
  if (parts.host.empty() || parts.host.starts_with('-') || bad_port) {
    throw Error(ErrorKind::kInvalidArgument, "connect to " + url + ": expected host[:port]");
  }
  return parts;
}

std::string tlsFolder(const Endpoint& endpoint) {
  if (!endpoint.tls_folder.empty()) return endpoint.tls_folder;
  if (const char* folder = getenv("HULL_CERT_PATH")) return folder;
  throw Error(ErrorKind::kInvalidArgument,
              "connect to " + endpoint.url +
                  ": an engine behind TCP is reached with mutual TLS only (name the folder of "
                  "ca.pem, cert.pem and key.pem in HULL_CERT_PATH, or with hull context create "
                  "--tls)");
}

Fd connectTcp(const Endpoint& endpoint) {
  const auto [host, port] = splitAddress(endpoint.url.substr(6), endpoint.url);
  const TlsIdentity identity(TlsIdentity::Role::kClient, tlsFilesIn(tlsFolder(endpoint)));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed =
      getaddrinfo(host.c_str(), port.empty() ? kTcpPort : port.c_str(), &hints, &found);
  if (failed != 0) {
    throw Error(ErrorKind::kUnavailable,
                "connect to " + endpoint.url + ": " + gai_strerror(failed));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(found, freeaddrinfo);
  int cause = 0;
  for (const addrinfo* at = found; at; at = at->ai_next) {
    Fd connection(socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connection && connect(connection.get(), at->ai_addr, at->ai_addrlen) == 0) {
      return inContext("connect to " + endpoint.url,
                       [&] { return identity.tunnel(std::move(connection), host); });
    }
    cause = errno;
  }
  throw Error(ErrorKind::kUnavailable, sysError("connect to " + endpoint.url, cause).what());
}

Fd connectSsh(const Endpoint& endpoint) {
  const auto [host, port] = splitAddress(endpoint.url.substr(6), endpoint.url);
  SubprocessOptions options;
  options.arguments = {"ssh", "-o", "BatchMode=yes"};
  if (!port.empty()) options.arguments.insert(options.arguments.end(), {"-p", port});
  options.arguments.insert(options.arguments.end(), {"--", host, "hull", "system", "dial-stdio"});
  FdPair pair = makeSocketPair(SOCK_STREAM);
  options.descriptors = {{pair.second.get(), 0}, {pair.second.get(), 1}, {2, 2}};
  Subprocess ssh(options);
  ssh.detach();  // it ends with the connection
  return std::move(pair.first);
}

}  // namespace

std::string socketPathOf(const std::string& url) {
  if (url.starts_with("unix://")) return url.substr(7);
  if (url.find("://") != std::string::npos) {
    throw Error(ErrorKind::kInvalidArgument,
                "connect to " + url + ": expected unix:///path, tcp://host:port or ssh://host");
  }
  return url;
}

void checkEndpoint(const Endpoint& endpoint) {
  if (endpoint.remote()) {
    (void)splitAddress(endpoint.url.substr(6), endpoint.url);
  } else {
    (void)socketPathOf(endpoint.url);
  }
}

Fd connectTo(const Endpoint& endpoint) {
  if (endpoint.url.starts_with("tcp://")) return connectTcp(endpoint);
  if (endpoint.url.starts_with("ssh://")) return connectSsh(endpoint);
  return connectUnix(socketPathOf(endpoint.url));
}

// --- contexts ---

std::string contextsPath() {
  if (const char* folder = getenv("HULL_CONFIG")) return std::string(folder) + "/contexts.json";
  const char* home = getenv("HOME");
  return std::string(home ? home : "/root") + "/.hull/contexts.json";
}

Contexts loadContexts() {
  Contexts contexts;
  const std::string path = contextsPath();
  if (!fileExists(path)) return contexts;
  const json document = json::parse(readFile(path, kMaxContextsBytes), nullptr, false);
  try {
    contexts.current = document.at("current").get<std::string>();
    for (const auto& [name, one] : document.at("contexts").items()) {
      contexts.named[name] = {one.at("host").get<std::string>(), one.value("tls", ""),
                              one.value("description", "")};
    }
  } catch (const json::exception&) {
    throw Error(ErrorKind::kCorrupt, "read " + path +
                                         ": not a list of contexts (mend it, or delete it and "
                                         "create the contexts anew)");
  }
  return contexts;
}

void saveContexts(const Contexts& contexts) {
  json named = json::object();
  for (const auto& [name, one] : contexts.named) {
    named[name] = {{"host", one.url}, {"tls", one.tls_folder}, {"description", one.description}};
  }
  const std::string path = contextsPath();
  makeDirectories(std::filesystem::path(path).parent_path().string(), 0700);
  writeFileAtomic(path, json{{"current", contexts.current}, {"contexts", named}}.dump(2) + "\n");
}

}  // namespace hull::cli
