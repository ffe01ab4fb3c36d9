#include "vmm/token_bucket.h"

#include <gtest/gtest.h>

namespace hull::vmm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr TokenBucket::Clock::time_point kStart{seconds(1000)};

TEST(TokenBucket, WithoutARateNothingWaits) {
  TokenBucket bucket;
  bucket.configure({}, kStart);
  bucket.take(UINT64_MAX);
  EXPECT_FALSE(bucket.limited());
  EXPECT_TRUE(bucket.ready(kStart));
  EXPECT_EQ(bucket.wait(kStart), milliseconds(0));
}

TEST(TokenBucket, BurstFirstThenTheRate) {
  TokenBucket bucket;
  bucket.configure({100, 500}, kStart);
  bucket.take(500);
  EXPECT_FALSE(bucket.ready(kStart));
  EXPECT_EQ(bucket.wait(kStart), milliseconds(10));
  EXPECT_TRUE(bucket.ready(kStart + milliseconds(10)));
  bucket.take(1);
  EXPECT_FALSE(bucket.ready(kStart + milliseconds(10)));
}

TEST(TokenBucket, NeverHoldsMoreThanTheBurst) {
  TokenBucket bucket;
  bucket.configure({100, 0}, kStart);  // a burst of one second
  const auto later = kStart + std::chrono::hours(1000);
  EXPECT_TRUE(bucket.ready(later));
  bucket.take(100);
  EXPECT_FALSE(bucket.ready(later));
}

TEST(TokenBucket, LargeRequestsLeaveADebtThatIsPaid) {
  TokenBucket bucket;
  bucket.configure({100, 100}, kStart);
  EXPECT_TRUE(bucket.ready(kStart));
  bucket.take(1100);
  EXPECT_FALSE(bucket.ready(kStart + seconds(9)));
  EXPECT_TRUE(bucket.ready(kStart + seconds(11)));
}

TEST(TokenBucket, ExtremesStayFinite) {
  TokenBucket bucket;
  bucket.configure({UINT64_MAX, UINT64_MAX}, kStart);
  for (int i = 0; i < 10; ++i) bucket.take(UINT64_MAX);
  EXPECT_LE(bucket.wait(kStart), std::chrono::hours(1));
  bucket.configure({1, 1}, kStart);
  for (int i = 0; i < 10; ++i) bucket.take(UINT64_MAX);
  EXPECT_EQ(bucket.wait(kStart), std::chrono::hours(1));
}

TEST(Throttle, EitherLimitHolds) {
  Throttle throttle;
  throttle.configure({{1000, 1000}, {1, 3}});
  EXPECT_TRUE(throttle.ready());
  throttle.take(1);
  throttle.take(1);
  throttle.take(1);
  EXPECT_FALSE(throttle.ready());
  EXPECT_GT(throttle.wait(), milliseconds(0));
  throttle.configure({});
  EXPECT_TRUE(throttle.ready());
}

}  // namespace
}  // namespace hull::vmm
