#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/subprocess.h"
#include "guest-init/testing/host.h"
#include "vmm/config/vm_config.h"

namespace hull::guest {

namespace {

class VmHost final : public TestHost {
 public:
  explicit VmHost(const TestDisks& disks) : folder_(disks.folder) {
    const std::string bin = getenv("HULL_BIN");
    vmm::VmConfig config;
    config.memory_mib = 256;
    config.kernel_fd = give(openFile(getenv("HULL_KERNEL"), O_RDONLY));
    config.initrd_fd = give(openFile(bin + "/hull-initramfs", O_RDONLY));
    config.console_fd = give(openFile(folder_ + "/console", O_RDWR | O_CREAT));
    config.status_fd = give(openFile(folder_ + "/status", O_RDWR | O_CREAT));
    config.disks = {disk("root", disks.root, true), disk("writable", disks.writable, false)};
    config.vsock = vmm::VsockConfig{3, give(listenUnix(folder_ + "/vsock"))};
    writeFileAtomic(folder_ + "/config", toJson(config));
    SubprocessOptions options;
    options.arguments = {bin + "/hull-vmm", "--config-fd",
                         std::to_string(give(openFile(folder_ + "/config", O_RDONLY)))};
    for (size_t i = 0; i < files_.size(); ++i) {
      options.descriptors.emplace_back(files_[i].get(), kFirstFd + static_cast<int>(i));
    }
    options.descriptors.emplace_back(STDERR_FILENO, STDERR_FILENO);
    vmm_.emplace(options);
  }
  ~VmHost() override {
    if (!ended_) vmm_->kill(SIGKILL);
    if (getenv("HULL_SHOW_CONSOLE")) std::fputs(readFile(folder_ + "/console").c_str(), stderr);
  }

  // The guest may not listen yet: asked again until it does.
  Fd connect(uint32_t port) override {
    constexpr int kAttempts = 3000;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      Fd client = connectUnix(folder_ + "/vsock");
      writeFull(client.get(), "CONNECT " + std::to_string(port) + "\n");
      std::string line;
      std::byte one;
      while (readSome(client.get(), {&one, 1}) == 1 && one != std::byte{'\n'}) {
        line += static_cast<char>(one);
      }
      if (line.starts_with("OK")) return client;
      usleep(10000);
    }
    throw Error(ErrorKind::kTimeout, "connect to the guest: " + readFile(folder_ + "/console"));
  }
  std::string rootDisk() const override { return "/dev/vda"; }
  std::string writableDisk() const override { return "/dev/vdb"; }
  std::string waitForPowerOff() override {
    const int status = vmm_->wait();
    ended_ = true;
    const std::string text = readFile(folder_ + "/status");
    return status == 0 && text.find("\"poweroff\"") != std::string::npos ? "poweroff" : text;
  }

 private:
  static constexpr int kFirstFd = 10;

  int give(Fd fd) {
    files_.push_back(std::move(fd));
    return kFirstFd + static_cast<int>(files_.size()) - 1;
  }
  vmm::DiskConfig disk(const std::string& id, const std::string& image, bool read_only) {
    vmm::DiskConfig config;
    config.id = id;
    config.read_only = read_only;
    Fd file = openFile(image, read_only ? O_RDONLY : O_RDWR);
    config.size_bytes = fileSize(file.get());
    config.segments = {{give(std::move(file)), 0, 0, config.size_bytes}};
    return config;
  }

  std::string folder_;
  std::vector<Fd> files_;
  std::optional<Subprocess> vmm_;
  bool ended_ = false;
};

}  // namespace

bool wantsVmHost() {
  return getenv("HULL_BIN") && getenv("HULL_KERNEL") && access("/dev/kvm", R_OK | W_OK) == 0;
}

std::unique_ptr<TestHost> makeVmHost(const TestDisks& disks) {
  return std::make_unique<VmHost>(disks);
}

}  // namespace hull::guest
