#include "guest-init/process/account.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "guest-init/system/text.h"

namespace hull::guest {

namespace {

std::optional<uint32_t> parseId(std::string_view text) {
  const auto number = parseNumber<uint32_t>(text);
  return number && *number <= kMaxId ? number : std::nullopt;
}

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorKind::kInvalidArgument, message);
}

struct PasswdEntry {
  std::string_view name;
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::string_view home;
};

// name:password:uid:gid:gecos:home:shell (passwd(5)); lines that are not of this form are skipped.
template <typename Match>
std::optional<PasswdEntry> findUser(std::string_view passwd, Match&& match) {
  std::optional<PasswdEntry> found;
  splitInto(passwd, '\n', [&](std::string_view line) {
    const auto fields = split(line, ':');
    if (fields.size() < 6) return true;
    const auto uid = parseId(fields[2]);
    const auto gid = parseId(fields[3]);
    if (!uid || !gid || fields[0].empty()) return true;
    const PasswdEntry entry{fields[0], *uid, *gid, fields[5]};
    if (match(entry)) found = entry;
    return !found;
  });
  return found;
}

// name:password:gid:member,member (group(5)); visit(name, gid, members) until it returns false.
template <typename Visit>
void eachGroup(std::string_view group, Visit&& visit) {
  splitInto(group, '\n', [&](std::string_view line) {
    const auto fields = split(line, ':');
    if (fields.size() < 4 || fields[0].empty()) return true;
    const auto gid = parseId(fields[2]);
    return !gid || visit(fields[0], *gid, fields[3]);
  });
}

// A name wins over a number, as in Docker: a group may be called "1000".
uint32_t findGroup(std::string_view group, std::string_view wanted) {
  std::optional<uint32_t> found;
  eachGroup(group, [&](std::string_view name, uint32_t gid, std::string_view) {
    if (name == wanted) found = gid;
    return !found;
  });
  if (!found) found = parseId(wanted);
  if (!found) {
    fail("unable to find group " + std::string(wanted) + ": no matching entries in group file");
  }
  return *found;
}

void addGroup(Account& account, uint32_t gid) {
  if (std::find(account.groups.begin(), account.groups.end(), gid) != account.groups.end()) return;
  if (account.groups.size() == kMaxGroups) fail("too many supplementary groups");
  account.groups.push_back(gid);
}

}  // namespace

Account resolveAccount(std::string_view passwd, std::string_view group, std::string_view user,
                       const std::vector<std::string>& additional) {
  const size_t colon = user.find(':');
  const std::string_view user_part = user.substr(0, colon);
  const std::string_view group_part =
      colon == std::string_view::npos ? std::string_view() : user.substr(colon + 1);
  const auto number = user_part.empty() ? std::optional<uint32_t>(0) : parseId(user_part);

  auto entry = findUser(passwd, [&](const PasswdEntry& e) { return e.name == user_part; });
  if (!entry && number) {
    entry = findUser(passwd, [&](const PasswdEntry& e) { return e.uid == *number; });
  }
  if (!entry && !number) {
    fail("unable to find user " + std::string(user_part) + ": no matching entries in passwd file");
  }
  Account account;
  account.uid = entry ? entry->uid : *number;
  account.gid = entry ? entry->gid : 0;
  if (entry && !entry->home.empty()) account.home = entry->home;
  if (!group_part.empty()) account.gid = findGroup(group, group_part);
  addGroup(account, account.gid);
  if (group_part.empty() && entry) {
    eachGroup(group, [&](std::string_view, uint32_t gid, std::string_view members) {
      splitInto(members, ',', [&](std::string_view member) {
        if (member != entry->name) return true;
        addGroup(account, gid);
        return false;
      });
      return true;
    });
  }
  for (const std::string& name : additional) addGroup(account, findGroup(group, name));
  return account;
}

}  // namespace hull::guest
