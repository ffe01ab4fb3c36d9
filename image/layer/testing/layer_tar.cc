#include "image/layer/testing/layer_tar.h"

#include <cstdio>

#include "image/layer/testing/tar_builder.h"

namespace hull::image::testing {
namespace {

std::string timeText(int64_t seconds, uint32_t nanoseconds) {
  // Below zero the fraction counts downwards: -1.25 is 750,000,000 ns after -2.
  const bool mirrored = seconds < 0 && nanoseconds > 0;
  const int64_t whole = mirrored ? -(seconds + 1) : seconds;
  const uint32_t fraction = mirrored ? 1'000'000'000 - nanoseconds : nanoseconds;
  char text[64];
  std::snprintf(text, sizeof text, "%s%lld.%09u", mirrored ? "-" : "",
                static_cast<long long>(whole), fraction);
  return text;
}

char flagOf(EntryType type) {
  switch (type) {
    case EntryType::kDirectory:
      return '5';
    case EntryType::kSymlink:
      return '2';
    case EntryType::kHardlink:
      return '1';
    case EntryType::kCharDevice:
      return '3';
    case EntryType::kBlockDevice:
      return '4';
    case EntryType::kFifo:
      return '6';
    default:
      return '0';
  }
}

std::string memberPath(const Entry& entry) {
  if (entry.type == EntryType::kOpaque)
    return (entry.path.empty() ? "" : entry.path + "/") + ".wh..wh..opq";
  if (entry.type == EntryType::kWhiteout) {
    const size_t name = entry.path.rfind('/') + 1;
    return entry.path.substr(0, name) + ".wh." + entry.path.substr(name);
  }
  return entry.path.empty() ? "./" : entry.path;
}

}  // namespace

std::string tarOfLayer(const LayerIndex& layer,
                       const std::function<std::string(const Entry& file)>& content) {
  TarBuilder tar;
  for (const Entry& entry : layer.entries) {
    std::vector<std::pair<std::string, std::string>> records{
        {"path", memberPath(entry)},
        {"uid", std::to_string(entry.uid)},
        {"gid", std::to_string(entry.gid)},
        {"mtime", timeText(entry.mtime_seconds, entry.mtime_nanoseconds)}};
    if (!entry.link.empty()) records.emplace_back("linkpath", entry.link);
    for (const auto& [name, value] : entry.xattrs)
      records.emplace_back("SCHILY.xattr." + name, value);
    TarMember member;
    member.name = "in-the-records";
    member.type = flagOf(entry.type);
    if (entry.type == EntryType::kFile) member.content = content(entry);
    member.mode = entry.mode;
    member.major = entry.device_major;
    member.minor = entry.device_minor;
    tar.pax(records).add(member);
  }
  return tar.end();
}

}  // namespace hull::image::testing
