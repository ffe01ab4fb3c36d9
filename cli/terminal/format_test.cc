#include "cli/terminal/format.h"

#include <gtest/gtest.h>
#include <time.h>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace hull::cli {
namespace {

using nlohmann::json;

TEST(Format, SizesAsDockerWritesThem) {
  EXPECT_EQ(humanSize(0), "0B");
  EXPECT_EQ(humanSize(999), "999B");
  EXPECT_EQ(humanSize(1500), "1.5kB");
  EXPECT_EQ(humanSize(116987654), "117MB");
  EXPECT_EQ(humanSize(74.8e6), "74.8MB");
}

TEST(Format, DurationsAsDockerWritesThem) {
  EXPECT_EQ(humanDuration(0), "Less than a second");
  EXPECT_EQ(humanDuration(59), "59 seconds");
  EXPECT_EQ(humanDuration(61), "About a minute");
  EXPECT_EQ(humanDuration(3600), "About an hour");
  EXPECT_EQ(humanDuration(86400), "24 hours");
  EXPECT_EQ(humanDuration(86400 * 3), "3 days");
}

TEST(Format, TimestampsWithFractionsAndOffsets) {
  EXPECT_EQ(parseTimestamp("1970-01-01T00:01:00Z"), 60);
  EXPECT_EQ(parseTimestamp("1970-01-01T01:01:00.123456789+01:00"), 60);
  EXPECT_EQ(parseTimestamp("0001-01-01T00:00:00Z"), 0);
  EXPECT_EQ(parseTimestamp("yesterday"), 0);
}

TEST(Format, SizesAreReadWithTheirUnits) {
  EXPECT_EQ(parseSize("512m", "--memory"), 512u << 20);
  EXPECT_EQ(parseSize("1.5G", "--memory"), 1536u << 20);
  EXPECT_EQ(parseSize("64MiB", "--memory"), 64u << 20);
  EXPECT_EQ(parseSize("100", "--memory"), 100u);
  EXPECT_THROW(parseSize("-1m", "--memory"), Error);
  EXPECT_THROW(parseSize("12x", "--memory"), Error);
  EXPECT_THROW(parseSize("", "--memory"), Error);
}

TEST(Format, EllipsisCountsCharactersNotBytes) {
  EXPECT_EQ(ellipsis("äöüäöü", 6), "äöüäöü");
  EXPECT_EQ(ellipsis("äöüäöü", 4), "äöü…");
}

TEST(Format, TablesAlignTheirColumns) {
  Table table({"A", "LONG"});
  table.add({"wide cell", "x"});
  EXPECT_EQ(table.text(), "A           LONG\nwide cell   x\n");
}

TEST(Format, RowsAsTableJsonAndTemplate) {
  const std::vector<Column> columns = {{"ID", "ID"}, {"NAMES", "Names"}};
  const std::vector<json> rows = {{{"ID", "1"}, {"Names", "n"}}};
  EXPECT_EQ(formatRows("", columns, rows), "ID   NAMES\n1    n\n");
  EXPECT_EQ(formatRows("{{.Names}}", columns, rows), "n\n");
  EXPECT_EQ(formatRows("table {{.Names}}", columns, rows), "NAMES\nn\n");
  EXPECT_EQ(formatRows("json", columns, rows), "{\"ID\":\"1\",\"Names\":\"n\"}\n");
}

TEST(Format, NearestFindsTyposAndNothingElse) {
  const std::vector<std::string> flags = {"--detach", "--interactive", "--rm"};
  EXPECT_EQ(nearest("--detatch", flags), "--detach");
  EXPECT_EQ(nearest("--interctive", flags), "--interactive");
  EXPECT_EQ(nearest("--zzzzzzzz", flags), "");
}

}  // namespace
}  // namespace hull::cli
