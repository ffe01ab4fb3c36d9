// Logs over several files: what rotation keeps, and what readers and a killed engine find.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "daemon/vm/log_segments.h"
#include "daemon/vm/output_log.h"

namespace hull::engine {
namespace {

class LogRotationTest : public ::testing::Test {
 protected:
  // Ends in no zero, which the log would leave out: lines of one digit are equally long.
  static int64_t timeOf(int number) { return number * 1000 + 1; }
  static std::string line(int number) {
    return encodeLogEntry({OutputKind::kStdout, timeOf(number), std::to_string(number) + "\n"});
  }
  void append(OutputLog& log, int number) { log.append(line(number), {2, 0}); }
  std::string texts(const LogQuery& query = {}) {
    LogReader reader(path_, query, nullptr);
    std::string all;
    while (const auto entry = reader.next()) {
      all += entry->text.substr(0, entry->text.size() - 1) + " ";
    }
    return all;
  }

  TemporaryDirectory root_{"hull-log-rotation"};
  std::string path_ = root_.path() + "/container-json.log";
  LogLimits two_lines_ = {2 * line(0).size(), 3, false};
};

TEST_F(LogRotationTest, KeepsAsManyFilesAsAskedAndReadsThemInOrder) {
  OutputLog log(path_, false, two_lines_);
  for (int i = 0; i < 10; ++i) append(log, i);
  EXPECT_EQ(logSegments(path_).size(), 3u);
  EXPECT_EQ(texts(), "4 5 6 7 8 9 ");
  EXPECT_EQ(texts({.tail = 3}), "7 8 9 ");
  EXPECT_EQ(texts({.tail = 100}), "4 5 6 7 8 9 ");
  EXPECT_EQ(texts({.since_ns = timeOf(5), .until_ns = timeOf(7)}), "5 6 7 ");
  EXPECT_EQ(log.bytes(), 10 * line(0).size());  // positions count what is gone, too
  EXPECT_EQ(logDiskBytes(path_), 6 * line(0).size());
  removeLog(path_);
  EXPECT_TRUE(std::filesystem::is_empty(root_.path()));
}

TEST_F(LogRotationTest, OneFileIsEmptied) {
  OutputLog log(path_, false, {2 * line(0).size(), 1, false});
  for (int i = 0; i < 5; ++i) append(log, i);
  EXPECT_EQ(logSegments(path_).size(), 1u);
  EXPECT_EQ(texts(), "4 ");
  EXPECT_EQ(log.consumed(OutputKind::kStdout), 10u);
}

TEST_F(LogRotationTest, AReaderGoesOnOverRotationAndSkipsWhatIsGone) {
  OutputLog log(path_, false, two_lines_);
  append(log, 0);
  append(log, 1);
  LogReader reader(path_, {.end_bytes = 20 * line(0).size()}, nullptr);
  ASSERT_EQ(reader.next()->text, "0\n");
  append(log, 2);  // rotates the file that is being read
  LogReader late(path_, {}, nullptr);
  for (int i = 3; i < 8; ++i) append(log, i);  // and removes it
  EXPECT_EQ(reader.next()->text, "1\n");
  EXPECT_EQ(late.next()->text, "0\n");
  EXPECT_EQ(late.next()->text, "1\n");
  EXPECT_EQ(late.next()->text, "2\n");
  EXPECT_EQ(late.next(), std::nullopt);
}

// The record is written behind the log: a kill between the two, also around a rotation, neither
// loses nor repeats an entry.
TEST_F(LogRotationTest, AKilledEnginesRecordStillFits) {
  {
    OutputLog log(path_, false, two_lines_);
    for (int i = 0; i < 3; ++i) append(log, i);  // one rotated, one entry in the current file
  }
  writeFull(openFile(path_, O_WRONLY | O_APPEND).get(), line(77));  // not recorded
  {
    OutputLog resumed(path_, true, two_lines_);
    EXPECT_EQ(resumed.consumed(OutputKind::kStdout), 6u);
    EXPECT_EQ(texts(), "0 1 2 ");
    append(resumed, 3);
  }
  // Killed between renaming the full file and making the new one.
  std::filesystem::rename(path_, rotatedLogPath(path_, 2 * line(0).size()));
  EXPECT_EQ(texts(), "0 1 2 3 ");
  OutputLog resumed(path_, true, two_lines_);
  EXPECT_EQ(resumed.consumed(OutputKind::kStdout), 8u);
  append(resumed, 4);
  EXPECT_EQ(texts(), "0 1 2 3 4 ");
}

TEST_F(LogRotationTest, NothingIsKeptOfALogThatIsDiscarded) {
  {
    OutputLog log(path_, false, {0, 1, true});
    append(log, 1);
  }
  OutputLog resumed(path_, true, {0, 1, true});
  EXPECT_EQ(resumed.consumed(OutputKind::kStdout), 2u);  // the guest need not send it again
  EXPECT_EQ(texts(), "");
}

TEST_F(LogRotationTest, ForeignFilesBesideTheLogAreNoPartOfIt) {
  OutputLog log(path_, false, two_lines_);
  append(log, 0);
  for (const char* name : {".1", ".0000000000000000000x", ".99999999999999999999", ".old"}) {
    writeFileAtomic(path_ + name, "x\n");
  }
  EXPECT_EQ(logSegments(path_).size(), 1u);
  EXPECT_EQ(texts(), "0 ");
}

}  // namespace
}  // namespace hull::engine
