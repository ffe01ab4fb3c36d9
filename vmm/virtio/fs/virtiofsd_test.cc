// The device against the distribution's virtiofsd: a FUSE conversation through real rings in shared
// memory, without a guest. Skipped where there is no virtiofsd or no root to sandbox it with.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/subprocess.h"
#include "vmm/testing/fake_driver.h"
#include "vmm/virtio/fs/fs.h"

namespace hull::vmm::virtio {
namespace {

using testing::ChainBuilder;
using testing::FakeDriver;
using testing::FakeHost;
using namespace std::chrono_literals;

std::string findVirtiofsd() {
  for (const char* path : {"/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"}) {
    if (fileExists(path)) return path;
  }
  return "";
}

class VirtiofsdTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string program = findVirtiofsd();
    if (program.empty()) GTEST_SKIP() << "no virtiofsd (apt-get install qemu-system-common)";
    if (geteuid() != 0) GTEST_SKIP() << "virtiofsd needs root for its sandbox";
    char pattern[] = "/tmp/hull-virtiofsd-XXXXXX";
    folder_ = mkdtemp(pattern);
    std::filesystem::create_directory(folder_ + "/shared");
    std::ofstream(folder_ + "/shared/greeting") << "ahoy";
    const Fd listener = listenUnix(folder_ + "/socket");
    socket_ = connectUnix(folder_ + "/socket");
    SubprocessOptions options;
    options.arguments = {program, "--fd=3", "-o", "source=" + folder_ + "/shared"};
    if (program.find("qemu") == std::string::npos) {
      options.arguments = {program, "--fd=3", "--shared-dir=" + folder_ + "/shared"};
    }
    options.descriptors = {{listener.get(), 3}};
    server_.emplace(options);
    device_ = std::make_unique<FsDevice>(FsConfig{"shares", socket_.get()}, loop_);
    host_.interrupt_fd = interrupt_.get();
    std::vector<Queue> queues;
    queues.push_back(priority_.queue());
    queues.push_back(requests_.queue());
    device_->activate({memory_, host_, kFeatureVersion1, std::move(queues)});
    ASSERT_FALSE(device_->failed());
  }
  void TearDown() override {
    device_.reset();
    socket_.reset();  // virtiofsd ends with its connection
    if (server_) server_->wait();
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  // One request of `payload`; the answer's header and what follows it.
  struct Reply {
    fuse_out_header header{};
    GuestAddress payload = 0;
  };
  Reply ask(uint32_t opcode, uint64_t node, std::string_view payload, uint32_t answer_bytes) {
    fuse_in_header header{};
    header.len = static_cast<uint32_t>(sizeof header + payload.size());
    header.opcode = opcode;
    header.unique = ++unique_;
    header.nodeid = node;
    GuestAddress out = 0, body = 0;
    ChainBuilder chain(requests_);
    chain.readableValue(header);
    if (!payload.empty()) chain.readable(payload);
    chain.writable(sizeof(fuse_out_header), &out).writable(answer_bytes, &body).send();
    const uint16_t before = requests_.usedIndex();
    eventfd_write(device_->queueNotifyFds()[1].get(), 1);
    pollfd interrupted{interrupt_.get(), POLLIN, 0};
    for (int tries = 0; tries < 20 && requests_.usedIndex() == before; ++tries) {
      poll(&interrupted, 1, 500);
      eventfd_t count = 0;
      if ((interrupted.revents & POLLIN) != 0) eventfd_read(interrupt_.get(), &count);
    }
    EXPECT_NE(requests_.usedIndex(), before) << "no answer";
    return {requests_.get<fuse_out_header>(out), body};
  }
  Reply initialise() {
    fuse_init_in init{};
    init.major = FUSE_KERNEL_VERSION;
    init.minor = 31;
    init.max_readahead = 4096;
    return ask(FUSE_INIT, 0, {reinterpret_cast<const char*>(&init), sizeof init},
               sizeof(fuse_init_out));
  }

  std::string folder_;
  Fd socket_;
  Fd interrupt_{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  std::optional<Subprocess> server_;
  EventLoop loop_;
  GuestMemory memory_{testing::kTestMemoryBytes, GuestMemory::Sharing::kShared};
  FakeDriver priority_{memory_, 16, 0x10000};
  FakeDriver requests_{memory_, 32, 0x100000};
  FakeHost host_;
  std::unique_ptr<FsDevice> device_;
  uint64_t unique_ = 0;
};

TEST_F(VirtiofsdTest, AnswersThroughTheRings) {
  const Reply init = initialise();
  EXPECT_EQ(init.header.error, 0);
  EXPECT_EQ(requests_.get<fuse_init_out>(init.payload).major, uint32_t{FUSE_KERNEL_VERSION});
  const Reply found =
      ask(FUSE_LOOKUP, FUSE_ROOT_ID, std::string_view("greeting", 9), sizeof(fuse_entry_out));
  EXPECT_EQ(found.header.error, 0);
  EXPECT_EQ(requests_.get<fuse_entry_out>(found.payload).attr.size, 4u);
}

// Raw frames that no kernel would send: what is outside stays outside.
TEST_F(VirtiofsdTest, NamesThatLeaveTheFolderAreRefused) {
  initialise();
  for (const std::string name : {"../socket", "/etc/passwd", "..", "."}) {
    const Reply reply =
        ask(FUSE_LOOKUP, FUSE_ROOT_ID, std::string_view(name.c_str(), name.size() + 1),
            sizeof(fuse_entry_out));
    if (name == ".." || name == ".") {
      // Both are the root itself, if anything.
      struct stat root {};
      ASSERT_EQ(stat((folder_ + "/shared").c_str(), &root), 0);
      if (reply.header.error == 0) {
        EXPECT_EQ(requests_.get<fuse_entry_out>(reply.payload).attr.ino, root.st_ino) << name;
      }
      continue;
    }
    EXPECT_LT(reply.header.error, 0) << name;
  }
}

TEST_F(VirtiofsdTest, ItsDeathFailsTheDevice) {
  initialise();
  server_->kill(SIGKILL);
  for (int turn = 0; turn < 500 && !device_->failed(); ++turn) loop_.runOnce(10ms);
  EXPECT_TRUE(device_->failed());
  EXPECT_TRUE(host_.reset_reason);
}

}  // namespace
}  // namespace hull::vmm::virtio
