// hulld: the engine. Reads its options, puts the parts together, serves the Docker Engine API.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <thread>

#include "base/descriptor_limit.h"
#include "base/engine_paths.h"
#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/log_context.h"
#include "daemon/network/passt.h"
#include "daemon/serve.h"
#include "daemon/vm/vm_step_runner.h"

namespace hull::engine {
namespace {

constexpr uint32_t kVmmUidBase = 0x48000000;  // above anything that is given to users
constexpr uint32_t kMostDefaultVcpus = 2;

struct Options {
  EngineOptions engine;
  ServeOptions serve;
  NetworkOptions network;
  std::string resources;
  uint64_t default_memory_mib = 512;
  Quota::Limits quota;
  std::vector<std::string> layer_limits;
  bool debug = false;
  bool uninstall = false;
  std::string log_format = "text";
};

std::string programFolder() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().string();
}

// Empty: it must be named.
std::string defaultRoot() {
  try {
    return engineRoot();
  } catch (const Error&) {
    return {};
  }
}

std::string defaultSocket() {
  try {
    return engineSocket();
  } catch (const Error&) {
    return "none";
  }
}

// Where the CPU itself is emulated, a second vCPU costs more than it gives.
uint32_t defaultVcpus() {
  const bool emulated = readFile("/proc/cpuinfo").find("QEMU TCG") != std::string::npos ||
                        readFile("/proc/cpuinfo").find("QEMU Virtual CPU") != std::string::npos;
  if (emulated) return 1;
  return std::clamp(std::thread::hardware_concurrency(), 1U, kMostDefaultVcpus);
}

void declare(CLI::App& app, Options& options) {
  app.add_option("--socket,-H", options.serve.sockets,
                 "unix socket to listen on; may be repeated (default: " + defaultSocket() + ")");
  app.add_option("--client-socket", options.serve.other_names,
                 "path at which clients on another host reach this engine; may be repeated");
  app.add_option("--group,-G", options.serve.group,
                 "group that may use the socket (default: hull or docker, if there is one)");
  app.add_option("--tcp", options.serve.tcp_addresses,
                 "host:port to listen on with mutual TLS (see --tls); may be repeated");
  app.add_option("--tls", options.serve.tls_folder,
                 "folder of ca.pem, cert.pem and key.pem for --tcp");
  app.add_option("--metrics", options.serve.metrics_address,
                 "host:port to serve Prometheus metrics on, plain HTTP");
  app.add_option("--log-format", options.log_format, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  app.add_option("--root", options.engine.root, "folder of images and containers")
      ->capture_default_str();
  app.add_option("--host-root", options.engine.host_root,
                 "folder in which bind mounts' sources are looked up")
      ->capture_default_str();
  app.add_option("--resources", options.resources,
                 "folder of hull-vmm, hull-initramfs and vmlinux (default: where hulld is)");
  app.add_option("--port-publisher", options.network.port_publisher,
                 "unix socket of a relay that publishes ports on another host");
  app.add_option("--bridge", options.network.bridge, "name of the network bridge")
      ->capture_default_str();
  app.add_option("--subnet", options.network.subnet, "addresses of containers")
      ->capture_default_str();
  app.add_option("--block-address", options.network.blocked,
                 "address or subnet that no container reaches; may be repeated")
      ->capture_default_str();
  app.add_option("--open-host-port", options.network.open_host_ports,
                 "port of this host that containers may use, like 5432/tcp; may be repeated");
  app.add_option("--insecure-registry", options.engine.registry.insecure_registries,
                 "registry (host:port) that is spoken to over plain HTTP; may be repeated");
  app.add_option("--registry-loopback", options.engine.registry.loopback_address,
                 "address to reach registries named localhost at");
  app.add_option("--default-memory", options.default_memory_mib,
                 "memory of a container without a limit of its own, in MiB")
      ->capture_default_str()
      ->check(CLI::Range(64, 1024 * 1024));
  app.add_option("--default-cpus", options.engine.default_vcpus,
                 "CPUs of a container without a limit of its own")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app.add_option("--default-sysctl", options.engine.default_sysctls,
                 "name=value for every container's kernel, unless it has a value of its own; may "
                 "be repeated")
      ->check([](const std::string& setting) -> std::string {
        try {
          checkSysctl(setting);
          return {};
        } catch (const Error& error) {
          return error.what();
        }
      });
  app.add_option("--max-machines", options.quota.machines,
                 "how many virtual machines run at a time, containers and builds together");
  app.add_option("--max-memory", options.quota.memory_mib,
                 "memory of all virtual machines together, in MiB");
  app.add_option("--max-cpus", options.quota.vcpus, "CPUs of all virtual machines together");
  app.add_option("--layer-limit", options.layer_limits,
                 "what a layer may ask of this host: blob-bytes, unpacked-bytes, entries, "
                 "index-bytes or ratio, like unpacked-bytes=64g; may be repeated");
  app.add_flag("--stop-containers", options.engine.stop_containers,
               "stop the containers when the engine ends; otherwise they run on and the next "
               "engine takes them over");
  app.add_flag("--uninstall", options.uninstall,
               "take bridges, taps and packet rules off this host, and end; virtual machines that "
               "still run lose their network");
  app.add_flag("--debug,-D", options.debug, "log every request");
  app.set_version_flag("--version,-v", std::string("hulld ") + kHullVersion);
}

// Debian 13's, then QEMU's, which is the one of Debian 12. Empty: containers go without shares.
std::string findVirtiofsd() {
  if (geteuid() != 0) return {};  // volumes are disks
  for (const char* path : {"/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"}) {
    if (fileExists(path)) return path;
  }
  log::warning(
      "no virtiofsd on this host: no volumes and bind mounts (apt-get install virtiofsd, "
      "or qemu-system-common where that is its package)");
  return {};
}

VmResources resourcesOf(const Options& options) {
  const std::string folder = options.resources.empty() ? programFolder() : options.resources;
  VmResources resources;
  resources.vmm_program = folder + "/hull-vmm";
  resources.share_program = folder + "/hull-share";
  resources.virtiofsd_program = findVirtiofsd();
  resources.initramfs = folder + "/hull-initramfs";
  resources.kernel = folder + "/vmlinux";
  resources.template_disk = options.engine.root + "/templates/writable";
  resources.quota = std::make_shared<Quota>(options.quota);
  if (geteuid() == 0) resources.vmm_uid_base = kVmmUidBase;
  // Images can be managed without them; a container's start names what is missing.
  for (const std::string& path :
       {resources.vmm_program, resources.share_program, resources.initramfs, resources.kernel}) {
    if (!fileExists(path)) {
      log::warning("no " + path +
                   ": no container can be started (build it: ninja programs, and "
                   "scripts/kernel for vmlinux; or name its folder with --resources)");
    }
  }
  return resources;
}

EngineParts partsOf(Options& options) {
  EngineParts parts;
  image::LayerLimits limits;
  for (const std::string& limit : options.layer_limits) image::setLayerLimit(limits, limit);
  parts.images = std::make_shared<image::ImageStore>(options.engine.root, limits);
  options.network.state_directory = options.engine.root + "/network";
  makeDirectories(options.network.state_directory, 0711);
  options.network.without_root = geteuid() != 0;
  if (options.network.without_root) options.network.passt = findPasst();
  try {
    parts.network = Network::create(options.network);
  } catch (const Error& error) {
    parts.network_error = error.what();
    log::warning("no network for containers: " + parts.network_error);
  }
  const VmResources resources = resourcesOf(options);
  parts.start_vm = [resources](VmSpec spec) { return Vm::start(resources, std::move(spec)); };
  parts.adopt_vm = [resources](const std::string& directory) {
    return Vm::adopt(resources, directory);
  };
  parts.take_seat = [resources](std::shared_ptr<Vm> machine, const SeatSpec& spec) {
    return takeSeat(resources.template_disk, std::move(machine), spec);
  };
  parts.last_vm_exit = Vm::lastExit;

  VmStepRunner::Options steps;
  steps.work_directory = buildFolder(options.engine);
  steps.cache_directory = options.engine.root + "/build-caches";
  steps.vcpus = options.engine.default_vcpus;
  steps.memory_mib = std::max<uint64_t>(steps.memory_mib, options.default_memory_mib);
  parts.step_runner = std::make_shared<VmStepRunner>(
      resources, parts.network.get(),
      [images = parts.images](const std::vector<image::Digest>& layers) {
        return images->rootDisk(layers);
      },
      steps);
  useRealParts(parts);
  return parts;
}

// Leaves images and containers: their folder is the user's to remove.
int uninstall(Options& options) {
  const EngineLock lock(options.engine.root);  // no engine uses them
  options.network.state_directory = options.engine.root + "/network";
  if (geteuid() != 0) {
    log::info("an engine without root has changed nothing of this host's network");
    return 0;
  }
  Network::create(options.network)->shutdown();
  log::info("this host's network is as if there had been no engine; " + options.engine.root +
            " is left");
  return 0;
}

}  // namespace
}  // namespace hull::engine

int main(int argc, char** argv) {
  using namespace hull;
  log::setPart("hulld");
  CLI::App app{
      "The Hull engine: runs each container in a virtual machine of its own and speaks "
      "the Docker Engine API."};
  engine::Options options;
  try {
    options.engine.root = engine::defaultRoot();
    options.engine.default_vcpus = engine::defaultVcpus();
    engine::declare(app, options);
    app.parse(argc, argv);
    if (options.debug) log::setLevel(log::Level::kDebug);
    if (options.log_format == "json") log::setFormat(log::Format::kJson);
    if (options.engine.root.empty()) options.engine.root = engineRoot();  // says what to do
    options.engine.default_memory_bytes = options.default_memory_mib << 20;
    options.engine.root = std::filesystem::absolute(options.engine.root).string();
    options.engine.without_root = geteuid() != 0;
    engine::blockSignals();
    raiseDescriptorLimit();  // two for each connection to a published port
    if (options.uninstall) return engine::uninstall(options);
    engine::serve(options.serve, [&](const std::vector<std::string>& sockets) {
      options.engine.sockets = sockets;
      engine::EngineLock lock(options.engine.root);  // before anything of the host is touched
      return std::make_unique<engine::Engine>(std::move(lock), engine::partsOf(options),
                                              options.engine);
    });
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  } catch (const std::exception& error) {
    log::error(error.what());
    return 1;
  }
}
