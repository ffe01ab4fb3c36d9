// Users and bcrypt passwords from an htpasswd file, read once. A password that was right is
// remembered by a keyed digest, because bcrypt is slow by intent. Any thread.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

namespace hull::registry {

inline constexpr size_t kMaxPasswordBytes = 72;  // bcrypt reads no more
inline constexpr size_t kMaxRememberedLogins = 1024;

class Passwords {
 public:
  // `text` is the file's content; throws kInvalidArgument naming the bad line.
  explicit Passwords(std::string_view text);
  // The value of an Authorization header ("Basic …").
  bool accepts(std::string_view authorization) const;

 private:
  std::map<std::string, std::string, std::less<>> hashes_;
  std::string key_;
  mutable std::mutex mutex_;
  mutable std::set<std::string> accepted_;  // guarded by mutex_
};

}  // namespace hull::registry
