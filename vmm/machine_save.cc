// A Machine to files and back. Saving happens on the device thread while all vCPUs stand still;
// restoring on the main thread, in the jail, before there are any.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "vmm/kvm/cpu_match.h"
#include "vmm/machine.h"
#include "vmm/state/saved_machine.h"
#include "vmm/state/state_file.h"

namespace hull::vmm {

// What can be known to fail does so before the VM is touched.
void Machine::beginSave(ControlServer::ClientId client) {
  std::vector<Fd> files = control_->takeDescriptors(client);
  if (files.size() != kSaveFiles) {
    throw Error(ErrorKind::kInvalidArgument,
                "save: needs two descriptors with the command, for state and memory");
  }
  if (save_) throw Error(ErrorKind::kConflict, "save: another one is under way");
  requireSavable(devices_);
  save_ = PendingSave{client, std::move(files[0]), std::move(files[1]), state_ == State::kRunning};
  if (state_ == State::kPaused) return finishSave();
  if (state_ == State::kRunning) group_.pause();
  state_ = State::kPausing;  // goes on in finishSave() when the last vCPU has stopped
}

// The VM stays paused: whoever saves it decides whether it goes on or ends. When saving fails, all
// is as it was before.
void Machine::finishSave() {
  const PendingSave save = std::move(*std::exchange(save_, std::nullopt));
  try {
    const auto [state_bytes, memory_bytes] = saveTo(save.state.get(), save.memory.get());
    control_->reply(
        save.client,
        nlohmann::json{{"ok", true}, {"state_bytes", state_bytes}, {"memory_bytes", memory_bytes}}
            .dump());
  } catch (const Error& error) {
    if (save.was_running && awaiting_pause_.empty()) resume();
    refuse(save.client, error.within("save"));
  }
}

// Devices first: ending what they have under way changes memory and raises interrupts. State last:
// without it a memory file is nothing, so a half-made save is never taken for a whole one.
Machine::SavedBytes Machine::saveTo(int state_fd, int memory_fd) {
  SavedMachine saved;
  fillRandom(saved.id);
  saved.memory_bytes = memory_.bytes();
  {
    const std::lock_guard lock(end_mutex_);
    saved.guest_ready = ready_us_.has_value();
  }
  if (serial_) saved.serial = serial_->save();
  saved.devices = saveDevices(devices_, transports_);
  for (const auto& vcpu : vcpus_) {
    saved.vcpus.push_back(readVcpuState(vcpu->fd(), state_msrs_));
    saved.vcpus.back().cpuid = vcpu->cpuid();
    saved.vcpus.back().tsc_khz = vcpu->tscKhz();
  }
  saved.vm = readVmState(vm_.fd());
  SavedBytes bytes;
  bytes.memory = writeMemoryFile(memory_fd, memory_, saved.id);
  const std::string body = encode(saved);
  bytes.state = body.size();
  writeStateFile(state_fd, body);
  return bytes;
}

namespace {

void requireVcpu(const VcpuState& saved, const Vcpu& vcpu, std::span<const uint32_t> known_msrs) {
  const std::string mismatch = cpuMismatch(saved.cpuid, vcpu.cpuid());
  if (!mismatch.empty()) {
    throw Error(ErrorKind::kNotSupported,
                fmt::format("restore: vCPU {}: {}", vcpu.index(), mismatch));
  }
  for (const kvm_msr_entry& msr : saved.msrs) {
    if (std::binary_search(known_msrs.begin(), known_msrs.end(), msr.index)) continue;
    throw Error(ErrorKind::kNotSupported, fmt::format("restore: vCPU {}: this host has no register "
                                                      "{:#x}",
                                                      vcpu.index(), msr.index));
  }
}

}  // namespace

// Everything is compared with this VM before the first of it is used. Interrupt controllers come
// after the vCPUs' own, devices last: they may interrupt at once.
void Machine::restore() {
  const SavedMachine saved = decode(readStateFile(config_.restore->state_fd));
  if (saved.memory_bytes != memory_.bytes() || saved.vcpus.size() != vcpus_.size() ||
      saved.serial.has_value() != (serial_ != nullptr)) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("restore: the saved VM has {} bytes of memory and {} vCPUs; give this "
                            "one the same, and the same early_serial",
                            saved.memory_bytes, saved.vcpus.size()));
  }
  requireSavable(devices_);
  requireSame(devices_, saved.devices);
  for (size_t i = 0; i < vcpus_.size(); ++i) requireVcpu(saved.vcpus[i], *vcpus_[i], state_msrs_);
  mapMemoryFile(config_.restore->memory_fd, memory_, saved.id);
  for (size_t i = 0; i < vcpus_.size(); ++i) {
    writeVcpuState(vcpus_[i]->fd(), saved.vcpus[i], vcpus_[i]->tscKhz());
  }
  writeVmState(vm_.fd(), saved.vm);
  if (serial_ && !serial_->load(*saved.serial)) {
    throw Error(ErrorKind::kCorrupt, "restore: the state of the serial port is wrong");
  }
  loadDevices(transports_, saved.devices);
  for (const auto& vcpu : vcpus_) tellPaused(vcpu->fd());
  if (saved.guest_ready) guestReady();
  log::debug("restored");
}

}  // namespace hull::vmm
