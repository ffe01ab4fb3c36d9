#include "daemon/api/build_secrets.h"

#include "base/error.h"

namespace hull::engine::api {

void BuildSecrets::serve(Exchange& exchange) {
  const Query& query = exchange.request().query;
  const BuildSessionKey key{query.get("session"), query.get("id")};
  checkBuildSessionKey(key, "build secrets");
  keep(key, readAll(exchange.body(), kMaxSecretBytes, "secret " + key.second));
  exchange.empty(204);
}

void BuildSecrets::keep(const BuildSessionKey& key, std::string value, Clock::time_point now) {
  checkBuildSessionKey(key, "build secrets");
  if (value.size() > kMaxSecretBytes)
    throw Error(ErrorKind::kTooLarge, "secret " + key.second + ": larger than 500 KiB");
  const std::lock_guard lock(mutex_);
  forgetOld(now);
  if (waiting_.size() >= kMaxWaitingSecrets && !waiting_.contains(key)) {
    throw Error(ErrorKind::kUnavailable,
                "secret " + key.second + ": too many secrets wait for their builds; try again");
  }
  waiting_.insert_or_assign(key, Waiting{std::move(value), now});
}

std::map<std::string, std::string> BuildSecrets::take(const std::string& session,
                                                      const std::vector<std::string>& ids,
                                                      Clock::time_point now) {
  if (ids.size() > kMaxBuildSecrets) {
    throw Error(ErrorKind::kTooLarge,
                "a build has at most " + std::to_string(kMaxBuildSecrets) + " secrets");
  }
  const std::lock_guard lock(mutex_);
  forgetOld(now);
  for (const std::string& id : ids) {
    if (!waiting_.contains({session, id})) {
      throw Error(ErrorKind::kInvalidArgument,
                  "secret " + id + ": its value did not arrive before the build");
    }
  }
  std::map<std::string, std::string> taken;
  for (const std::string& id : ids) {
    auto node = waiting_.extract({session, id});
    if (node) taken[id] = std::move(node.mapped().value);
  }
  return taken;
}

void BuildSecrets::forgetOld(Clock::time_point now) {
  std::erase_if(waiting_,
                [&](const auto& entry) { return now - entry.second.since > kSecretWait; });
}

}  // namespace hull::engine::api
