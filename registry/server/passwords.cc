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
constexpr const char* kDecoy = "$2y$10$u7lQWPQSk2fIFUntYl/E9.";  // a setting: matches nothing

bool isDigit(char c) {
  return c >= '0' && c <= '9';
}

// "$2y$10$…", 60 characters (crypt(5)).
bool isBcrypt(std::string_view hash) {
  const bool known =
      hash.starts_with("$2y$") || hash.starts_with("$2b$") || hash.starts_with("$2a$");
  if (hash.size() != 60 || !known || !isDigit(hash[4]) || !isDigit(hash[5]) || hash[6] != '$') {
    return false;
  }
  return static_cast<unsigned>((hash[4] - '0') * 10 + hash[5] - '0') <= kMaxBcryptCost;
}

std::string hashOf(const std::string& password) {
  char setting[CRYPT_GENSALT_OUTPUT_SIZE];
  const auto work = std::make_unique<crypt_data>();
  const char* hash = nullptr;
  if (crypt_gensalt_rn("$2y$", kBcryptCost, nullptr, 0, setting, sizeof setting)) {
    hash = ::crypt_r(password.c_str(), setting, work.get());
  }
  if (!hash || !isBcrypt(hash)) {
    throw Error(ErrorKind::kInternal, "hash the password: libcrypt failed");
  }
  return hash;
}

std::string_view takeLine(std::string_view& text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(line.size() + 1, text.size()));
  return line;
}

bool isUserName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxUserNameBytes && name[0] != '#' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return static_cast<unsigned char>(c) > 0x20 && c != 0x7f && c != ':';
         });
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
    std::string_view line = takeLine(text);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line[0] == '#') continue;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || !isUserName(line.substr(0, colon)) ||
        !isBcrypt(line.substr(colon + 1))) {
      throw Error(ErrorKind::kInvalidArgument,
                  "read htpasswd: line " + std::to_string(number) +
                      ": expected user:bcrypt hash with a cost up to " +
                      std::to_string(kMaxBcryptCost) +
                      " (make it with hull-registry user add, or htpasswd -B)");
    }
    hashes_.emplace(line.substr(0, colon), line.substr(colon + 1));
  }
}

bool Passwords::matches(const std::string& password, const std::string& hash) const {
  const auto work = std::make_unique<crypt_data>();
  const char* made = ::crypt_r(password.c_str(), hash.c_str(), work.get());
  return made && equalInConstantTime(made, hash);
}

std::optional<std::string> Passwords::user(std::string_view authorization) const {
  if (!isBasic(authorization.substr(0, 6))) return std::nullopt;
  const auto decoded = base64Decode(authorization.substr(6));
  if (!decoded) return std::nullopt;
  const size_t colon = decoded->find(':');
  if (colon == std::string::npos || decoded->find('\0') != std::string::npos) return std::nullopt;
  std::string name = decoded->substr(0, colon);
  const std::string password = decoded->substr(colon + 1);
  if (password.size() > kMaxPasswordBytes) return std::nullopt;
  const auto known = hashes_.find(name);
  if (known == hashes_.end()) {
    matches(password, kDecoy);  // or the time taken would tell who exists
    return std::nullopt;
  }
  const std::string remembered = sha256Hex(key_ + *decoded);
  {
    const std::lock_guard lock(mutex_);
    if (accepted_.contains(remembered)) return name;
  }
  if (!matches(password, known->second)) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (accepted_.size() >= kMaxRememberedLogins) accepted_.clear();
  accepted_.insert(remembered);
  return name;
}

std::vector<std::string> Passwords::users() const {
  std::vector<std::string> names;
  for (const auto& [name, hash] : hashes_) names.push_back(name);
  return names;
}

std::optional<std::string> withoutUser(std::string_view text, const std::string& name) {
  std::string kept;
  bool found = false;
  while (!text.empty()) {
    const std::string_view line = takeLine(text);
    if (line.starts_with(name + ":")) {
      found = true;
    } else {
      kept += std::string(line) + "\n";
    }
  }
  return found ? std::optional(kept) : std::nullopt;
}

std::string withUser(std::string_view text, const std::string& name, const std::string& password) {
  if (!isUserName(name)) {
    throw Error(ErrorKind::kInvalidArgument,
                "add user: a name has 1 to 255 bytes, none of them a space or ':'");
  }
  const bool fits = !password.empty() && password.size() <= kMaxPasswordBytes &&
                    password.find_first_of(std::string_view("\0\n", 2)) == std::string::npos;
  if (!fits) {
    throw Error(ErrorKind::kInvalidArgument,
                "add user: a password has 1 to 72 bytes (bcrypt reads no more)");
  }
  std::string others = withoutUser(text, name).value_or(std::string(text));
  if (!others.empty() && !others.ends_with('\n')) others += '\n';
  return others + name + ":" + hashOf(password) + "\n";
}

}  // namespace hull::registry
