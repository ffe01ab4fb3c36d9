#include "machine/config.h"

#include <sys/sysinfo.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "machine/agent.h"
#include "machine/host_share.h"

namespace hull::machine {

namespace {

constexpr uint64_t kLeastMemoryMib = 2048;
constexpr uint64_t kMostMemoryMib = 8192;

// A comma in a path separates options unless doubled.
std::string escaped(const std::string& path) {
  std::string text;
  for (const char character : path) text.append(character == ',' ? 2 : 1, character);
  return text;
}

void addDisk(std::vector<std::string>& arguments, const std::string& serial,
             const std::string& path, const char* options) {
  arguments.insert(
      arguments.end(),
      {"-drive", "if=none,format=raw,id=" + serial + "," + options + ",file=" + escaped(path),
       "-device", "virtio-blk-pci,drive=" + serial + ",serial=" + serial});
}

void addSocket(std::vector<std::string>& arguments, const char* id, int fd) {
  arguments.insert(arguments.end(),
                   {"-chardev", std::string("socket,id=") + id + ",fd=" + std::to_string(fd)});
}

}  // namespace

void saveConfig(const MachinePaths& paths, const MachineConfig& config) {
  const nlohmann::json json{{"qemu", config.qemu},
                            {"imageDirectory", config.image_directory},
                            {"payloadDirectory", config.payload_directory},
                            {"memoryMib", config.memory_mib}};
  writeFileAtomic(paths.config(), json.dump(2) + "\n", 0600);
}

MachineConfig loadConfig(const MachinePaths& paths) {
  try {
    const auto json = nlohmann::json::parse(readFile(paths.config()));
    MachineConfig config;
    config.qemu = json.at("qemu").get<std::string>();
    config.image_directory = json.at("imageDirectory").get<std::string>();
    config.payload_directory = json.at("payloadDirectory").get<std::string>();
    config.memory_mib = json.at("memoryMib").get<uint64_t>();
    return config;
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorKind::kCorrupt, "read " + paths.config() + ": " + error.what() +
                                         " (start the machine with hull machine start)");
  }
}

uint64_t defaultMemoryMib() {
  struct sysinfo info {};
  sysinfo(&info);
  const uint64_t host = info.totalram * info.mem_unit >> 20;
  return std::min(std::clamp(host / 2, kLeastMemoryMib, kMostMemoryMib), host);
}

// What is fixed here makes the machine reliable: exactly one emulated processor, and no pku, la57,
// vls, vgif (machine/README.md has the figures).
std::vector<std::string> qemuArguments(const MachinePaths& paths, const MachineConfig& config,
                                       bool share) {
  std::vector<std::string> arguments = {
      config.qemu,
      "-name",
      "hull-machine",
      "-nodefaults",
      "-no-user-config",
      "-display",
      "none",
      "-M",
      share ? "q35,memory-backend=memory" : "q35",
      "-accel",
      "tcg",
      "-cpu",
      "max,pku=off,la57=off,erms=off",
      "-smp",
      "1",
      "-m",
      std::to_string(config.memory_mib),
      "-no-reboot",
      "-kernel",
      config.image_directory + "/vmlinux",
      "-initrd",
      config.image_directory + "/initrd",
      "-append",
      "console=ttyS0 quiet loglevel=4 reboot=t panic=1 mitigations=off nokaslr "
      "kvm_amd.vls=0 kvm_amd.vgif=0 random.trust_cpu=1 rcupdate.rcu_expedited=1"};
  addDisk(arguments, "hull-root", config.image_directory + "/root.ext4", "readonly=on");
  addDisk(arguments, "hull-payload", paths.payload(), "readonly=on");
  addDisk(arguments, "hull-data", paths.dataDisk(), "discard=unmap,detect-zeroes=unmap");
  arguments.insert(arguments.end(), {"-netdev", "user,id=net,ipv6=off", "-device",
                                     "virtio-net-pci,netdev=net,romfile=", "-device",
                                     "virtio-rng-pci", "-device", "virtio-serial-pci"});
  if (share) {
    addSocket(arguments, "share", kQemuShareFd);
    arguments.insert(
        arguments.end(),
        {"-object",
         "memory-backend-memfd,id=memory,share=on,size=" + std::to_string(config.memory_mib) + "M",
         "-device", std::string("vhost-user-fs-pci,chardev=share,tag=") + kHostShareTag});
  }
  addSocket(arguments, "channel", kQemuChannelFd);
  arguments.insert(arguments.end(),
                   {"-device", std::string("virtserialport,chardev=channel,name=") + kChannelName});
  addSocket(arguments, "console", kQemuConsoleFd);
  arguments.insert(arguments.end(), {"-serial", "chardev:console"});
  addSocket(arguments, "log", kQemuLogFd);
  arguments.insert(arguments.end(), {"-device", "virtconsole,chardev=log"});
  return arguments;
}

}  // namespace hull::machine
