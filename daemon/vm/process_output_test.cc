// The way of a process's output: log format, what survives a killed engine, attached clients,
// reading and following logs. The guest is a thread behind a socket pair.
#include "daemon/vm/process_output.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <random>

#include "base/error.h"
#include "base/file.h"
#include "daemon/vm/guest_wire.h"

namespace hull::engine {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
constexpr seconds kLong{60};

// One output stream of a guest process: serves `data` from any offset, takes acknowledgements.
class GuestStream {
 public:
  ~GuestStream() { finish(); }

  Fd open(uint64_t offset) {
    finish();
    auto pair = makeSocketPair(SOCK_STREAM);
    socket_ = std::move(pair.first);
    EXPECT_GE(offset, acknowledged_);
    writer_ = std::thread([this, offset] {
      std::string_view rest = std::string_view(data).substr(offset, limit - offset);
      try {
        sendAll(socket_.get(), rest, deadlineIn(kLong), -1);
      } catch (const Error&) {
        return;  // the engine was killed
      }
      if (ends) shutdown(socket_.get(), SHUT_WR);
    });
    reader_ = std::thread([this] {
      uint64_t total = 0;
      while (recv(socket_.get(), &total, sizeof total, MSG_WAITALL) == sizeof total) {
        EXPECT_GE(total, acknowledged_);
        acknowledged_ = total;
      }
    });
    return std::move(pair.second);
  }
  // The engine's end is closed by now.
  void finish() {
    if (!writer_.joinable()) return;
    writer_.join();
    reader_.join();
  }
  uint64_t acknowledged() const { return acknowledged_; }

  std::string data;
  size_t limit = std::string::npos;
  bool ends = true;

 private:
  Fd socket_;
  std::thread writer_, reader_;
  std::atomic<uint64_t> acknowledged_ = 0;
};

class OutputTest : public testing::Test {
 protected:
  std::shared_ptr<ProcessOutput> make(bool resume = false) {
    return std::make_shared<ProcessOutput>(ProcessOutput::Options{log_, false, resume});
  }
  ProcessOutput::OpenFunction guest() {
    return [this](OutputKind kind, uint64_t offset) {
      return (kind == OutputKind::kStdout ? out_ : err_).open(offset);
    };
  }
  std::vector<LogEntry> read(const LogQuery& query = {}) {
    LogReader reader(log_, query, nullptr);
    std::vector<LogEntry> entries;
    while (auto entry = reader.next()) entries.push_back(std::move(*entry));
    return entries;
  }
  std::string text(OutputKind kind) {
    std::string all;
    for (const auto& entry : read()) {
      if (entry.stream == kind) all += entry.text;
    }
    return all;
  }
  static std::string take(OutputSubscription& subscription, size_t size) {
    std::string bytes;
    while (bytes.size() < size) {
      auto chunk = subscription.next();
      if (!chunk) break;
      bytes += chunk->bytes;
    }
    return bytes;
  }

  TemporaryDirectory root_{"hull-output-test"};
  std::string log_ = root_.path() + "/container-json.log";
  GuestStream out_, err_;
};

TEST(LogFormat, IsDockers) {
  const int64_t time = 1700000000'120000000;
  EXPECT_EQ(encodeLogEntry({OutputKind::kStderr, time, "a\t\"<\x01\n"}),
            "{\"log\":\"a\\t\\\"\\u003c\\u0001\\n\",\"stream\":\"stderr\","
            "\"time\":\"2023-11-14T22:13:20.12Z\"}\n");
  EXPECT_EQ(formatLogTime(time, true), "2023-11-14T22:13:20.120000000Z");
  EXPECT_EQ(formatLogTime(1700000000'000000000, false), "2023-11-14T22:13:20Z");
}

TEST(LogFormat, WhatIsNoUtf8IsReplaced) {
  const auto textOf = [](const std::string& text) {
    const std::string line = encodeLogEntry({OutputKind::kStdout, 0, text});
    const auto entry = decodeLogEntry(line);
    return entry ? entry->text : "not decoded: " + line;
  };
  EXPECT_EQ(textOf("gr\xc3\xbc\xc3\x9f \xf0\x9f\x90\xb3"), "gr\xc3\xbc\xc3\x9f \xf0\x9f\x90\xb3");
  EXPECT_EQ(textOf("a\xffz"), "a\xef\xbf\xbdz");
  EXPECT_EQ(textOf("\xc3"), "\xef\xbf\xbd");
  EXPECT_EQ(textOf("\xc0\x80"), "\xef\xbf\xbd\xef\xbf\xbd");                  // overlong
  EXPECT_EQ(textOf("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");  // surrogate
  EXPECT_EQ(textOf(std::string("\0x", 2)), std::string("\0x", 2));
}

TEST(LogFormat, EntriesSurviveTheRoundTrip) {
  const LogEntry entry{OutputKind::kStderr, 1700000000'000000001, "hello\r\n"};
  const auto decoded = decodeLogEntry(encodeLogEntry(entry));
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->time_ns, entry.time_ns);
  EXPECT_EQ(decoded->text, entry.text);
  EXPECT_EQ(decoded->stream, entry.stream);
}

TEST(LogFormat, ForeignLinesAreNoEntries) {
  for (const char* line :
       {"", "{}", "[1]", "{\"log\":1,\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20Z\"}",
        "{\"log\":\"\",\"stream\":\"stdin\",\"time\":\"2023-11-14T22:13:20Z\"}",
        "{\"log\":\"\",\"stream\":\"stdout\",\"time\":\"yesterday\"}",
        "{\"log\":\"\",\"stream\":\"stdout\",\"time\":\"2023-11-14T22:13:20+01:00\"}"}) {
    EXPECT_EQ(decodeLogEntry(line), std::nullopt) << line;
  }
}

TEST_F(OutputTest, BothStreamsAreLoggedAndAcknowledged) {
  out_.data = "one\ntwo\nunfinished";
  err_.data = "bad\n";
  auto output = make();
  output->begin(guest());
  ASSERT_TRUE(output->waitEnded(kLong));
  EXPECT_EQ(text(OutputKind::kStdout), out_.data);
  EXPECT_EQ(text(OutputKind::kStderr), err_.data);
  EXPECT_EQ(read().size(), 4u);
  output.reset();
  out_.finish();
  EXPECT_EQ(out_.acknowledged(), 8u);  // the last line was no line before the end
}

TEST_F(OutputTest, LongLinesAreSplitBetweenCharacters) {
  out_.data = std::string(kMaxLogTextBytes - 1, 'a') + "\xc3\xbc" +
              std::string(kMaxLogTextBytes, 'b') + "\n";
  auto output = make();
  output->begin(guest());
  ASSERT_TRUE(output->waitEnded(kLong));
  const auto entries = read();
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[0].text.size(), kMaxLogTextBytes - 1);
  EXPECT_TRUE(entries[1].text.starts_with("\xc3\xbc"));
  EXPECT_EQ(text(OutputKind::kStdout), out_.data);
}

TEST_F(OutputTest, AttachedClientSeesAPromptBeforeItsLineEnds) {
  out_.data = "password: ";
  out_.ends = false;
  auto output = make();
  const auto attached = output->subscribe();
  output->begin(guest());
  EXPECT_EQ(take(*attached, 10), "password: ");
  EXPECT_TRUE(read().empty());
  const auto late = output->subscribe(OutputSubscription::WhenSlow::kWait, true);
  EXPECT_EQ(take(*late, 10), "password: ");
  output->stop();
  EXPECT_EQ(attached->next(), std::nullopt);
  EXPECT_FALSE(output->ended());
  EXPECT_TRUE(read().empty());  // it comes again for the next engine process
}

// An engine that is killed again and again, at any point, with a guest that forgets what was
// acknowledged: the log holds every byte once.
TEST_F(OutputTest, NothingIsLostOrDoubledOverEngineRestarts) {
  std::mt19937 random(7);
  for (int line = 0; line < 4000; ++line) {
    out_.data += "line " + std::to_string(line) + std::string(random() % 60, '.') + "\n";
    err_.data += "error " + std::to_string(line) + "\n";
  }
  bool resume = false;
  for (size_t limit = 0; limit < out_.data.size(); limit += 1 + random() % 40000) {
    out_.limit = err_.limit = limit;
    out_.ends = err_.ends = false;
    auto output = make(resume);
    resume = true;
    output->begin(guest());
    output->waitForLog(random() % 200000, milliseconds(random() % 4));
    output->stop();
    output.reset();
    out_.finish();
    err_.finish();
    // What the killed engine had written, but not recorded.
    if (random() % 2 == 0) {
      writeFull(openFile(log_, O_WRONLY | O_APPEND).get(), "{\"log\":\"torn");
    }
  }
  out_.limit = err_.limit = std::string::npos;
  out_.ends = err_.ends = true;
  auto output = make(true);
  output->begin(guest());
  ASSERT_TRUE(output->waitEnded(kLong));
  EXPECT_EQ(text(OutputKind::kStdout), out_.data);
  EXPECT_EQ(text(OutputKind::kStderr), err_.data);
}

TEST_F(OutputTest, RecordedEntriesWithoutARecordAreCutOff) {
  const std::string entry = encodeLogEntry({OutputKind::kStdout, 0, "one\n"});
  {
    OutputLog log(log_, false);
    log.append(entry, {4, 0});
  }
  // Written by an engine that was killed before it recorded it.
  writeFull(openFile(log_, O_WRONLY | O_APPEND).get(),
            encodeLogEntry({OutputKind::kStdout, 0, "two\n"}));
  OutputLog resumed(log_, true);
  EXPECT_EQ(resumed.consumed(OutputKind::kStdout), 4u);
  EXPECT_EQ(resumed.bytes(), entry.size());
  EXPECT_EQ(readFile(log_), entry);
}

TEST_F(OutputTest, NewRunCountsFromZeroAndKeepsTheLog) {
  {
    OutputLog log(log_, false);
    log.append(encodeLogEntry({OutputKind::kStdout, 0, "one\n"}), {4, 0});
  }
  OutputLog again(log_, false);
  EXPECT_EQ(again.consumed(OutputKind::kStdout), 0u);
  EXPECT_EQ(read().size(), 1u);
}

TEST_F(OutputTest, DamagedRecordIsNotBelieved) {
  {
    OutputLog log(log_, false);
    log.append(encodeLogEntry({OutputKind::kStdout, 0, "one\n"}), {4, 0});
  }
  pwriteFull(openFile(log_ + ".state", O_WRONLY).get(), asBytes("damaged"), 8);
  OutputLog resumed(log_, true);
  EXPECT_EQ(resumed.consumed(OutputKind::kStdout), 0u);
  EXPECT_EQ(read().size(), 1u);
}

TEST_F(OutputTest, EmptiedLogIsWrittenFromItsBeginning) {
  OutputLog log(log_, false);
  log.append(encodeLogEntry({OutputKind::kStdout, 0, "one\n"}), {4, 0});
  ASSERT_EQ(truncate(log_.c_str(), 0), 0);
  log.append(encodeLogEntry({OutputKind::kStdout, 0, "two\n"}), {4, 0});
  ASSERT_EQ(read().size(), 1u);
  EXPECT_EQ(read()[0].text, "two\n");
}

TEST_F(OutputTest, SlowClientMakesTheProcessWaitAndLosesNothing) {
  out_.data = std::string(4 * kMaxQueuedOutputBytes, 'x');
  auto output = make();
  const auto attached = output->subscribe();
  output->begin(guest());
  EXPECT_FALSE(output->waitEnded(milliseconds(50)));
  EXPECT_EQ(take(*attached, out_.data.size()), out_.data);
  EXPECT_TRUE(output->waitEnded(kLong));
  EXPECT_EQ(attached->next(), std::nullopt);
}

TEST_F(OutputTest, ClientThatLeavesNoLongerHoldsTheProcess) {
  out_.data = std::string(4 * kMaxQueuedOutputBytes, 'x');
  auto output = make();
  auto attached = output->subscribe();
  output->begin(guest());
  ASSERT_TRUE(attached->next());
  attached.reset();
  EXPECT_TRUE(output->waitEnded(kLong));
}

TEST_F(OutputTest, DroppingClientOverflowsAlone) {
  out_.data = std::string(4 * kMaxQueuedOutputBytes, 'x');
  auto output = make();
  const auto slow = output->subscribe(OutputSubscription::WhenSlow::kDrop);
  output->begin(guest());
  EXPECT_TRUE(output->waitEnded(kLong));
  EXPECT_EQ(slow->next(), std::nullopt);
  EXPECT_TRUE(slow->overflowed());
  EXPECT_EQ(text(OutputKind::kStdout), out_.data);
}

TEST_F(OutputTest, HistoryAndThenTheRestIsEverythingOnce) {
  for (int line = 0; line < 3000; ++line) out_.data += "line " + std::to_string(line) + "\n";
  auto output = make();
  output->begin(guest());
  const auto attached = output->subscribe(OutputSubscription::WhenSlow::kWait, true);
  LogQuery history;
  history.end_bytes = attached->logBytes();
  std::string all;
  for (const auto& entry : read(history)) all += entry.text;
  all += take(*attached, std::string::npos);
  EXPECT_EQ(all, out_.data);
}

TEST_F(OutputTest, ExecKeepsNoLogAndAcknowledgesEverything) {
  out_.data = "no newline";
  auto output = std::make_shared<ProcessOutput>(ProcessOutput::Options{});
  const auto attached = output->subscribe();
  output->begin(guest());
  EXPECT_EQ(take(*attached, std::string::npos), "no newline");
  output.reset();
  out_.finish();
  EXPECT_EQ(out_.acknowledged(), 10u);
}

TEST_F(OutputTest, TerminalHasOneStream) {
  out_.data = "raw\r\n";
  auto output = std::make_shared<ProcessOutput>(ProcessOutput::Options{log_, true, false});
  int opened = 0;
  output->begin([&](OutputKind kind, uint64_t offset) {
    ++opened;
    return guest()(kind, offset);
  });
  ASSERT_TRUE(output->waitEnded(kLong));
  EXPECT_EQ(opened, 1);
  EXPECT_EQ(text(OutputKind::kStdout), "raw\r\n");
}

TEST_F(OutputTest, FailedBeginCanBeStoppedAndLetsClientsGo) {
  auto output = make();
  const auto attached = output->subscribe();
  EXPECT_THROW(output->begin([](OutputKind, uint64_t) -> Fd {
    throw Error(ErrorKind::kUnavailable, "gone");
  }),
               Error);
  output->stop();
  EXPECT_EQ(attached->next(), std::nullopt);
}

class LogReaderTest : public OutputTest {
 protected:
  void write(int count) {
    OutputLog log(log_, false);
    for (int i = 0; i < count; ++i) {
      const auto kind = i % 2 == 0 ? OutputKind::kStdout : OutputKind::kStderr;
      log.append(encodeLogEntry({kind, i * 1000, std::to_string(i) + "\n"}), {0, 0});
    }
  }
  std::string texts(const LogQuery& query) {
    std::string all;
    for (const auto& entry : read(query)) all += entry.text.substr(0, entry.text.size() - 1) + " ";
    return all;
  }
};

TEST_F(LogReaderTest, FiltersByTimeStreamAndTail) {
  write(8);
  EXPECT_EQ(texts({}), "0 1 2 3 4 5 6 7 ");
  EXPECT_EQ(texts({.since_ns = 3000, .until_ns = 5000}), "3 4 5 ");
  EXPECT_EQ(texts({.want_stderr = false}), "0 2 4 6 ");
  EXPECT_EQ(texts({.tail = 3}), "5 6 7 ");
  EXPECT_EQ(texts({.want_stdout = false, .tail = 3}), "5 7 ");
  EXPECT_EQ(texts({.tail = 0}), "");
  EXPECT_EQ(texts({.tail = 100}), "0 1 2 3 4 5 6 7 ");
}

TEST_F(LogReaderTest, TailGoesBackOverManyBlocks) {
  write(5000);
  const auto entries = read({.tail = 4000});
  ASSERT_EQ(entries.size(), 4000u);
  EXPECT_EQ(entries[0].text, "1000\n");
}

TEST_F(LogReaderTest, MissingLogIsEmpty) {
  EXPECT_EQ(texts({}), "");
}

TEST_F(LogReaderTest, ForeignBytesAreSkipped) {
  write(2);
  const Fd file = openFile(log_, O_WRONLY | O_APPEND);
  writeFull(file.get(), std::string(3 * kMaxLogLineBytes, 'x') + "\n\n{}\n");
  writeFull(file.get(), encodeLogEntry({OutputKind::kStdout, 9, "end\n"}) + "half a li");
  EXPECT_EQ(texts({}), "0 1 end ");
}

TEST_F(LogReaderTest, FollowGoesOnUntilTheOutputEnds) {
  out_.data = "one\ntwo\nthree\n";
  auto output = make();
  LogReader reader(log_, {.follow = true}, output);
  output->begin(guest());
  std::string all;
  while (auto entry = reader.next()) all += entry->text;
  EXPECT_EQ(all, out_.data);
  EXPECT_TRUE(output->ended());
}

TEST_F(LogReaderTest, CancelledFollowEnds) {
  out_.ends = false;
  auto output = make();
  output->begin(guest());
  LogReader reader(log_, {.follow = true}, output);
  std::thread canceller([&] { reader.cancel(); });
  EXPECT_EQ(reader.next(), std::nullopt);
  canceller.join();
}

}  // namespace
}  // namespace hull::engine
