// The Dockerfile language, second half: variables and quotes. Expansion follows the reference:
// single quotes block it, double quotes do not, the escape character makes the next one literal,
// ${name} takes :- - :+ + :? ? # ## % %% / //. Pure functions.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hull::build {

inline constexpr size_t kMaxExpandedBytes = 4 << 20;

using Lookup = std::function<std::optional<std::string>(std::string_view name)>;

// All throw hull::Error(kInvalidArgument) with the cause only; callers add file and line.

// One word: variables replaced, quotes removed.
std::string expandWord(std::string_view text, char escape, const Lookup& lookup);

// Here-document text: variables replaced, quotes kept.
std::string expandText(std::string_view text, char escape, const Lookup& lookup);

// Blank-separated words; blanks inside quotes do not separate. Quotes and escapes are kept.
std::vector<std::string> splitWords(std::string_view text, char escape);

// "K=V K2='v 2'" or, for `legacy`, "K the rest of the line". Keys and values unexpanded.
std::vector<std::pair<std::string, std::string>> splitPairs(std::string_view text, char escape,
                                                            bool legacy);

}  // namespace hull::build
