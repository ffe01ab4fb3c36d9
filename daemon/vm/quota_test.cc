#include "daemon/vm/quota.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace hull::engine {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string refusal(Quota& quota, MachineSize size) {
  try {
    quota.take(size);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kNoSpace);
    return error.what();
  }
  return "nothing was refused";
}

TEST(QuotaTest, EachLimitIsToldWithWhatIsInUseAndWhatToDo) {
  const auto machines = std::make_shared<Quota>(Quota::Limits{.machines = 1});
  const Quota::Lease only = machines->take({512, 1});
  EXPECT_THAT(refusal(*machines, {1, 1}),
              AllOf(HasSubstr("1 machines"), HasSubstr("--max-machines")));
  const auto memory = std::make_shared<Quota>(Quota::Limits{.memory_mib = 1024});
  const Quota::Lease most = memory->take({1000, 64});
  EXPECT_THAT(refusal(*memory, {25, 1}), AllOf(HasSubstr("1024 MiB"), HasSubstr("1000 are in use"),
                                               HasSubstr("25 more"), HasSubstr("--max-memory")));
  EXPECT_NO_THROW(memory->take({24, 1}));
  const auto cpus = std::make_shared<Quota>(Quota::Limits{.vcpus = 2});
  EXPECT_THAT(refusal(*cpus, {512, 3}), HasSubstr("--max-cpus"));
}

TEST(QuotaTest, AShareComesBackOnceWithTheLastWhoHoldsIt) {
  const auto quota = std::make_shared<Quota>(Quota::Limits{.machines = 1, .memory_mib = 100});
  {
    Quota::Lease first = quota->take({100, 1});
    const Quota::Lease moved = std::move(first);
    first = {};
    EXPECT_THAT(refusal(*quota, {100, 1}), HasSubstr("--max-machines"));
  }
  EXPECT_NO_THROW(quota->take({100, 1}));
}

TEST(QuotaTest, WhatWasRefusedTakesNothing) {
  const auto quota = std::make_shared<Quota>(Quota::Limits{.memory_mib = 100, .vcpus = 1});
  refusal(*quota, {100, 2});
  EXPECT_NO_THROW(quota->take({100, 1}));
}

TEST(QuotaTest, AMachineThatRunsAlreadyCountsBeyondTheLimits) {
  const auto quota = std::make_shared<Quota>(Quota::Limits{.memory_mib = 100});
  {
    const Quota::Lease adopted = quota->takeAnyway({200, 1});
    refusal(*quota, {1, 1});
  }
  EXPECT_NO_THROW(quota->take({100, 1}));
}

}  // namespace
}  // namespace hull::engine
