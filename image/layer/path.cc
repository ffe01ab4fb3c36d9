#include "image/layer/path.h"

#include "base/error.h"
#include "image/layer/index.h"

namespace hull::image {

namespace {
constexpr size_t kMaxQuotedPathBytes = 200;

void dropLastPart(std::string& path) {
  const size_t slash = path.rfind('/');
  path.resize(slash == std::string::npos ? 0 : slash);
}
}  // namespace

std::string cleanPath(std::string_view path, size_t slack) {
  if (path.find('\0') != std::string_view::npos) {
    throw Error(ErrorKind::kCorrupt, "path " + quotePath(path) + " contains a NUL byte");
  }
  std::string result;
  for (size_t begin = 0; begin <= path.size();) {
    size_t end = path.find('/', begin);
    if (end == std::string_view::npos) end = path.size();
    const std::string_view part = path.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      dropLastPart(result);
      continue;
    }
    if (part.size() > kMaxNameBytes + slack) {
      throw Error(ErrorKind::kCorrupt, "path " + quotePath(path) + " has a name longer than " +
                                           std::to_string(kMaxNameBytes) + " bytes");
    }
    if (!result.empty()) result.push_back('/');
    result.append(part);
  }
  if (result.size() > kMaxPathBytes + slack) {
    throw Error(ErrorKind::kCorrupt, "path " + quotePath(path) + " is longer than " +
                                         std::to_string(kMaxPathBytes) + " bytes");
  }
  return result;
}

bool isCleanPath(std::string_view path) {
  if (path.empty()) return true;
  if (path.size() > kMaxPathBytes || path.find('\0') != std::string_view::npos) return false;
  for (;;) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part == "." || part == ".." || part.size() > kMaxNameBytes) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
}

std::string quotePath(std::string_view path) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string result = "\"";
  for (const char c : path.substr(0, kMaxQuotedPathBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || c == '"' || c == '\\') {
      result += "\\x";
      result += kHex[byte >> 4];
      result += kHex[byte & 15];
    } else {
      result += c;
    }
  }
  result += path.size() > kMaxQuotedPathBytes ? "…\"" : "\"";
  return result;
}

}  // namespace hull::image
