// Boots the guest kernel in hull-vmm and watches from outside: exit reasons, disks, vsock, several
// vCPUs, control socket. Needs KVM, HULL_BIN (folder with hull-vmm and vmm-boot-guest) and
// HULL_KERNEL; each test says so and is skipped otherwise. Run by tests/e2e/vmm_boot.sh.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/fd.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "vmm/config/vm_config.h"
#include "vmm/e2e/vmm_under_test.h"

namespace hull::vmm {
namespace {

using testing::HasSubstr;

// One file in the "newc" cpio format, as the whole initramfs.
std::string initramfs(const std::string& init) {
  const auto entry = [](const std::string& name, unsigned mode, const std::string& data) {
    char header[111];
    std::snprintf(header, sizeof header,
                  "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 1u, mode, 0u, 0u,
                  1u, 0u, static_cast<unsigned>(data.size()), 0u, 0u, 0u, 0u,
                  static_cast<unsigned>(name.size() + 1), 0u);
    std::string out = header + name;
    out.push_back('\0');
    while (out.size() % 4 != 0) out.push_back('\0');
    out += data;
    while (out.size() % 4 != 0) out.push_back('\0');
    return out;
  };
  return entry("dev", 0040755, "") + entry("init", 0100755, init) + entry("TRAILER!!!", 0, "");
}

// A VM with the guest kernel and vmm-boot-guest as its init.
class BootVm : public VmmUnderTest {
 public:
  std::string missing() {
    if (getenv("HULL_KERNEL") == nullptr) return "HULL_KERNEL is not set";
    return VmmUnderTest::missing();
  }
  void prepare() {
    kernel_ = openFile(getenv("HULL_KERNEL"), O_RDONLY);
    initrd_ = fileWith(initramfs(readFile(bin_ + "/vmm-boot-guest")));
    config_.memory_mib = 128;
    config_.kernel_fd = give(kernel_.get());
    config_.initrd_fd = give(initrd_.get());
    giveOutputs();
    if (getenv("HULL_TEST_UID") != nullptr) {
      config_.uid = config_.gid = static_cast<uint32_t>(std::atoi(getenv("HULL_TEST_UID")));
    }
  }

 private:
  Fd kernel_, initrd_;
};

class BootTest : public testing::Test, protected BootVm {
 protected:
  void SetUp() override {
    if (const std::string why = missing(); !why.empty()) GTEST_SKIP() << why;
    prepare();
  }
};

TEST_F(BootTest, InitPowersOffThroughTheExitPort) {
  const Result result = boot("poweroff");
  EXPECT_EQ(result.reason, "poweroff");
  EXPECT_EQ(result.status, 0);
  EXPECT_THAT(result.console, HasSubstr("TASK poweroff"));
}

TEST_F(BootTest, KernelPowersOffThroughTheRegister) {
  const Result result = boot("kernel-poweroff");
  EXPECT_EQ(result.reason, "poweroff");
  EXPECT_THAT(result.detail, HasSubstr("kernel"));
}

TEST_F(BootTest, RebootIsAReset) {
  const Result result = boot("reset");
  EXPECT_EQ(result.reason, "reset");
  EXPECT_EQ(result.status, 0);
}

TEST_F(BootTest, EndOfInitIsAPanic) {
  const Result result = boot("panic");
  EXPECT_EQ(result.reason, "panic");
  EXPECT_EQ(result.status, 10);
}

TEST_F(BootTest, TripleFaultIsToldApart) {
  config_.command_line = "reboot=t";
  const Result result = boot("reset");
  EXPECT_EQ(result.reason, "triple-fault");
  EXPECT_EQ(result.status, 11);
}

TEST_F(BootTest, MissingInitrdIsAPanic) {
  config_.initrd_fd = -1;
  EXPECT_EQ(boot("poweroff").reason, "panic");
}

TEST_F(BootTest, KernelThatIsNoneIsAnError) {
  const Fd file = fileWith("no kernel");
  config_.kernel_fd = give(file.get());
  const Result result = boot("poweroff");
  EXPECT_EQ(result.reason, "error");
  EXPECT_EQ(result.status, 13);
  EXPECT_THAT(result.detail, HasSubstr("load kernel"));
}

TEST_F(BootTest, TwoCpus) {
  config_.vcpus = 2;
  EXPECT_THAT(boot("cpus").console, HasSubstr("CPUS 0-1\r\n"));
}

TEST_F(BootTest, FourCpus) {
  config_.vcpus = 4;
  EXPECT_THAT(boot("cpus").console, HasSubstr("CPUS 0-3\r\n"));
}

TEST_F(BootTest, MemoryGoesOnAboveFourGib) {
  config_.memory_mib = 5 * 1024;
  const std::string console = boot("memory").console;
  const size_t at = console.find("MEMORY ");
  ASSERT_NE(at, std::string::npos) << console;
  EXPECT_GT(std::atoi(console.c_str() + at + 7), 4900);
}

TEST_F(BootTest, HardwareRandomNumbers) {
  EXPECT_THAT(boot("random").console, HasSubstr("RANDOM OK"));
}

TEST_F(BootTest, EarlySerialShowsTheKernelsFirstWords) {
  config_.early_serial = true;
  EXPECT_THAT(boot("poweroff").console, HasSubstr("Linux version"));
}

TEST_F(BootTest, DisksOfSegments) {
  constexpr uint64_t kMib = 1 << 20;
  std::string pattern(3 * kMib, '\0');
  for (uint64_t i = 0; i < pattern.size(); ++i) {
    pattern[i] = static_cast<char>((i >> 12) * 7 + i % 251);
  }
  // Mebibytes 0 and 2 of disk A in two files, 4 KiB into the second; 1 is a hole.
  const Fd first = readOnly(fileWith(pattern.substr(0, kMib)));
  const Fd second = readOnly(fileWith(std::string(4096, 'x') + pattern.substr(2 * kMib)));
  const Fd writable = fileWith("");
  ASSERT_EQ(ftruncate(writable.get(), 8 * kMib), 0);
  config_.disks = {{"disk-a",
                    3 * kMib,
                    true,
                    {{give(first.get()), 0, 0, kMib}, {give(second.get()), 4096, 2 * kMib, kMib}}},
                   {"disk-b", 8 * kMib, false, {{give(writable.get()), 0, 0, 8 * kMib}}}};
  EXPECT_THAT(boot("disks").console, HasSubstr("DISKS OK"));
  const std::string written = contents(writable.get());
  EXPECT_EQ(written.substr(0, 4096), pattern.substr(0, 4096));
  EXPECT_EQ(written.substr(4 * kMib, 4096), std::string(4096, '\0'));
}

// Sends `bytes` of noise to the echo port and reads them back while sending.
void echoOnce(Fd client, size_t bytes) {
  std::string noise(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) noise[i] = static_cast<char>(i * 131 >> 3);
  std::thread sender([&] {
    writeFull(client.get(), noise);
    shutdown(client.get(), SHUT_WR);
  });
  std::string back(bytes + 1, '\0');
  const size_t got = readFull(client.get(), std::as_writable_bytes(std::span(back)));
  sender.join();
  back.resize(got);
  EXPECT_EQ(got, bytes);
  EXPECT_TRUE(back == noise);
}

TEST_F(BootTest, VsockEchoesEveryByteAndHalfClose) {
  addVsock();
  addControl();
  config_.vcpus = 2;
  start("vsock");
  waitReady();
  std::string answer;
  Fd refused = connectGuest(4242, &answer);
  EXPECT_THAT(answer, HasSubstr("ERR "));
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{65536}, size_t{3'000'000}}) {
    Fd client = connectGuest(1000, &answer);
    ASSERT_THAT(answer, HasSubstr("OK "));
    echoOnce(std::move(client), bytes);
  }
  command(R"({"command":"stop"})");
  EXPECT_EQ(finish().reason, "terminated");
}

TEST_F(BootTest, VsockCarriesManyStreamsAtOnce) {
  constexpr int kStreams = 100;
  addVsock();
  addControl();
  start("vsock");
  waitReady();
  std::vector<Fd> clients;
  std::string answer;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(connectGuest(1000, &answer));
    ASSERT_THAT(answer, HasSubstr("OK "));
  }
  std::vector<std::thread> threads;
  for (Fd& client : clients) threads.emplace_back(echoOnce, std::move(client), 100'000);
  for (auto& thread : threads) thread.join();
  command(R"({"command":"stop"})");
  EXPECT_EQ(finish().reason, "terminated");
}

TEST_F(BootTest, VsockConnectionWaitsForTheGuest) {
  addVsock();
  start("sleep");
  std::string answer;
  // Asked for long before there is a guest; refused once there is, because nobody listens.
  Fd client = connectGuest(1000, &answer);
  EXPECT_THAT(answer, HasSubstr("ERR "));
  vmm_->kill(SIGTERM);
  EXPECT_EQ(finish().reason, "terminated");
}

TEST_F(BootTest, ControlSocketPausesAndResumes) {
  addControl();
  addVsock();
  config_.vcpus = 2;
  start("vsock");
  waitReady();
  EXPECT_EQ(command(R"({"command":"pause"})"), R"({"ok":true})");
  EXPECT_THAT(command(R"({"command":"status"})"), HasSubstr(R"("state":"paused")"));
  EXPECT_EQ(command(R"({"command":"resume"})"), R"({"ok":true})");
  EXPECT_THAT(command(R"({"command":"status"})"), HasSubstr(R"("state":"running")"));
  EXPECT_THAT(command(R"({"command":"dance"})"), HasSubstr("error"));
  EXPECT_THAT(command("nonsense"), HasSubstr("error"));
  std::string answer;
  Fd client = connectGuest(1000, &answer);
  ASSERT_THAT(answer, HasSubstr("OK "));
  echoOnce(std::move(client), 1000);
  vmm_->kill(SIGTERM);
  const Result result = finish();
  EXPECT_EQ(result.reason, "terminated");
  EXPECT_EQ(result.status, 12);
}

// Linux with two CPUs, saved in the middle of a connection, goes on in another process: its
// listener is still there, the old connection is not.
TEST_F(BootTest, SavedLinuxGoesOnInAnotherProcess) {
  const auto describe = [](BootVm& vm) {
    vm.addVsock();
    vm.addControl();
    vm.config_.vcpus = 2;
  };
  describe(*this);
  start("vsock");
  waitReady();
  std::string answer;
  Fd open_connection = connectGuest(1000, &answer);
  ASSERT_THAT(answer, HasSubstr("OK "));
  const Fd state = fileWith(""), memory = fileWith("");
  const auto saved = save(state, memory);
  ASSERT_TRUE(saved.contains("ok")) << saved;
  EXPECT_GT(saved["memory_bytes"], 1 << 20);
  command(R"({"command":"stop"})");
  EXPECT_EQ(finish().reason, "terminated");

  for (int copy = 0; copy < 2; ++copy) {
    BootVm restored;
    ASSERT_EQ(restored.missing(), "");
    restored.prepare();
    describe(restored);
    restored.restoreFrom(state, memory);
    restored.start("nothing of this is read");
    restored.waitReady();
    Fd client = restored.connectGuest(1000, &answer);
    ASSERT_THAT(answer, HasSubstr("OK "));
    echoOnce(std::move(client), 300'000);
    restored.command(R"({"command":"stop"})");
    const Result result = restored.finish();
    EXPECT_EQ(result.reason, "terminated") << result.detail;
    EXPECT_EQ(result.console, "");  // no boot
  }
}

TEST_F(BootTest, SavedLinuxGoesOnInItsOwnProcess) {
  addVsock();
  addControl();
  start("vsock");
  waitReady();
  std::string answer;
  Fd client = connectGuest(1000, &answer);
  const Fd state = fileWith(""), memory = fileWith("");
  ASSERT_TRUE(save(state, memory).contains("ok"));
  command(R"({"command":"resume"})");
  echoOnce(std::move(client), 100'000);  // the connection is as it was
  command(R"({"command":"stop"})");
  EXPECT_EQ(finish().reason, "terminated");
}

}  // namespace
}  // namespace hull::vmm
