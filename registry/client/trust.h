// How far the server at a URL is trusted: registries that need no TLS or no certificate anybody
// vouches for, and the certificates that folders hold for a registry, as Docker has them. Any
// thread.
#pragma once

#include <string>
#include <vector>

#include "registry/client/client.h"
#include "registry/http/url.h"

namespace hull::registry {

// May the server at `url` go without TLS, or with a certificate nobody vouches for? Entries of
// ClientOptions::insecure_registries are "host:port", "host", or networks as "10.0.0.0/8".
bool isInsecure(const ClientOptions& options, const Url& url);

// Folders with one folder per registry, named "host:port" or "host", that holds its CAs (*.crt) and
// our client certificates (*.cert with *.key): $HULL_CERTS_D, /etc/hull/certs.d,
// /etc/docker/certs.d.
std::vector<std::string> certificateFolders();

struct RegistryCertificates {
  std::vector<std::string> authorities;  // PEM files
  std::string certificate;               // PEM files, both or none: who we are
  std::string key;
};
// Of the first of the folders that has any for the server at `url`.
RegistryCertificates certificatesFor(const std::vector<std::string>& folders, const Url& url);

// What pulls from `registry` try first, in order: the lines of the file "mirrors" in the first
// folder for it that has one ("https://mirror.example", "http://host:port"; '#' begins a comment).
// A URL with a path and the like is refused with kInvalidArgument.
std::vector<std::string> mirrorsOf(const std::vector<std::string>& folders,
                                   const std::string& registry);

}  // namespace hull::registry
