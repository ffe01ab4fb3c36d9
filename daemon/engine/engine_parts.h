// What the engine is made of, put together by main: virtual machines, network, images, registries,
// archives, the builder. Functions and interfaces, so that tests run the whole engine over
// processes of this host (daemon/testing). All of it may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/stream.h"
#include "daemon/network/network.h"
#include "daemon/vm/seat.h"
#include "daemon/vm/vm.h"
#include "image/archive/archive.h"
#include "image/build/builder.h"
#include "image/store/image_store.h"
#include "registry/client/client.h"

namespace hull::engine {

struct EngineParts {
  std::function<std::unique_ptr<Vm>(VmSpec)> start_vm;
  std::function<std::unique_ptr<Vm>(const std::string& directory)> adopt_vm;
  std::function<Seat(std::shared_ptr<Vm> machine, const SeatSpec&)> take_seat;
  std::function<std::optional<VmExit>(const std::string& directory)> last_vm_exit;

  std::shared_ptr<Network> network;  // null: containers have none, and `network_error` says why
  std::string network_error;

  std::shared_ptr<image::ImageStore> images;

  std::function<registry::PullResult(
      image::ImageStore&, const image::Reference&, const image::Platform&,
      const registry::Credentials&, const registry::ClientOptions&, const image::ProgressFunction&)>
      pull;
  std::function<registry::PushResult(image::ImageStore&, const image::Reference&,
                                     const registry::Credentials&, const registry::ClientOptions&,
                                     const image::ProgressFunction&)>
      push;
  std::function<std::string(const std::string& registry, const registry::Credentials&,
                            const registry::ClientOptions&)>
      login;
  std::function<image::Descriptor(const image::Reference&, const registry::Credentials&,
                                  const registry::ClientOptions&)>
      resolve;
  std::function<registry::Credentials(std::string_view header)> parse_auth;

  std::function<std::vector<image::Image>(image::ImageStore&, Source&,
                                          const image::ProgressFunction&)>
      load;
  std::function<void(image::ImageStore&, const std::vector<std::string>& names, Sink&)> save;
  std::function<image::Image(image::ImageStore&, Source& tar, const image::ImportRequest&)>
      import_rootfs;

  std::shared_ptr<build::StepRunner> step_runner;
  std::function<image::Image(image::ImageStore&, build::StepRunner&, Source& context,
                             const build::BuildRequest&, const build::BuildHooks&)>
      build;
};

// Registries, archives and the builder as they are.
void useRealParts(EngineParts& parts);

struct EngineOptions {
  std::string root;  // /var/lib/hull
  // Where the files are that clients name as bind mounts' sources: another folder than "/" in the
  // emulated host, which has the user's host there.
  std::string host_root = "/";
  // Where clients reach this engine: a bind mount of one of these (door.h) is the engine's socket.
  std::vector<std::string> sockets;
  uint64_t default_memory_bytes = uint64_t{512} << 20;
  uint32_t default_vcpus = 1;
  std::vector<std::string> default_sysctls;           // "name=value"; a container's own win
  uint64_t writable_disk_bytes = uint64_t{10} << 30;  // sparse
  registry::ClientOptions registry;
  // No folders can be shown to guests: owners of files are root's to change.
  bool without_root = false;
  bool stop_containers = false;  // at the engine's end; otherwise they run on and are adopted
};

// Where builds' virtual machines have their folders; swept at start.
inline std::string buildFolder(const EngineOptions& options) {
  return options.root + "/builds";
}

}  // namespace hull::engine
