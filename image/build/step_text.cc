#include "image/build/step_text.h"

#include "base/bytes.h"
#include "base/hash.h"

namespace hull::build {

const std::set<std::string>& proxyArgs() {
  static const std::set<std::string> names = {
      "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY",
      "ftp_proxy",  "NO_PROXY",   "no_proxy",    "ALL_PROXY",   "all_proxy"};
  return names;
}

std::string hashOf(std::initializer_list<std::string> parts) {
  ByteWriter key;
  for (const auto& part : parts) key.string(part);
  return sha256Hex(key.bytes());
}

std::string hashOf(const std::vector<std::string>& parts) {
  ByteWriter key;
  key.strings(parts);
  return sha256Hex(key.bytes());
}

std::string joinWords(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

}  // namespace hull::build
