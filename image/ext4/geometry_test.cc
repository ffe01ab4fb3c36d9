#include "image/ext4/geometry.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace hull::ext4 {
namespace {

// What every plan owes: parts in order, none too small, windows behind them and apart.
void expectSound(const Geometry& plan, uint64_t last_inode, uint64_t content_blocks,
                 const std::vector<uint64_t>& windows) {
  const uint64_t groups = plan.groups;
  EXPECT_EQ(groups, divideUp(plan.blocks, kBlocksPerGroup));
  EXPECT_GE(plan.block_bitmaps, 1 + divideUp(groups * kDescriptorBytes, kBlockBytes));
  EXPECT_EQ(plan.inode_bitmaps, plan.block_bitmaps + groups);
  EXPECT_EQ(plan.inode_tables, plan.inode_bitmaps + groups);
  EXPECT_EQ(plan.content, plan.inode_tables + groups * plan.inodes_per_group / kInodesPerBlock);
  EXPECT_EQ(plan.metadata_end, plan.content + content_blocks);
  EXPECT_LE(plan.metadata_end, plan.blocks);

  EXPECT_EQ(plan.inodes_per_group % kInodesPerBlock, 0u);
  EXPECT_GE(plan.inodes_per_group, kInodesPerBlock);
  EXPECT_LE(plan.inodes_per_group, 8 * kBlockBytes);
  EXPECT_GE(groups * plan.inodes_per_group, last_inode);
  EXPECT_LT(groups * plan.inodes_per_group, uint64_t{1} << 32);

  ASSERT_EQ(plan.windows.size(), windows.size());
  uint64_t end = plan.metadata_end;
  for (size_t i = 0; i < windows.size(); ++i) {
    if (windows[i] == 0) {
      EXPECT_EQ(plan.windows[i], 0u);
      continue;
    }
    EXPECT_EQ(plan.windows[i] % kBlocksPerGroup, 0u);
    EXPECT_GE(plan.windows[i], end);
    end = plan.windows[i] + windows[i];
  }
  EXPECT_LE(end, plan.blocks);
  if (end > plan.metadata_end) {
    EXPECT_EQ(end, plan.blocks);
  }
}

TEST(Geometry, IsSoundForEverySize) {
  const std::vector<std::vector<uint64_t>> kWindows = {{},
                                                       {0},
                                                       {1},
                                                       {kBlocksPerGroup},
                                                       {kBlocksPerGroup + 1, 0, 1},
                                                       std::vector<uint64_t>(500, 7),
                                                       {uint64_t{10} << 28}};
  for (const auto& windows : kWindows) {
    for (const uint64_t inodes :
         {10u, 16u, 17u, 32768u, 32769u, 65536u, 100'000u, 1'000'000u, 8'000'000u}) {
      for (const uint64_t content : {1u, 30'000u, 32'700u, 32'768u, 70'000u, 10'000'000u}) {
        SCOPED_TRACE(::testing::Message() << inodes << " inodes, " << content << " blocks, "
                                          << windows.size() << " windows");
        expectSound(planGeometry(inodes, content, windows), inodes, content, windows);
      }
    }
  }
}

TEST(Geometry, ASmallDiskIsOneGroup) {
  const Geometry plan = planGeometry(11, 1, {});
  EXPECT_EQ(plan.groups, 1u);
  EXPECT_EQ(plan.blocks, 1u + 1 + 1 + 1 + 1 + 1);
}

TEST(Geometry, RefusesMoreThanTheLargestDisk) {
  // Of 131072 groups the bitmaps and tables take 13.
  const uint64_t most = kMaxDiskBytes / kBlockBytes - 13 * kBlocksPerGroup;
  EXPECT_EQ(planGeometry(11, 1, std::vector<uint64_t>{most}).groups, 131072u);
  EXPECT_THROW(planGeometry(11, 1, std::vector<uint64_t>{most + 1}), Error);
  EXPECT_THROW(planGeometry(11, 1, std::vector<uint64_t>(3, uint64_t{1} << 52)), Error);
  EXPECT_THROW(planGeometry(11, uint64_t{1} << 40, {}), Error);
}

}  // namespace
}  // namespace hull::ext4
