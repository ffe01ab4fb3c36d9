#include "vmm/bus/bus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "vmm/rate_limit.h"

namespace hull::vmm {

void Bus::attach(uint64_t base, uint64_t bytes, BusDevice& device) {
  const auto next =
      std::upper_bound(entries_.begin(), entries_.end(), base,
                       [](uint64_t at, const Entry& entry) { return at < entry.base; });
  const bool wraps = bytes == 0 || base + bytes < base;
  const bool hits_next = next != entries_.end() && next->base - base < bytes;
  const bool hits_previous =
      next != entries_.begin() && base - std::prev(next)->base < std::prev(next)->bytes;
  if (wraps || hits_next || hits_previous) {
    throw Error(ErrorKind::kInternal,
                fmt::format("attach to {} bus at {:#x}: overlap", name_, base));
  }
  entries_.insert(next, {base, bytes, &device});
}

const Bus::Entry* Bus::find(uint64_t address, size_t size) const noexcept {
  const auto next =
      std::upper_bound(entries_.begin(), entries_.end(), address,
                       [](uint64_t at, const Entry& entry) { return at < entry.base; });
  if (next == entries_.begin()) return nullptr;
  const Entry& entry = *std::prev(next);
  const uint64_t offset = address - entry.base;
  return offset < entry.bytes && size <= entry.bytes - offset ? &entry : nullptr;
}

void Bus::read(uint64_t address, std::span<std::byte> into) const noexcept {
  if (const Entry* entry = find(address, into.size())) {
    entry->device->read(address - entry->base, into);
    return;
  }
  std::memset(into.data(), 0xff, into.size());
  reportUnclaimed(false, address, into.size());
}

void Bus::write(uint64_t address, std::span<const std::byte> from) const noexcept {
  if (const Entry* entry = find(address, from.size())) {
    entry->device->write(address - entry->base, from);
    return;
  }
  reportUnclaimed(true, address, from.size());
}

void Bus::reportUnclaimed(bool is_write, uint64_t address, size_t size) const noexcept {
  static RateLimit limit;
  if (!limit.allow()) return;
  log::debug(fmt::format("{} bus: nobody answers a {} of {} bytes at {:#x}", name_,
                         is_write ? "write" : "read", size, address));
}

}  // namespace hull::vmm
