#include "image/build/suggest.h"

#include <algorithm>
#include <vector>

namespace hull::build {

namespace {

// Edits between two words; swapping neighbours counts as one (optimal string alignment).
size_t editDistance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> rows(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        rows[i][j] = i + j;
        continue;
      }
      const bool same = a[i - 1] == b[j - 1];
      rows[i][j] =
          std::min({rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (same ? 0U : 1U)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        rows[i][j] = std::min(rows[i][j], rows[i - 2][j - 2] + 1);
      }
    }
  }
  return rows[a.size()][b.size()];
}

}  // namespace

std::string nearest(std::string_view word, std::span<const std::string_view> candidates) {
  constexpr size_t kFarthest = 2, kLongestWord = 24;
  if (word.size() > kLongestWord) return {};
  std::string_view best;
  size_t best_distance = kFarthest + 1;
  for (const std::string_view candidate : candidates) {
    const size_t distance = editDistance(word, candidate);
    // A word of three letters is not a misspelling of another one that shares a single letter.
    if (distance < best_distance && distance < candidate.size()) {
      best_distance = distance;
      best = candidate;
    }
  }
  return std::string(best);
}

std::string suggestion(std::string_view word, std::span<const std::string_view> candidates,
                       std::string_view prefix) {
  const std::string near = nearest(word, candidates);
  return near.empty() ? "" : " (did you mean " + std::string(prefix) + near + "?)";
}

}  // namespace hull::build
