#include "cli/terminal/progress.h"

#include <gtest/gtest.h>

namespace hull::cli {
namespace {

constexpr uint64_t kMb = 1'000'000;
const std::string kStatus = "Downloading";

TEST(TransferProgress, ShowsRateAndTimeLeftAfterASecond) {
  TransferProgress progress;
  EXPECT_EQ(progress.line(kStatus, 0, 300 * kMb, 10),
            "Downloading [>                             ] 0B/300MB");
  EXPECT_EQ(progress.line(kStatus, 50 * kMb, 300 * kMb, 10.5),
            "Downloading [=====>                        ] 50MB/300MB");
  EXPECT_EQ(progress.line(kStatus, 100 * kMb, 300 * kMb, 12),
            "Downloading [==========>                   ] 100MB/300MB 50MB/s, 5s left");
  EXPECT_EQ(progress.line(kStatus, 300 * kMb, 300 * kMb, 16),
            "Downloading [==============================] 300MB/300MB 50MB/s");
}

TEST(TransferProgress, CountsFromWhereItsStatusBegan) {
  TransferProgress progress;
  progress.line(kStatus, 200 * kMb, 400 * kMb, 0);
  EXPECT_EQ(progress.line(kStatus, 202 * kMb, 400 * kMb, 2),
            "Downloading [===============>              ] 202MB/400MB 1MB/s, 3m19s left");
  progress.line("Extracting", 0, 400 * kMb, 2);
  EXPECT_EQ(progress.line("Extracting", 10'000, 400 * kMb, 4),
            "Extracting [>                             ] 10kB/400MB 5kB/s, 22h13m left");
}

TEST(TransferProgress, SaysNothingOfWhatItCannotKnow) {
  TransferProgress progress;
  EXPECT_EQ(progress.line(kStatus, 5 * kMb, 0, 0), "Downloading 5MB");
  EXPECT_EQ(progress.line(kStatus, 25 * kMb, 0, 2), "Downloading 25MB 10MB/s");
  EXPECT_EQ(progress.line(kStatus, 1 * kMb, 9 * kMb, 3),
            "Downloading [===>                          ] 1MB/9MB");  // begun anew
  EXPECT_EQ(progress.line(kStatus, 1 * kMb, 9 * kMb, 9),
            "Downloading [===>                          ] 1MB/9MB");  // stands still
}

}  // namespace
}  // namespace hull::cli
