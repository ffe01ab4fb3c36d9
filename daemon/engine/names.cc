#include "daemon/engine/names.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "base/random.h"

namespace hull::engine {

namespace {

constexpr std::array kAdjectives{"amber",  "brave", "brisk", "calm",  "clear",  "deft",  "eager",
                                 "fair",   "fleet", "free",  "grand", "hardy",  "keen",  "lively",
                                 "lucky",  "merry", "noble", "proud", "quick",  "quiet", "ready",
                                 "robust", "sound", "stout", "sunny", "sturdy", "swift", "tidy",
                                 "true",   "vivid", "warm",  "wise"};
constexpr std::array kShips{
    "argo",     "barge", "bark",   "brig",   "canoe",   "caravel", "clipper", "cog",
    "cutter",   "dhow",  "dinghy", "dory",   "ferry",   "frigate", "galley",  "gig",
    "junk",     "kayak", "ketch",  "launch", "lugger",  "pinnace", "punt",    "raft",
    "schooner", "skiff", "sloop",  "tender", "trawler", "tug",     "wherry",  "yawl"};
constexpr size_t kMaxNameBytes = 255;

size_t randomIndex(size_t size) {
  std::array<std::byte, 1> byte{};
  fillRandom(byte);
  return std::to_integer<size_t>(byte[0]) % size;
}

}  // namespace

std::string newId() {
  return randomHex(32);
}

std::string randomName() {
  return std::string(kAdjectives[randomIndex(kAdjectives.size())]) + "_" +
         kShips[randomIndex(kShips.size())];
}

std::string checkedName(std::string_view name) {
  if (name.starts_with('/')) name.remove_prefix(1);
  const auto alphanumeric = [](unsigned char c) { return std::isalnum(c) != 0 && c < 128; };
  const bool valid = name.size() >= 2 && name.size() <= kMaxNameBytes &&
                     alphanumeric(static_cast<unsigned char>(name.front())) &&
                     std::all_of(name.begin(), name.end(), [&](unsigned char c) {
                       return alphanumeric(c) || c == '_' || c == '.' || c == '-';
                     });
  if (!valid) {
    throw Error(ErrorKind::kInvalidArgument, "Invalid container name (" + std::string(name) +
                                                 "), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
  }
  return std::string(name);
}

}  // namespace hull::engine
