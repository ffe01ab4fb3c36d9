// What the control socket may ask of a Machine; see config/vm_config.h.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "vmm/kvm/vcpu_state.h"
#include "vmm/machine.h"
#include "vmm/memory/layout.h"
#include "vmm/virtio/balloon/balloon.h"
#include "vmm/virtio/block/block.h"
#include "vmm/virtio/net/net.h"

namespace hull::vmm {

std::string Machine::status() {
  nlohmann::json object{{"state", state_ == State::kPaused ? "paused" : "running"},
                        {"ready_us", nullptr},
                        {"vcpus", config_.vcpus},
                        {"memory_mib", config_.memory_mib},
                        {"disks", nlohmann::json::object()}};
  for (const virtio::BlockDevice* disk : disks_) object["disks"][disk->id()] = disk->sizeBytes();
  const std::lock_guard lock(end_mutex_);
  if (ready_us_) object["ready_us"] = *ready_us_;
  if (balloon_ != nullptr) object["returned_bytes"] = balloon_->reportedBytes();
  return object.dump();
}

void Machine::changeLimits(std::string_view line) {
  const LimitsChange change = parseLimitsChange(line);
  if (change.disk.empty()) {
    if (nets_.empty()) throw Error(ErrorKind::kNotFound, "change limits: there is no network");
    for (virtio::NetDevice* net : nets_) net->setLimits(change.inbound, change.outbound);
    return;
  }
  disk(change.disk).setLimits(change.inbound, change.outbound);
}

virtio::BlockDevice& Machine::disk(const std::string& id) {
  const auto found = std::find_if(disks_.begin(), disks_.end(),
                                  [&](const auto* each) { return each->id() == id; });
  if (found == disks_.end()) {
    throw Error(ErrorKind::kNotFound, fmt::format("change disk: no disk '{}'", id));
  }
  return **found;
}

void Machine::growDisk(ControlServer::ClientId client, std::string_view line) {
  const DiskGrowth growth = parseDiskGrowth(line);
  if (save_) throw Error(ErrorKind::kConflict, "grow disk: the VM is being saved");
  disk(growth.disk).grow(growth, control_->takeDescriptors(client));
}

void Machine::cutDisk(std::string_view line) {
  const DiskCut cut = parseDiskCut(line);
  disk(cut.disk).cut(cut.offset, cut.length);
}

void Machine::inflateBalloon(std::string_view line) {
  const auto object = nlohmann::json::parse(line, nullptr, false);
  const auto mib = object.find("mib");
  if (balloon_ == nullptr) throw Error(ErrorKind::kNotFound, "inflate: there is no balloon");
  if (mib == object.end() || !mib->is_number_unsigned() ||
      mib->get<uint64_t>() >= config_.memory_mib) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("inflate: mib is not between 0 and {}", config_.memory_mib - 1));
  }
  balloon_->setTarget(static_cast<uint32_t>(mib->get<uint64_t>() * layout::kMiB /
                                            virtio::BalloonDevice::kPageBytes));
}

void Machine::onCommand(ControlServer::ClientId client, const std::string& command,
                        std::string_view line) {
  static constexpr std::string_view kOk = R"({"ok":true})";
  if (command == "status") return control_->reply(client, status());
  if (command == "stop") {
    control_->reply(client, kOk);
    return guestEnds(ExitReason::kTerminated, "control socket");
  }
  if (command == "pause") {
    if (state_ == State::kPaused) return control_->reply(client, kOk);
    awaiting_pause_.push_back(client);  // answered when the last vCPU has stopped
    if (state_ == State::kRunning) group_.pause();
    state_ = State::kPausing;
    return;
  }
  if (command == "resume") {
    if (state_ == State::kPausing) {
      return control_->reply(client, R"({"error":"a pause is under way"})");
    }
    resume();
    return control_->reply(client, kOk);
  }
  if (command == "limits" || command == "balloon" || command == "save" || command == "grow" ||
      command == "cut") {
    try {
      if (command == "save") return beginSave(client);
      if (command == "limits") changeLimits(line);
      if (command == "balloon") inflateBalloon(line);
      if (command == "grow") growDisk(client, line);
      if (command == "cut") cutDisk(line);
      return control_->reply(client, kOk);
    } catch (const Error& error) {
      return refuse(client, error);
    }
  }
  control_->reply(client, R"({"error":"unknown command"})");
}

void Machine::refuse(ControlServer::ClientId client, const Error& error) {
  control_->reply(client, nlohmann::json{{"error", error.what()}}.dump(
                              -1, ' ', true, nlohmann::json::error_handler_t::replace));
}

void Machine::resume() {
  if (state_ == State::kPaused) {
    for (const auto& vcpu : vcpus_) tellPaused(vcpu->fd());
  }
  group_.resume();
  state_ = State::kRunning;
}

void Machine::onAllParked() {
  state_ = State::kPaused;
  if (save_) finishSave();
  for (const auto client : std::exchange(awaiting_pause_, {})) {
    control_->reply(client, R"({"ok":true})");
  }
}

}  // namespace hull::vmm
