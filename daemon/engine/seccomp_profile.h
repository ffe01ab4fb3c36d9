// Docker's seccomp profiles (JSON; moby: profiles/seccomp) compiled into the filter that the guest
// installs. Pure function of untrusted text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hull::engine {

inline constexpr size_t kMaxSeccompProfileBytes = 1 << 20;

// The array of struct sock_filter for x86-64 (x86 and x32 where the profile names them). Entries
// that ask for capabilities the container lacks, or for another architecture, are left out; system
// calls this libseccomp does not know too. Throws kInvalidArgument.
std::string compileSeccomp(std::string_view profile, uint64_t capabilities);

}  // namespace hull::engine
