#include "registry/client/tags.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "registry/client/session.h"

namespace hull::registry {

namespace {

constexpr size_t kMaxTagListBytes = size_t{16} << 20;  // of one page
constexpr size_t kMaxTagPages = 1000;

// The target of `<…>; rel="next"` (RFC 8288).
std::optional<std::string> nextLink(const std::string& header) {
  const size_t end = header.find('>');
  if (!header.starts_with('<') || end == std::string::npos) return std::nullopt;
  const std::string rest = header.substr(end);
  const bool next =
      rest.find("rel=\"next\"") != std::string::npos || rest.find("rel=next") != std::string::npos;
  return next ? std::optional(header.substr(1, end - 1)) : std::nullopt;
}

void addTags(Transfer& answer, std::vector<std::string>& all) {
  const auto document =
      nlohmann::json::parse(answer.text(kMaxTagListBytes, "list of tags"), nullptr, false);
  if (!document.is_object()) throw Error(ErrorKind::kCorrupt, "the answer is no JSON object");
  const auto tags = document.find("tags");  // Go writes an empty list as null
  if (tags == document.end() || !tags->is_array()) return;
  for (const auto& tag : *tags) {
    if (tag.is_string()) all.push_back(tag.get<std::string>());
  }
  if (all.size() > kMaxListedTags) throw Error(ErrorKind::kTooLarge, "there are too many");
}

std::vector<std::string> allTags(Session& session, const std::string& repository) {
  std::vector<std::string> all;
  Call call;
  call.target = "/v2/" + repository + "/tags/list";
  for (size_t page = 0; page < kMaxTagPages; ++page) {
    const auto answer = session.send(call);
    if (answer->head().status != 200) throw unexpected(*answer, "get the list");
    addTags(*answer, all);
    const auto next = nextLink(answer->head().header("link"));
    if (!next) break;
    Url url = answer->url().resolve(*next);
    // A list that leads back to itself would have no end; one that leads elsewhere is none.
    if (!url.sameOrigin(answer->url()) || url.target == answer->url().target) break;
    call.url = std::move(url);
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

}  // namespace

std::vector<std::string> listTags(const image::Reference& name, const Credentials& credentials,
                                  const ClientOptions& options) {
  return inContext("list the tags of " + name.familiarName(), [&] {
    Session session(name.registry, {"repository:" + name.repository + ":pull"}, credentials,
                    options);
    return allTags(session, name.repository);
  });
}

}  // namespace hull::registry
