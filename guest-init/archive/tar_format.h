// The ustar header block (POSIX.1-2017, pax "ustar Interchange Format"). Constants only.
#pragma once

#include <cstddef>

namespace hull::guest::ustar {

struct Field {
  size_t offset;
  size_t size;
};
inline constexpr Field kName{0, 100};
inline constexpr Field kMode{100, 8};
inline constexpr Field kUid{108, 8};
inline constexpr Field kGid{116, 8};
inline constexpr Field kSize{124, 12};
inline constexpr Field kMtime{136, 12};
inline constexpr Field kChecksum{148, 8};
inline constexpr size_t kType = 156;
inline constexpr Field kLink{157, 100};
inline constexpr Field kMagic{257, 6};
inline constexpr Field kVersion{263, 2};
inline constexpr Field kMajor{329, 8};
inline constexpr Field kMinor{337, 8};
inline constexpr Field kPrefix{345, 155};

}  // namespace hull::guest::ustar
