// Base64 (RFC 4648), standard and URL-safe alphabets. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace hull {

enum class Base64Alphabet { kStandard, kUrl };

// With padding, as Docker's clients write both.
std::string base64Encode(std::string_view bytes,
                         Base64Alphabet alphabet = Base64Alphabet::kStandard);

// Either alphabet, padding optional; nullopt for anything else.
std::optional<std::string> base64Decode(std::string_view text);

}  // namespace hull
