// Who a process runs as: Docker's user notation looked up in the container's own /etc/passwd and
// /etc/group. Pure text work, bounded; the texts are hostile. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace hull::guest {

inline constexpr size_t kMaxAccountFileBytes = 4 << 20;
inline constexpr size_t kMaxGroups = 1024;
inline constexpr uint32_t kMaxId = 0x7fffffff;  // as Docker: ids are 31 bits

struct Account {
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::vector<uint32_t> groups;  // supplementary, the primary group first
  std::string home = "/";
};

// `user` is "", "name", "uid", "name:group", "uid:gid" in any mix; `additional` names or numbers
// (--group-add). Throws Error(kInvalidArgument) in Docker's words.
Account resolveAccount(std::string_view passwd, std::string_view group, std::string_view user,
                       const std::vector<std::string>& additional = {});

}  // namespace hull::guest
