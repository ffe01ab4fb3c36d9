// The fields of tar headers and PAX records: layout and number formats (POSIX.1-2017 pax,
// "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"). Pure functions; they return
// nullopt for what is malformed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace hull::image::tar {

struct Field {
  size_t offset;
  size_t size;
};
inline constexpr Field kName{0, 100}, kMode{100, 8}, kUid{108, 8}, kGid{116, 8}, kSize{124, 12},
    kMtime{136, 12}, kChecksum{148, 8}, kType{156, 1}, kLink{157, 100}, kMagic{257, 8},
    kUname{265, 32}, kGname{297, 32}, kMajor{329, 8}, kMinor{337, 8}, kPrefix{345, 155},
    kStarPrefix{345, 131}, kStarTrailer{508, 4}, kGnuSparse{386, 96}, kGnuIsExtended{482, 1},
    kGnuRealSize{483, 12}, kGnuExtensionSparse{0, 504}, kGnuExtensionIsExtended{504, 1};
inline constexpr size_t kGnuSparsePartBytes = 24;  // offset and length, 12 digits each

std::string_view raw(std::string_view block, Field field);
std::string_view text(std::string_view block, Field field);  // up to the first NUL

// Octal with blanks and NULs around it, or base-256 when the first byte's high bit is set. Empty
// is 0.
std::optional<int64_t> number(std::string_view field);
std::optional<uint64_t> decimal(std::string_view text);  // digits only

struct Time {
  int64_t seconds = 0;
  uint32_t nanoseconds = 0;
};
std::optional<Time> time(std::string_view text);  // "-1.5" → {-2, 500000000}

// Whether the header's checksum fits, with bytes taken as unsigned or (old tools) signed.
bool checksumFits(std::string_view block);

// Takes "LENGTH KEY=VALUE\n" off the front of `rest`.
std::optional<std::pair<std::string, std::string>> takePaxRecord(std::string_view& rest);

std::string decodePercent(std::string_view text);

}  // namespace hull::image::tar
