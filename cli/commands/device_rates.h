// --device-read-bps and its like, for create, run and update.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace hull::cli {

struct DeviceRates {
  std::vector<std::string> read_bytes, write_bytes, read_operations, write_operations;
};

void addDeviceRateOptions(CLI::App* command, DeviceRates& rates);
// As BlkioDevice… of `resources`; throws hull::Error for what is no DEVICE:RATE.
void addDeviceRates(const DeviceRates& rates, nlohmann::json& resources);

}  // namespace hull::cli
