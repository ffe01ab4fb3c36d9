#include "registry/client/trust.h"

#include <arpa/inet.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "base/file.h"

namespace hull::registry {

namespace fs = std::filesystem;

namespace {

constexpr size_t kMaxCertificateFiles = 64;  // of one registry
constexpr size_t kMaxMirrorFileBytes = 64 << 10;
constexpr size_t kMaxMirrors = 16;

struct Address {
  int family = AF_INET;
  std::array<unsigned char, 16> bytes{};
};

std::optional<Address> parseAddress(const std::string& text) {
  for (const int family : {AF_INET, AF_INET6}) {
    Address address;
    address.family = family;
    if (inet_pton(family, text.c_str(), address.bytes.data()) == 1) return address;
  }
  return std::nullopt;
}

// "10.0.0.0/8" and the like; only literal addresses can be in one.
bool isInNetwork(const std::string& network, const std::string& host) {
  const size_t slash = network.find('/');
  if (slash == std::string::npos) return false;
  const auto base = parseAddress(network.substr(0, slash));
  const auto address = parseAddress(host);
  size_t bits = 0;
  const char* end = network.data() + network.size();
  const auto [stop, error] = std::from_chars(network.data() + slash + 1, end, bits);
  if (!base || !address || base->family != address->family || error != std::errc() || stop != end) {
    return false;
  }
  if (bits > (base->family == AF_INET ? 32U : 128U)) return false;
  for (size_t i = 0; i < bits; ++i) {
    const unsigned mask = 0x80U >> (i % 8);
    if ((base->bytes[i / 8] & mask) != (address->bytes[i / 8] & mask)) return false;
  }
  return true;
}

}  // namespace

bool isInsecure(const ClientOptions& options, const Url& url) {
  return std::any_of(options.insecure_registries.begin(), options.insecure_registries.end(),
                     [&](const std::string& entry) {
                       return entry == url.host || entry == url.authority() ||
                              entry == url.host + ":" + std::to_string(url.port) ||
                              isInNetwork(entry, url.host);
                     });
}

std::vector<std::string> certificateFolders() {
  std::vector<std::string> folders;
  if (const char* own = getenv("HULL_CERTS_D")) folders.emplace_back(own);
  folders.insert(folders.end(), {"/etc/hull/certs.d", "/etc/docker/certs.d"});
  return folders;
}

RegistryCertificates certificatesFor(const std::vector<std::string>& folders, const Url& url) {
  RegistryCertificates found;
  for (const std::string& folder : folders) {
    for (const std::string& name :
         {url.host + ":" + std::to_string(url.port), url.authority(), url.host}) {
      std::error_code error;
      fs::directory_iterator it(folder + "/" + name, error);
      if (error) continue;
      std::vector<std::string> files;
      for (const fs::directory_iterator end; !error && it != end; it.increment(error)) {
        if (files.size() < kMaxCertificateFiles) files.push_back(it->path().string());
      }
      std::sort(files.begin(), files.end());
      for (const std::string& file : files) {
        if (file.ends_with(".crt")) found.authorities.push_back(file);
        if (!file.ends_with(".cert") || !found.certificate.empty()) continue;
        const std::string key = file.substr(0, file.size() - 5) + ".key";
        if (std::find(files.begin(), files.end(), key) == files.end()) continue;
        found.certificate = file;
        found.key = key;
      }
      return found;
    }
  }
  return found;
}

std::vector<std::string> mirrorsOf(const std::vector<std::string>& folders,
                                   const std::string& registry) {
  std::vector<std::string> mirrors;
  for (const std::string& folder : folders) {
    const std::string path = folder + "/" + registry + "/mirrors";
    if (!fileExists(path)) continue;
    std::istringstream lines(readFile(path, kMaxMirrorFileBytes));
    for (std::string line; std::getline(lines, line) && mirrors.size() < kMaxMirrors;) {
      line = line.substr(0, line.find('#'));
      std::erase_if(line, [](char c) { return c == ' ' || c == '\t' || c == '\r'; });
      if (line.empty()) continue;
      if (inContext("read " + path, [&] { return Url::parse(line); }).target != "/") {
        throw Error(ErrorKind::kInvalidArgument,
                    "read " + path + ": " + line + ": expected https://host[:port] and no path");
      }
      mirrors.push_back(line);
    }
    break;
  }
  return mirrors;
}

}  // namespace hull::registry
