#include "cli/terminal/format.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/terminal/template.h"

namespace hull::cli {

using nlohmann::json;

std::string humanSize(double bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  size_t unit = 0;
  while (bytes >= 1000.0 && unit + 1 < std::size(kUnits)) {
    bytes /= 1000.0;
    ++unit;
  }
  return fmt::format("{:.3g}{}", bytes >= 100 ? std::round(bytes) : bytes, kUnits[unit]);
}

std::string humanDuration(int64_t seconds) {
  if (seconds < 1) return "Less than a second";
  if (seconds == 1) return "1 second";
  if (seconds < 60) return fmt::format("{} seconds", seconds);
  const int64_t minutes = seconds / 60;
  if (minutes == 1) return "About a minute";
  if (minutes < 60) return fmt::format("{} minutes", minutes);
  const int64_t hours = (seconds + 1800) / 3600;
  if (hours == 1) return "About an hour";
  if (hours < 48) return fmt::format("{} hours", hours);
  if (hours < 24 * 14) return fmt::format("{} days", hours / 24);
  if (hours < 24 * 60) return fmt::format("{} weeks", hours / 24 / 7);
  if (hours < 24 * 365 * 2) return fmt::format("{} months", hours / 24 / 30);
  return fmt::format("{} years", hours / 24 / 365);
}

std::string ago(int64_t unix_seconds) {
  return humanDuration(std::max<int64_t>(0, time(nullptr) - unix_seconds)) + " ago";
}

int64_t parseTimestamp(std::string_view rfc3339) {
  tm utc{};
  const std::string text(rfc3339);
  const char* rest = strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &utc);
  if (!rest || utc.tm_year < 70) return 0;
  int64_t seconds = timegm(&utc);
  if (*rest == '.') {
    ++rest;
    while (*rest >= '0' && *rest <= '9') ++rest;
  }
  int hours = 0, minutes = 0;
  if ((*rest == '+' || *rest == '-') && sscanf(rest + 1, "%2d:%2d", &hours, &minutes) == 2) {
    seconds -= (*rest == '+' ? 1 : -1) * (hours * 3600 + minutes * 60);
  }
  return seconds;
}

uint64_t parseSize(std::string_view text, std::string_view option) {
  double number = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(end, text.data() + text.size());
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (unit.size() > 1 && unit.ends_with("ib")) unit.resize(unit.size() - 2);
  if (unit.size() > 1 && unit.ends_with("b")) unit.resize(unit.size() - 1);
  static constexpr std::string_view kUnits = "bkmgtp";
  const size_t power = unit.empty() ? 0 : kUnits.find(unit);
  if (failed != std::errc{} || number < 0 || unit.size() > 1 || power == std::string_view::npos) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("invalid argument \"{}\" for \"{}\" flag: invalid size: '{}' "
                            "(write a number with b, k, m or g, like 512m)",
                            text, option, text));
  }
  return static_cast<uint64_t>(number * std::pow(1024.0, static_cast<double>(power)));
}

std::string ellipsis(std::string_view text, size_t width) {
  size_t characters = 0, cut = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) == 0x80) continue;
    if (characters == width - 1) cut = i;
    ++characters;
  }
  if (characters <= width) return std::string(text);
  return std::string(text.substr(0, cut)) + "…";
}

std::string shortId(std::string_view id) {
  if (const size_t colon = id.find(':'); colon != std::string_view::npos)
    id.remove_prefix(colon + 1);
  return std::string(id.substr(0, 12));
}

namespace {
size_t displayWidth(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}
}  // namespace

std::string Table::text() const {
  std::vector<size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], displayWidth(row[i]));
  }
  std::string out;
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      out += row[i];
      if (i + 1 < row.size()) out.append(widths[i] - displayWidth(row[i]) + 3, ' ');
    }
    out += '\n';
  }
  return out;
}

namespace {

// "table {{.ID}}\t{{.Names}}": the header of a column is its field's title.
std::string formatTable(std::string_view body, const std::vector<Column>& columns,
                        const std::vector<json>& rows) {
  json titles = json::object();
  for (const auto& column : columns) titles[column.field] = column.title;
  const auto cells = [&](const json& row) {
    const std::string line = expandTemplate(body, row);
    std::vector<std::string> result;
    for (size_t start = 0;;) {
      const size_t tab = line.find('\t', start);
      result.push_back(line.substr(start, tab - start));
      if (tab == std::string::npos) return result;
      start = tab + 1;
    }
  };
  Table table(cells(titles));
  for (const auto& row : rows) table.add(cells(row));
  return table.text();
}

}  // namespace

std::string formatRows(const std::string& format, const std::vector<Column>& columns,
                       const std::vector<json>& rows) {
  if (format.empty() || format == "table") {
    std::string all;
    for (const auto& column : columns) all += (all.empty() ? "{{." : "\t{{.") + column.field + "}}";
    return formatTable(all, columns, rows);
  }
  if (format.starts_with("table "))
    return formatTable(std::string_view(format).substr(6), columns, rows);
  std::string out;
  for (const auto& row : rows) {
    out += (format == "json" ? row.dump() : expandTemplate(format, row)) + "\n";
  }
  return out;
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    std::vector<size_t> row(candidate.size() + 1);
    for (size_t j = 0; j <= candidate.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= word.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= candidate.size(); ++j) {
        const size_t above = row[j];
        row[j] = std::min(
            {above + 1, row[j - 1] + 1, diagonal + (word[i - 1] == candidate[j - 1] ? 0 : 1)});
        diagonal = above;
      }
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

}  // namespace hull::cli
