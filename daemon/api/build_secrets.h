// The secrets of builds that are about to begin (hull build --secret): each comes by a request of
// its own, POST /build/secrets, and waits here, in memory, for the build that takes it away. What
// no build takes is forgotten after kSecretWait. One object for the API; any thread.
#pragma once

#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "daemon/api/build_session.h"
#include "daemon/api/http.h"

namespace hull::engine::api {

inline constexpr size_t kMaxSecretBytes = 500 * 1024;  // as BuildKit's
inline constexpr size_t kMaxBuildSecrets = 64;         // of one build
inline constexpr size_t kMaxWaitingSecrets = 256;      // of all builds
inline constexpr std::chrono::minutes kSecretWait{2};

class BuildSecrets {
 public:
  using Clock = std::chrono::steady_clock;

  // POST /build/secrets?session=HEX&id=ID, the secret as the body. A second of the same id takes
  // the first's place.
  void serve(Exchange& exchange);
  // Throws kInvalidArgument for a bad key, kTooLarge, kUnavailable beyond kMaxWaitingSecrets.
  void keep(const BuildSessionKey& key, std::string value, Clock::time_point now = Clock::now());
  // Those of `session`, by id; they are here no more. Throws kInvalidArgument for an id that is not
  // there, kTooLarge for more than kMaxBuildSecrets; then nothing is taken.
  std::map<std::string, std::string> take(const std::string& session,
                                          const std::vector<std::string>& ids,
                                          Clock::time_point now = Clock::now());

 private:
  struct Waiting {
    std::string value;
    Clock::time_point since;
  };
  void forgetOld(Clock::time_point now);  // under mutex_

  std::mutex mutex_;
  std::map<BuildSessionKey, Waiting> waiting_;  // guarded by mutex_
};

}  // namespace hull::engine::api
