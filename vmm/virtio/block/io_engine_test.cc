#include "vmm/virtio/block/io_engine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/error.h"
#include "base/fd.h"
#include "vmm/virtio/block/thread_engine.h"
#include "vmm/virtio/block/uring_engine.h"

namespace hull::vmm::virtio {
namespace {

class CountingClient final : public IoClient {
 public:
  void onIoDone(IoOperation& operation) noexcept override {
    ++done;
    if (operation.result != DiskResult::kOk) ++failed;
  }
  void onIoBatchEnd() noexcept override { ++batches; }
  size_t done = 0, failed = 0, batches = 0;
};

class IoEngineTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "threads") {
      engine_ = std::make_unique<ThreadEngine>(loop_);
    } else {
      try {
        engine_ = std::make_unique<UringEngine>(loop_);
      } catch (const Error& error) {
        GTEST_SKIP() << error.what();
      }
    }
    engine_->start(std::nullopt);
  }
  IoOperation operation(IoOperation::Kind kind, uint64_t offset, std::span<char> buffer) {
    IoOperation result{kind, file_.get(), offset};
    if (!buffer.empty()) result.buffers.push_back({buffer.data(), buffer.size()});
    result.client = &client_;
    return result;
  }

  EventLoop loop_;
  Fd file_ = makeMemfd("disk");
  CountingClient client_;
  std::unique_ptr<IoEngine> engine_;
};

TEST_P(IoEngineTest, LoopReportsWhatIsDone) {
  std::string text = "written";
  IoOperation write = operation(IoOperation::Kind::kWrite, 5, text);
  engine_->submit(write);
  engine_->kick();
  while (client_.done == 0) loop_.runOnce(std::chrono::milliseconds(100));
  EXPECT_EQ(write.result, DiskResult::kOk);
  EXPECT_EQ(client_.batches, 1u);
  std::string back(12, '.');
  preadFull(file_.get(), std::as_writable_bytes(std::span(back)), 0);
  EXPECT_EQ(back, std::string(5, '\0') + "written");
}

// More than fit any ring; each reported once.
TEST_P(IoEngineTest, AnyNumberMayBeUnderWay) {
  writeFull(file_.get(), std::string(4096, 'x'));
  constexpr size_t kCount = 3 * UringEngine::kMaxInFlight;
  std::vector<std::array<char, 8>> buffers(kCount);
  std::vector<IoOperation> operations;
  operations.reserve(kCount);
  for (auto& buffer : buffers) {
    operations.push_back(operation(IoOperation::Kind::kRead, 0, buffer));
    engine_->submit(operations.back());
  }
  engine_->drain();
  EXPECT_EQ(client_.done, kCount);
  EXPECT_EQ(client_.failed, 0u);
  EXPECT_EQ(buffers.back()[7], 'x');
}

TEST_P(IoEngineTest, EndOfFileAndBadDescriptorsAreErrors) {
  writeFull(file_.get(), "abc");
  std::array<char, 8> buffer{};
  IoOperation beyond = operation(IoOperation::Kind::kRead, 0, buffer);
  IoOperation bad = operation(IoOperation::Kind::kSync, 0, {});
  bad.fd = -1;
  engine_->submit(beyond);
  engine_->submit(bad);
  engine_->drain();
  EXPECT_EQ(beyond.result, DiskResult::kError);  // a part, then nothing
  EXPECT_EQ(bad.result, DiskResult::kError);
}

TEST_P(IoEngineTest, HolesGiveSpaceBack) {
  writeFull(file_.get(), std::string(1 << 20, 'x'));
  IoOperation punch = operation(IoOperation::Kind::kPunchHole, 0, {});
  punch.length = 1 << 20;
  engine_->submit(punch);
  engine_->drain();
  EXPECT_EQ(punch.result, DiskResult::kOk);
  EXPECT_EQ(lseek(file_.get(), 0, SEEK_DATA), -1);
  EXPECT_EQ(errno, ENXIO);
}

INSTANTIATE_TEST_SUITE_P(Engines, IoEngineTest, ::testing::Values("io_uring", "threads"),
                         [](const auto& each) { return each.param; });

TEST(ApplyResult, PartsMoveOnAndLimitsHold) {
  std::array<char, 10> a{}, b{};
  IoOperation operation{IoOperation::Kind::kRead, 0, 100, 0, {{a.data(), 10}, {b.data(), 10}}};
  EXPECT_FALSE(applyResult(operation, 4));
  EXPECT_EQ(operation.offset, 104u);
  EXPECT_EQ(operation.buffers[0].iov_base, a.data() + 4);
  EXPECT_FALSE(applyResult(operation, -EINTR));
  EXPECT_FALSE(applyResult(operation, 6));
  EXPECT_EQ(operation.first_buffer, 1u);
  EXPECT_TRUE(applyResult(operation, 10));
  EXPECT_EQ(operation.result, DiskResult::kOk);
  IoOperation unsupported{IoOperation::Kind::kZeroRange};
  EXPECT_TRUE(applyResult(unsupported, -EOPNOTSUPP));
  EXPECT_EQ(unsupported.result, DiskResult::kUnsupported);
}

}  // namespace
}  // namespace hull::vmm::virtio
