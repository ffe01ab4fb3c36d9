#include "guest-init/container/seat.h"

#include <fcntl.h>

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace hull::guest {

namespace {

constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kMaxDiskBytes = uint64_t{1} << 62;

}  // namespace

Seat::Seat(PrepareSeat request) : request_(std::move(request)) {
  if (request_.parts.empty() || request_.parts.size() > kMaxSeatParts) {
    throw Error(ErrorKind::kInvalidArgument, "prepare seat: no parts, or too many");
  }
  for (const DiskPart& part : request_.parts) {
    if (part.length == 0 || (part.offset | part.length) % kSectorBytes != 0 ||
        part.offset > kMaxDiskBytes || part.length > kMaxDiskBytes) {
      throw Error(ErrorKind::kInvalidArgument, "prepare seat: a part of no disk");
    }
  }
}

bool Seat::diskIsLargeEnough() const {
  const uint64_t bytes = diskBytes(openFile(request_.disk, O_RDONLY).get());
  return std::all_of(request_.parts.begin(), request_.parts.end(), [bytes](const DiskPart& part) {
    return part.offset <= bytes && part.length <= bytes - part.offset;
  });
}

void Seat::attach() {
  std::vector<LoopDevice> devices;
  for (const DiskPart& part : request_.parts) devices.emplace_back(request_.disk, part);
  devices_ = std::move(devices);
}

SeatPrepared Seat::reply() const {
  SeatPrepared prepared;
  for (const LoopDevice& device : devices_) prepared.devices.push_back(device.path());
  return prepared;
}

}  // namespace hull::guest
