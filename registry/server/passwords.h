// Users and bcrypt passwords of an htpasswd file: read once to check them; changed by the `user`
// command. A password that was right is remembered by a keyed digest, because bcrypt is slow by
// intent. Any thread.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace hull::registry {

inline constexpr size_t kMaxPasswordBytes = 72;  // bcrypt reads no more
inline constexpr size_t kMaxRememberedLogins = 1024;
inline constexpr size_t kMaxUserNameBytes = 255;
inline constexpr unsigned long kBcryptCost = 10;
inline constexpr unsigned kMaxBcryptCost = 14;  // more would take seconds of each login

class Passwords {
 public:
  // `text` is the file's content; throws kInvalidArgument naming the bad line.
  explicit Passwords(std::string_view text);
  // The user of an Authorization header ("Basic …"); nullopt when anything about it is wrong.
  std::optional<std::string> user(std::string_view authorization) const;
  std::vector<std::string> users() const;  // sorted

 private:
  bool matches(const std::string& password, const std::string& hash) const;

  std::map<std::string, std::string, std::less<>> hashes_;
  std::string key_;
  mutable std::mutex mutex_;
  mutable std::set<std::string> accepted_;  // guarded by mutex_
};

// Changing a file's text; other lines, comments too, stay as they are. Both throw kInvalidArgument
// for names or passwords that cannot be.
std::string withUser(std::string_view text, const std::string& name, const std::string& password);
// nullopt: there is no such user.
std::optional<std::string> withoutUser(std::string_view text, const std::string& name);

}  // namespace hull::registry
