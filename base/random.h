// Random bytes from the kernel (getrandom(2)). Any thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace hull {

void fillRandom(std::span<std::byte> into);
std::string randomHex(size_t bytes);  // 2 × bytes lower-case hex digits

}  // namespace hull
