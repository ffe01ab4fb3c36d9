#include "registry/server/passwords.h"

#include <crypt.h>

#include <algorithm>
#include <memory>

#include "base/base64.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"

namespace hull::registry {

namespace {

constexpr size_t kKeyBytes = 32;

bool isBcrypt(std::string_view hash) {
  return hash.size() == 60 &&
         (hash.starts_with("$2y$") || hash.starts_with("$2b$") || hash.starts_with("$2a$"));
}

bool equalInConstantTime(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  }
  return difference == 0;
}

bool isBasic(std::string_view scheme) {
  static constexpr std::string_view kBasic = "basic ";
  return scheme.size() == kBasic.size() &&
         std::equal(scheme.begin(), scheme.end(), kBasic.begin(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; });
}

}  // namespace

Passwords::Passwords(std::string_view text) : key_(randomHex(kKeyBytes)) {
  for (size_t number = 1; !text.empty(); ++number) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line[0] == '#') continue;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0 || !isBcrypt(line.substr(colon + 1))) {
      throw Error(ErrorKind::kInvalidArgument,
                  "read htpasswd: line " + std::to_string(number) +
                      ": expected user:bcrypt hash (make it with htpasswd -B)");
    }
    hashes_.emplace(line.substr(0, colon), line.substr(colon + 1));
  }
}

bool Passwords::accepts(std::string_view authorization) const {
  if (!isBasic(authorization.substr(0, 6))) return false;
  const auto decoded = base64Decode(authorization.substr(6));
  if (!decoded) return false;
  const size_t colon = decoded->find(':');
  if (colon == std::string::npos || decoded->find('\0') != std::string::npos) return false;
  const std::string password = decoded->substr(colon + 1);
  const auto user = hashes_.find(std::string_view(*decoded).substr(0, colon));
  if (user == hashes_.end() || password.size() > kMaxPasswordBytes) return false;
  const std::string remembered = sha256Hex(key_ + *decoded);
  {
    const std::lock_guard lock(mutex_);
    if (accepted_.contains(remembered)) return true;
  }
  const auto work = std::make_unique<crypt_data>();
  const char* hash = ::crypt_r(password.c_str(), user->second.c_str(), work.get());
  if (!hash || !equalInConstantTime(hash, user->second)) return false;
  const std::lock_guard lock(mutex_);
  if (accepted_.size() >= kMaxRememberedLogins) accepted_.clear();
  accepted_.insert(remembered);
  return true;
}

}  // namespace hull::registry
