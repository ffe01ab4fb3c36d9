// Installing a seccomp filter that the engine compiled (StartProcess::seccomp). In the child.
#pragma once

#include <string_view>

namespace hull::guest {

// `program` is an array of struct sock_filter; the kernel checks it. Needs no_new_privs or
// CAP_SYS_ADMIN (seccomp(2)). Throws kInvalidArgument for what is no such array.
void installSeccomp(std::string_view program);

}  // namespace hull::guest
