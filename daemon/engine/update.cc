// Containers: other limits and another restart policy for a container that exists, at once where it
// runs.
#include <algorithm>

#include "base/error.h"
#include "daemon/engine/containers.h"
#include "daemon/engine/cpu_placement.h"
#include "daemon/engine/json_fields.h"

namespace hull::engine {

using fields::Json;

namespace {

constexpr std::chrono::seconds kSetLimitsTime{10};
constexpr uint64_t kBytesPerMib = uint64_t{1} << 20;

// 0, "" and null leave a value as it is (docker/docker: UpdateContainer).
void mergeUpdate(const Json& body, Json& host) {
  for (const char* key : {"Memory", "MemoryReservation", "MemorySwap", "CpuShares", "CpuPeriod",
                          "CpuQuota", "NanoCpus", "PidsLimit", "BlkioWeight"}) {
    if (const int64_t value = fields::integer(body, key); value != 0) host[key] = value;
  }
  // A list that is not empty replaces the one before; a rate of 0 in it ends the limit.
  for (const char* key : {"BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps",
                          "BlkioDeviceWriteIOps"}) {
    const Json* list = fields::find(body, key);
    if (list && !list->empty()) host[key] = *list;
  }
  // Two ways of saying the same: the newer one counts.
  if (fields::integer(body, "NanoCpus") != 0) host["CpuQuota"] = host["CpuPeriod"] = 0;
  if (fields::integer(body, "CpuQuota") != 0) host["NanoCpus"] = 0;
  if (const std::string cpus = fields::text(body, "CpusetCpus"); !cpus.empty()) {
    host["CpusetCpus"] = cpus;
  }
  const Json* policy = fields::find(body, "RestartPolicy");
  if (policy && !fields::text(*policy, "Name").empty()) {
    host["RestartPolicy"] = {{"Name", fields::text(*policy, "Name")},
                             {"MaximumRetryCount", fields::integer(*policy, "MaximumRetryCount")}};
  }
}

// What a running machine cannot be given.
void checkFits(const ContainerSpec& spec, const ContainerState& state, const EngineOptions& options,
               const std::string& id) {
  const std::string machine = "Cannot update container " + id + ": its virtual machine has ";
  const uint64_t needed = vmMemoryMib(spec.memory_bytes, options.default_memory_bytes);
  if (spec.memory_bytes != 0 && needed > state.vm_memory_mib) {
    throw Error(ErrorKind::kConflict,
                machine + std::to_string(state.vm_memory_mib) + " MiB, and a limit of " +
                    std::to_string(spec.memory_bytes / kBytesPerMib) + " MiB needs " +
                    std::to_string(needed) + ": stop the container, update it and start it again");
  }
  if (spec.limits.cpu_quota_us > spec.limits.cpu_period_us * state.vm_vcpus) {
    throw Error(ErrorKind::kConflict,
                machine + std::to_string(state.vm_vcpus) +
                    " CPUs: stop the container, update it and start it again");
  }
}

}  // namespace

std::vector<std::string> Containers::update(const std::shared_ptr<Container>& container,
                                            std::string_view body) {
  const Json asked = fields::parseObject(body, "the update");
  const auto operation = container->operation();
  if (container->removed()) {
    throw Error(ErrorKind::kNotFound, "No such container: " + container->id());
  }
  ContainerRecord record = container->record();
  Json host = fields::parseObject(record.documents.host_config, "the host configuration");
  mergeUpdate(asked, host);
  record.documents.host_config = fields::dump(host);
  const ContainerSpec spec = specOf(record.documents);
  checkCpus(spec.limits);
  checkJoiner(spec);
  const ContainerState state = container->state();
  if (state.status == Status::kPaused) {
    throw Error(ErrorKind::kConflict, "Container " + container->id() +
                                          " is paused: unpause it first, its limits are inside "
                                          "its virtual machine");
  }
  if (const auto run = container->run()) {
    const bool own_machine = spec.joins.empty();
    if (own_machine) checkFits(spec, state, options_, container->id());
    run->vm()->request(container->id(), limitsMessage(spec), kSetLimitsTime);
    if (spec.limits.disks != container->spec().limits.disks) {
      run->vm()->setDiskLimits(spec.limits.disks);
    }
    if (own_machine) placeOnCpus(run->vm()->vmmPid(), spec.limits);
  }
  db_.updateDocuments(record);
  container->setDocuments(record.documents);
  publish(*container, "update");
  return optionWarnings(host);
}

}  // namespace hull::engine
