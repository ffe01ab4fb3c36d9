#include "daemon/api/build_session.h"

#include <algorithm>

#include "base/error.h"

namespace hull::engine::api {

void checkBuildSessionKey(const BuildSessionKey& key, const std::string& what) {
  const auto& [session, name] = key;
  const auto isHex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (session.size() < kMinBuildSessionDigits || session.size() > kMaxBuildSessionBytes ||
      !std::all_of(session.begin(), session.end(), isHex)) {
    throw Error(ErrorKind::kInvalidArgument, what + ": session is not a long hexadecimal one");
  }
  if (name.empty() || name.size() > kMaxBuildSessionBytes)
    throw Error(ErrorKind::kInvalidArgument, what + ": bad id");
}

}  // namespace hull::engine::api
