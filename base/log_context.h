// What log lines look like, and which request they belong to (log.h writes them). Any thread.
#pragma once

#include <string_view>

namespace hull::log {

// kJson: {"time":…,"level":…,"part":…,"request":…,"message":…} per line, for collectors.
enum class Format { kText, kJson };
void setFormat(Format format);  // call once, early

// Lines of this thread name the request they belong to while it lives.
class RequestScope {
 public:
  explicit RequestScope(std::string_view id);
  ~RequestScope();
  RequestScope(const RequestScope&) = delete;
  RequestScope& operator=(const RequestScope&) = delete;
};

}  // namespace hull::log
