// The tags of a repository at its registry: what `pull --all-tags` pulls. Any thread.
#pragma once

#include <string>
#include <vector>

#include "registry/client/client.h"

namespace hull::registry {

inline constexpr size_t kMaxListedTags = 100000;

// Every tag the registry lists, sorted; throws kTooLarge beyond kMaxListedTags.
std::vector<std::string> listTags(const image::Reference& name, const Credentials& credentials,
                                  const ClientOptions& options);

}  // namespace hull::registry
