#include "vmm/config/vm_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace hull::vmm {
namespace {

using testing::HasSubstr;

VmConfig sample() {
  VmConfig config;
  config.memory_mib = 4096;
  config.vcpus = 4;
  config.kernel_fd = 5;
  config.initrd_fd = 6;
  config.command_line = "quiet hull.x=\"ü\"";
  config.disks = {{"root", 1 << 20, true, {{7, 0, 0, 4096}, {8, 512, 8192, 1024}}},
                  {"upper", 1 << 30, false, {{9, 0, 0, 1 << 30}}}};
  config.nets = {NetConfig{10, {2, 0, 0, 0xab, 0xcd, 0xef}, 1400},
                 NetConfig{-1, {2, 0, 0, 0, 0, 1}, 65520, {}, {}, 16, {{0x7f000000, 8}}}};
  config.vsock = VsockConfig{77, 11};
  config.balloon = config.stable_cpu = config.large_pages = true;
  config.disks[1].write = {{1 << 20, 1 << 22}, {500, 0}};
  config.nets[0].transmit = {{125000, 0}, {}};
  config.fs = FsConfig{"shares", 15};
  config.console_fd = 12;
  config.control_fd = 13;
  config.status_fd = 14;
  config.early_serial = true;
  config.uid = 1000;
  config.gid = 1001;
  return config;
}

std::string errorOf(std::string_view json) {
  try {
    parseVmConfig(json);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    return error.what();
  }
  return "accepted";
}

std::string errorOf(const VmConfig& config) {
  try {
    toJson(config);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    return error.what();
  }
  return "accepted";
}

TEST(VmConfig, SurvivesARoundTrip) {
  const VmConfig before = sample();
  const VmConfig after = parseVmConfig(toJson(before));
  EXPECT_EQ(toJson(after), toJson(before));
  EXPECT_EQ(after.command_line, before.command_line);
  ASSERT_EQ(after.disks.size(), 2u);
  EXPECT_EQ(after.disks[0].segments[1].disk_offset, 8192u);
  EXPECT_FALSE(after.disks[1].read_only);
  ASSERT_EQ(after.nets.size(), 2u);
  EXPECT_EQ(after.nets[1].stream_fd, 16);
  EXPECT_EQ(after.nets[1].blocked, before.nets[1].blocked);
  EXPECT_EQ(after.nets[0].mac, before.nets[0].mac);
  ASSERT_TRUE(after.fs);
  EXPECT_EQ(after.fs->tag, "shares");
  ASSERT_TRUE(after.vsock);
  EXPECT_EQ(after.vsock->guest_cid, 77u);
  EXPECT_EQ(after.uid, 1000u);
  EXPECT_TRUE(after.balloon && after.stable_cpu && after.large_pages);
  EXPECT_EQ(after.disks[1].write, before.disks[1].write);
  EXPECT_EQ(after.disks[0].read, IoLimits{});
  EXPECT_EQ(after.nets[0].transmit, before.nets[0].transmit);
}

TEST(LimitsChange, SurvivesARoundTripAndNamesWhatIsWrong) {
  const LimitsChange before{"upper", {{1, 2}, {3, 4}}, {{}, {5, 0}}};
  const LimitsChange after = parseLimitsChange(toJson(before));
  EXPECT_EQ(after.disk, before.disk);
  EXPECT_EQ(after.inbound, before.inbound);
  EXPECT_EQ(after.outbound, before.outbound);
  const auto refused = [](std::string_view text) {
    try {
      parseLimitsChange(text);
      return std::string();
    } catch (const Error& error) {
      return std::string(error.what());
    }
  };
  EXPECT_THAT(refused(R"({"inbound":{"bytes":{"per_second":-1}}})"),
              HasSubstr("inbound.bytes.per_second: out of range"));
  EXPECT_THAT(refused(R"({"inbound":{"byte":{}}})"), HasSubstr("inbound.byte: unknown field"));
  EXPECT_THAT(refused("7"), HasSubstr("not an object"));
}

TEST(VmConfig, TakesDefaultsForWhatIsMissing) {
  const VmConfig config = parseVmConfig(R"({"kernel_fd": 3})");
  EXPECT_EQ(config.memory_mib, 512u);
  EXPECT_EQ(config.vcpus, 1u);
  EXPECT_TRUE(config.nets.empty());
  EXPECT_FALSE(config.vsock);
  EXPECT_EQ(config.console_fd, -1);
}

TEST(VmConfig, NamesTheFieldThatIsWrong) {
  EXPECT_THAT(errorOf(""), HasSubstr("not JSON"));
  EXPECT_THAT(errorOf("[]"), HasSubstr("not an object"));
  EXPECT_THAT(errorOf("{}"), HasSubstr("kernel_fd: missing"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":3,"vcpu":2})"), HasSubstr("vcpu: unknown field"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":"3"})"), HasSubstr("kernel_fd: not an integer"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":3.5})"), HasSubstr("kernel_fd: not an integer"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":4294967299})"), HasSubstr("kernel_fd: out of range"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":3,"vcpus":-1})"), HasSubstr("vcpus: out of range"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":3,"vcpus":0})"), HasSubstr("vcpus: not between"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":3,"vcpus":65})"), HasSubstr("vcpus: not between"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":3,"memory_mib":16})"), HasSubstr("memory_mib"));
  EXPECT_THAT(
      errorOf(R"({"kernel_fd":3,"disks":[{"size_bytes":512,"segments":[{"fd":1,"x":1}]}]})"),
      HasSubstr("disks[0].segments[0].x: unknown field"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":3,"nets":[{"tap_fd":4,"mac":"02:00:00:00:00:0g"}]})"),
              HasSubstr("nets[0].mac"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":3,"nets":[{"tap_fd":4,"mac":"01:00:00:00:00:00"}]})"),
              HasSubstr("multicast"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":3,"nets":[{"mac":"02:00:00:00:00:00"}]})"),
              HasSubstr("nets[0].tap_fd: missing"));
  EXPECT_THAT(
      errorOf(R"({"kernel_fd":3,"nets":[{"tap_fd":4,"stream_fd":5,"mac":"02:00:00:00:00:00"}]})"),
      HasSubstr("both tap_fd and stream_fd"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":3,"nets":[{"stream_fd":5,"mac":"02:00:00:00:00:00",)"
                      R"("blocked":[{"address":1,"prefix_length":33}]}]})"),
              HasSubstr("nets[0].blocked"));
  EXPECT_THAT(errorOf(R"({"kernel_fd":3,"vsock":{"listener_fd":4,"guest_cid":2}})"),
              HasSubstr("vsock.guest_cid: reserved"));
  EXPECT_THAT(errorOf(std::string(100, '[')), HasSubstr("not JSON"));
}

TEST(VmConfig, ChecksDisks) {
  const auto with = [](auto change) {
    VmConfig config = sample();
    change(config);
    return errorOf(config);
  };
  EXPECT_THAT(with([](auto& c) { c.disks[0].id = std::string(21, 'x'); }), HasSubstr("20 bytes"));
  EXPECT_THAT(with([](auto& c) { c.disks[0].size_bytes = 513; }), HasSubstr("size_bytes"));
  EXPECT_THAT(with([](auto& c) { c.disks[0].segments[1].disk_offset = 2048; }),
              HasSubstr("overlaps"));
  EXPECT_THAT(with([](auto& c) { c.disks[0].segments[1].length = 100; }), HasSubstr("multiple"));
  EXPECT_THAT(with([](auto& c) { c.disks[0].segments[1].disk_offset = ~uint64_t{511}; }),
              HasSubstr("ends behind the disk"));
  EXPECT_THAT(with([](auto& c) { c.disks[0].segments[1].length = ~uint64_t{511}; }),
              HasSubstr("ends behind the disk"));
  EXPECT_THAT(with([](auto& c) { c.disks.resize(kMaxDisks + 1, c.disks[1]); }), HasSubstr("disks"));
  EXPECT_THAT(with([](auto& c) { c.command_line = "a\nb"; }), HasSubstr("command_line"));
  EXPECT_THAT(with([](auto& c) { c.gid = 0; }), HasSubstr("uid/gid"));
}

template <typename Parse>
std::string refusalOf(Parse&& parse, const std::string& text) {
  try {
    parse(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    return error.what();
  }
  return "accepted";
}

TEST(DiskGrowth, SurvivesARoundTrip) {
  const DiskGrowth growth{"writable", 1 << 20, true, {{0, 512, 4096, 1024}, {1, 0, 8192, 512}}};
  const DiskGrowth back = parseDiskGrowth(toJson(growth));
  EXPECT_EQ(toJson(back), toJson(growth));
  ASSERT_EQ(back.segments.size(), 2u);
  EXPECT_TRUE(back.segments[1].read_only);
  const DiskCut cut = parseDiskCut(toJson(DiskCut{"writable", 4096, 512}));
  EXPECT_EQ(cut.disk, "writable");
  EXPECT_EQ(cut.offset, 4096u);
  EXPECT_EQ(cut.length, 512u);
}

TEST(DiskGrowth, NamesWhatIsWrong) {
  const auto with = [](auto change) {
    DiskGrowth growth{"writable", 1 << 20, true, {{0, 512, 4096, 1024}, {1, 0, 8192, 512}}};
    change(growth);
    return refusalOf(parseDiskGrowth, toJson(growth));
  };
  EXPECT_EQ(with([](auto&) {}), "accepted");
  EXPECT_THAT(with([](auto& g) { g.segments.clear(); }), HasSubstr("segments: none"));
  EXPECT_THAT(with([](auto& g) { g.segments.resize(kMaxSegmentsPerGrowth + 1); }),
              HasSubstr("segments"));
  EXPECT_THAT(with([](auto& g) { g.segments[1].fd = 0; }), HasSubstr("out of order"));
  EXPECT_THAT(with([](auto& g) { g.segments[1].disk_offset = 4608; }), HasSubstr("overlaps"));
  EXPECT_THAT(with([](auto& g) { g.segments[1].length = 100; }), HasSubstr("multiple"));
  EXPECT_THAT(with([](auto& g) { g.segments[1].length = ~uint64_t{511}; }),
              HasSubstr("ends behind the disk"));
  EXPECT_THAT(with([](auto& g) { g.size_bytes = 8192; }), HasSubstr("ends behind the disk"));
  EXPECT_THAT(with([](auto& g) { g.size_bytes = ~uint64_t{511}; }), HasSubstr("size_bytes"));
  EXPECT_THAT(refusalOf(parseDiskGrowth, R"({"command":"grow","segments":[],"x":1})"),
              HasSubstr("unknown field"));
  EXPECT_THAT(refusalOf(parseDiskGrowth, "{"), HasSubstr("not JSON"));
  EXPECT_THAT(refusalOf(parseDiskCut, toJson(DiskCut{"d", ~uint64_t{0}, 1})),
              HasSubstr("out of range"));
  EXPECT_THAT(refusalOf(parseDiskCut, R"({"command":"cut","offset":-1})"), HasSubstr("offset"));
}

TEST(VmConfig, NamesExitReasons) {
  EXPECT_EQ(toString(ExitReason::kPowerOff), "poweroff");
  EXPECT_EQ(toString(ExitReason::kTripleFault), "triple-fault");
}

}  // namespace
}  // namespace hull::vmm
