// What comes with a request besides bodies: query strings, filters, times, paths. The first line is
// the path, the second the query, the rest the filters.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "daemon/api/filters.h"
#include "daemon/api/http.h"
#include "daemon/api/time_query.h"

namespace {

template <typename Work>
void refusable(Work&& work) {
  try {
    work();
  } catch (const hull::Error&) {
    // Refused.
  }
}

std::string_view takeLine(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace hull::engine::api;
  std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string_view path = takeLine(text);
  const std::string_view query_text = takeLine(text);
  refusable([&] { (void)percentDecode(path, false); });
  refusable([&] { (void)timeQuery(std::string(path)); });
  refusable([&] {
    const Query query(query_text);
    (void)query.flag("all");
    (void)query.number("limit");
    (void)timeQuery(query.get("since"));
  });
  refusable([&] {
    const Filters filters(text, {"label", "status", "dangling"});
    (void)filters.labelsFit({{"a", "b"}});
    (void)filters.allows("status", "running");
    (void)filters.flag("dangling", true);
  });
  return 0;
}
