#include "guest-init/protocol/protocol.h"

#include <gtest/gtest.h>

#include "base/bytes.h"

namespace hull::guest {
namespace {

// One frame of every message, every field away from its default.
std::vector<Frame> samples() {
  std::vector<Frame> frames;
  const auto add = [&frames](Message message) {
    frames.push_back({static_cast<uint32_t>(frames.size() + 1), "c0ffee", std::move(message)});
  };
  add(Hello{7, -123456789});
  add(ConfigureNetwork{"172.17.0.2", 16, "172.17.0.1", 1400});
  add(CreateContainer{"/dev/vda",
                      "/dev/vdb",
                      true,
                      "box",
                      "nameserver 1.1.1.1\n",
                      "127.0.0.1 localhost\n",
                      {{Mount::Kind::kTmpfs, "", "/tmp", "size=1m"},
                       {Mount::Kind::kDisk, "/dev/vdc", "/data", "ro", true, "a/b"}},
                      1 << 20,
                      {"/proc/kcore"},
                      {"/proc/sys", "/proc/bus"},
                      100,
                      uint64_t{1} << 40,
                      {"net.core.somaxconn=9"},
                      true,
                      true,
                      {"/dev/fuse"},
                      {{'c', 1, -1, 7}}});
  add(StartProcess{"main",
                   {"sh", "-c", std::string("a\0b", 3)},
                   {"A=1", "B="},
                   "/w",
                   "u:g",
                   {"x"},
                   0xa80425fb,
                   true,
                   {{7, 1024, 4096}},
                   true,
                   24,
                   80,
                   true,
                   {{StepMount::Kind::kFile, "hush", "/run/s", true, true, 5, 6, 0400, "size=1"}},
                   "filter",
                   -500});
  add(SignalProcess{"main", 9, true});
  add(ResizeTerminal{"exec1", 50, 132});
  add(ForgetProcess{"exec1"});
  add(ListState{});
  add(ListProcesses{});
  add(SealLayer{});
  add(RemoveContainer{});
  add(Pause{});
  add(Resume{});
  add(PowerOff{});
  add(OpenStream{"main", OpenStream::Kind::kSeedDisk, uint64_t{1} << 33, "/etc"});
  add(Ok{});
  add(Failure{FailureCode::kConflict, "no"});
  add(HelloReply{2, "6.1.0"});
  add(ProcessStarted{42});
  add(LayerSealed{3});
  add(ProcessExited{"main", 137, true});
  add(StateReply{{{"one", {{"main", 5, true, 0, false}, {"x", 6, false, 1, true}}}, {"two", {}}}});
  add(ProcessTable{{"PID", "CMD"}, {{"1", "init"}, {"2", "sh"}}});
  add(WriteNameFiles{"10.0.0.2 box\n", "nameserver 10.0.0.1\n"});
  add(SetLimits{7, 1 << 20, 1 << 19, 50'000, 100'000});
  add(ReadUsage{});
  Usage usage;
  usage.cpu_ns = 1;
  usage.cpus = 2;
  usage.memory = {{"anon", 3}};
  usage.networks = {{"eth0", 1, 2, 3, 4, 5, 6, 7, 8}};
  usage.disks = {{"254:0", 1, 2, 3, 4}};
  add(usage);
  add(PrepareSeat{"web", "/dev/vdb", {{4096, 8192, true}, {1 << 20, 512, false}}});
  add(SeatPrepared{{"/dev/loop0", "/dev/loop1"}});
  return frames;
}

std::optional<Frame> decode(std::string_view bytes) {
  if (bytes.size() < kFrameHeaderBytes) return std::nullopt;
  const auto header = decodeHeader(bytes.substr(0, kFrameHeaderBytes));
  return header ? decodePayload(*header, bytes.substr(kFrameHeaderBytes)) : std::nullopt;
}

TEST(Protocol, TheSamplesCoverEveryMessage) {
  const auto frames = samples();
  ASSERT_EQ(frames.size(), std::variant_size_v<Message>);
  for (size_t i = 0; i < frames.size(); ++i) EXPECT_EQ(frames[i].message.index(), i);
}

TEST(Protocol, EveryMessageSurvivesTheWayThereAndBack) {
  for (const Frame& frame : samples()) {
    const std::string bytes = encode(frame);
    const auto back = decode(bytes);
    ASSERT_TRUE(back) << frame.message.index();
    EXPECT_EQ(back->request, frame.request);
    EXPECT_EQ(back->container, frame.container);
    EXPECT_EQ(back->message.index(), frame.message.index());
    EXPECT_EQ(encode(*back), bytes) << frame.message.index();
  }
}

TEST(Protocol, FieldsArriveAsSent) {
  const auto frames = samples();
  const auto start = decode(encode(frames[3]));
  ASSERT_TRUE(start);
  const auto& message = std::get<StartProcess>(start->message);
  EXPECT_EQ(message.arguments[2], std::string("a\0b", 3));
  EXPECT_EQ(message.rlimits.at(0).hard, 4096u);
  EXPECT_EQ(message.capabilities, 0xa80425fbu);
  EXPECT_TRUE(message.open_stdin);
  const auto create = decode(encode(frames[2]));
  ASSERT_TRUE(create);
  EXPECT_EQ(std::get<CreateContainer>(create->message).mounts.at(1).destination, "/data");
}

TEST(Protocol, TheWireFormatIsFixed) {
  EXPECT_EQ(encode({5, "ab", ForgetProcess{"x"}}),
            std::string("\x0b\0\0\0\x06\0\0\0\x05\0\0\0\x02\0\0\0ab\x01\0\0\0x", 23));
}

TEST(Protocol, EveryTruncationIsRefused) {
  for (const Frame& frame : samples()) {
    const std::string bytes = encode(frame);
    const auto header = decodeHeader(std::string_view(bytes).substr(0, kFrameHeaderBytes));
    ASSERT_TRUE(header);
    const std::string_view payload = std::string_view(bytes).substr(kFrameHeaderBytes);
    for (size_t size = 0; size < payload.size(); ++size) {
      FrameHeader shorter = *header;
      shorter.payload_bytes = static_cast<uint32_t>(size);
      EXPECT_FALSE(decodePayload(shorter, payload.substr(0, size)))
          << frame.message.index() << " at " << size;
    }
  }
}

TEST(Protocol, LeftoverBytesAreRefused) {
  for (const Frame& frame : samples()) {
    std::string bytes = encode(frame) + '\0';
    ++bytes[0];  // the payload size; no sample ends at 255
    EXPECT_FALSE(decode(bytes)) << frame.message.index();
  }
}

std::string header(uint32_t size, uint16_t type, uint16_t zero) {
  ByteWriter out;
  out.u32(size);
  out.u16(type);
  out.u16(zero);
  out.u32(1);
  return out.take();
}

TEST(Protocol, HeadersThatBelongToNoFrameAreRefused) {
  EXPECT_TRUE(decodeHeader(header(4, 0, 0)));
  EXPECT_FALSE(decodeHeader(header(3, 0, 0))) << "shorter than an empty container id";
  EXPECT_FALSE(decodeHeader(header(kMaxPayloadBytes + 1, 0, 0)));
  EXPECT_FALSE(decodeHeader(header(4, std::variant_size_v<Message>, 0)));
  EXPECT_FALSE(decodeHeader(header(4, 0xffff, 0)));
  EXPECT_FALSE(decodeHeader(header(4, 0, 1)));
  EXPECT_FALSE(decodeHeader(header(4, 0, 0).substr(1)));
  EXPECT_FALSE(decodeHeader(header(4, 0, 0) + "x"));
  EXPECT_FALSE(decodeHeader(""));
}

std::optional<Frame> decodeBody(size_t type, const ByteWriter& body) {
  FrameHeader head;
  head.type = static_cast<uint16_t>(type);
  head.payload_bytes = static_cast<uint32_t>(body.bytes().size());
  return decodePayload(head, body.bytes());
}

TEST(Protocol, CountsThatCannotFitAreRefusedWithoutAllocating) {
  ByteWriter body;
  body.string("c");
  body.u32(0xffffffff);
  EXPECT_FALSE(decodeBody(Message(StateReply{}).index(), body));
  ByteWriter many;
  many.string("c");
  many.u32(kMaxListItems + 1);
  many.raw(std::string((kMaxListItems + 1) * 8, '\0'));
  EXPECT_FALSE(decodeBody(Message(StateReply{}).index(), many));
}

TEST(Protocol, UnknownEnumValuesAndBooleansAreRefused) {
  ByteWriter code;
  code.string("c");
  code.u16(5);
  code.string("");
  EXPECT_FALSE(decodeBody(Message(Failure{}).index(), code));
  ByteWriter flag;
  flag.string("c");
  flag.string("main");
  flag.u32(9);
  flag.u8(2);
  EXPECT_FALSE(decodeBody(Message(SignalProcess{}).index(), flag));
}

TEST(Protocol, OverlongContainerIdsAndStringsAreRefused) {
  EXPECT_TRUE(decode(encode({1, std::string(kMaxContainerIdBytes, 'a'), Ok{}})));
  EXPECT_FALSE(decode(encode({1, std::string(kMaxContainerIdBytes + 1, 'a'), Ok{}})));
  EXPECT_TRUE(decode(encode({1, "c", ForgetProcess{std::string(kMaxStringBytes, 'a')}})));
  EXPECT_FALSE(decode(encode({1, "c", ForgetProcess{std::string(kMaxStringBytes + 1, 'a')}})));
}

}  // namespace
}  // namespace hull::guest
