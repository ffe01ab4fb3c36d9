// What is asked of a running VM over its control socket, and the JSON that it shares with the
// configuration.
#include "vmm/config/fields.h"

namespace hull::vmm {

namespace config {

namespace {

constexpr size_t kMaxConfigBytes = 4 << 20;
constexpr int kMaxJsonDepth = 8;

Rate rateOf(Fields& fields, const char* key) {
  Rate rate;
  const json* value = fields.find(key);
  if (value == nullptr) return rate;
  Fields inner(*value, fields.name(key));
  inner.number("per_second", rate.per_second);
  inner.number("burst", rate.burst);
  inner.finish();
  return rate;
}

json jsonOf(const Rate& rate) {
  return {{"per_second", rate.per_second}, {"burst", rate.burst}};
}
}  // namespace

void limits(Fields& fields, const char* key, IoLimits& into) {
  const json* value = fields.find(key);
  if (value == nullptr) return;
  Fields inner(*value, fields.name(key));
  into.bytes = rateOf(inner, "bytes");
  into.operations = rateOf(inner, "operations");
  inner.finish();
}

json jsonOf(const DiskSegment& segment) {
  return {{"fd", segment.fd},
          {"file_offset", segment.file_offset},
          {"disk_offset", segment.disk_offset},
          {"length", segment.length}};
}
json jsonOf(const IoLimits& limits) {
  return {{"bytes", jsonOf(limits.bytes)}, {"operations", jsonOf(limits.operations)}};
}

json parseDocument(std::string_view text) {
  if (text.size() > kMaxConfigBytes) fail("document", "too long");
  bool too_deep = false;
  const auto depth_guard = [&](int depth, json::parse_event_t, json&) {
    if (depth > kMaxJsonDepth) too_deep = true;
    return !too_deep;
  };
  json document = json::parse(text, depth_guard, false);
  if (document.is_discarded() || too_deep) fail("document", "not JSON");
  return document;
}

DiskSegment segmentOf(const json& value, const std::string& path) {
  DiskSegment segment;
  Fields fields(value, path);
  fields.number("fd", segment.fd);
  fields.number("file_offset", segment.file_offset);
  fields.number("disk_offset", segment.disk_offset);
  fields.number("length", segment.length);
  fields.finish();
  return segment;
}

void requireFd(int fd, const std::string& field) {
  if (fd < 0) fail(field, "missing");
}

void checkSegments(const std::vector<DiskSegment>& segments, uint64_t disk_bytes,
                   const std::string& field) {
  uint64_t end = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    const auto& segment = segments[i];
    const std::string here = fmt::format("{}[{}]", field, i);
    requireFd(segment.fd, here + ".fd");
    if (segment.length == 0) fail(here + ".length", "zero");
    if ((segment.file_offset | segment.disk_offset | segment.length) % kSectorBytes != 0) {
      fail(here, "not a multiple of 512 bytes");
    }
    if (segment.disk_offset < end) fail(here + ".disk_offset", "overlaps or is out of order");
    if (segment.disk_offset > disk_bytes || segment.length > disk_bytes - segment.disk_offset) {
      fail(here, "ends behind the disk");
    }
    if (segment.file_offset > kMaxDiskBytes || segment.length > kMaxDiskBytes) {
      fail(here, "out of range");
    }
    end = segment.disk_offset + segment.length;
  }
}

}  // namespace config

using namespace config;

std::string toJson(const LimitsChange& change) {
  return json{{"command", "limits"},
              {"disk", change.disk},
              {"inbound", jsonOf(change.inbound)},
              {"outbound", jsonOf(change.outbound)}}
      .dump(-1, ' ', true, json::error_handler_t::replace);
}

LimitsChange parseLimitsChange(std::string_view text) {
  const json document = parseDocument(text);
  LimitsChange change;
  Fields fields(document, "");
  fields.find("command");
  fields.string("disk", change.disk);
  limits(fields, "inbound", change.inbound);
  limits(fields, "outbound", change.outbound);
  fields.finish();
  return change;
}

std::string toJson(const DiskGrowth& growth) {
  json segments = json::array();
  for (const DiskSegment& segment : growth.segments) segments.push_back(jsonOf(segment));
  return json{{"command", "grow"},
              {"disk", growth.disk},
              {"size_bytes", growth.size_bytes},
              {"read_only", growth.read_only},
              {"segments", std::move(segments)}}
      .dump(-1, ' ', true, json::error_handler_t::replace);
}

DiskGrowth parseDiskGrowth(std::string_view text) {
  const json document = parseDocument(text);
  DiskGrowth growth;
  Fields fields(document, "");
  fields.find("command");
  fields.string("disk", growth.disk);
  fields.number("size_bytes", growth.size_bytes);
  fields.boolean("read_only", growth.read_only);
  if (const json* list = fields.array("segments", kMaxSegmentsPerGrowth)) {
    for (size_t i = 0; i < list->size(); ++i) {
      growth.segments.push_back(segmentOf((*list)[i], fmt::format("segments[{}]", i)));
      growth.segments.back().read_only = growth.read_only;
      if (growth.segments[i].fd != static_cast<int>(i))
        fail("segments", "descriptors out of order");
    }
  }
  fields.finish();
  if (growth.segments.empty()) fail("segments", "none");
  if (growth.size_bytes % kSectorBytes != 0 || growth.size_bytes > kMaxDiskBytes) {
    fail("size_bytes", "not a multiple of 512 up to 1 EiB");
  }
  checkSegments(growth.segments, growth.size_bytes, "segments");
  return growth;
}

std::string toJson(const DiskCut& cut) {
  return json{
      {"command", "cut"}, {"disk", cut.disk}, {"offset", cut.offset}, {"length", cut.length}}
      .dump(-1, ' ', true, json::error_handler_t::replace);
}

DiskCut parseDiskCut(std::string_view text) {
  const json document = parseDocument(text);
  DiskCut cut;
  Fields fields(document, "");
  fields.find("command");
  fields.string("disk", cut.disk);
  fields.number("offset", cut.offset);
  fields.number("length", cut.length);
  fields.finish();
  if (cut.offset > kMaxDiskBytes || cut.length > kMaxDiskBytes) fail("offset", "out of range");
  return cut;
}

}  // namespace hull::vmm
