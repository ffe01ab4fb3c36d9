#include "cli/commands/device_rates.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands/context.h"
#include "cli/terminal/format.h"

namespace hull::cli {

using nlohmann::json;

namespace {

uint64_t operationsOf(const std::string& text, const std::string& whole) {
  uint64_t value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed == std::errc{} && end == text.data() + text.size() && !text.empty()) return value;
  throw Error(ErrorKind::kInvalidArgument,
              "invalid rate for device: " + whole + ": write it like /dev/vda:100");
}

// "/dev/vda:10mb"
json deviceRate(const std::string& text, const std::string& option, bool bytes) {
  const size_t colon = text.rfind(':');
  const std::string path = text.substr(0, colon);
  if (colon == std::string::npos || !path.starts_with("/dev/")) {
    throw Error(ErrorKind::kInvalidArgument, "bad format: " + text + ": write " + option +
                                                 " /dev/vda:" + (bytes ? "10mb" : "100"));
  }
  const std::string rate = text.substr(colon + 1);
  return {{"Path", path}, {"Rate", bytes ? parseSize(rate, option) : operationsOf(rate, text)}};
}

}  // namespace

void addDeviceRateOptions(CLI::App* command, DeviceRates& rates) {
  addList(command, "--device-read-bps", rates.read_bytes,
          "Most it reads from its disk in a second, like /dev/vda:10mb");
  addList(command, "--device-write-bps", rates.write_bytes,
          "Most it writes to its disk in a second");
  addList(command, "--device-read-iops", rates.read_operations,
          "Most reads of its disk in a second, like /dev/vda:100");
  addList(command, "--device-write-iops", rates.write_operations,
          "Most writes to its disk in a second");
}

void addDeviceRates(const DeviceRates& rates, json& resources) {
  struct Kind {
    const char* field;
    const char* option;
    const std::vector<std::string>& given;
    bool bytes;
  };
  for (const auto& [field, option, given, bytes] :
       {Kind{"BlkioDeviceReadBps", "--device-read-bps", rates.read_bytes, true},
        Kind{"BlkioDeviceWriteBps", "--device-write-bps", rates.write_bytes, true},
        Kind{"BlkioDeviceReadIOps", "--device-read-iops", rates.read_operations, false},
        Kind{"BlkioDeviceWriteIOps", "--device-write-iops", rates.write_operations, false}}) {
    for (const auto& text : given) resources[field].push_back(deviceRate(text, option, bytes));
  }
}

}  // namespace hull::cli
