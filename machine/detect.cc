#include "machine/detect.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/fd.h"
#include "base/file.h"

namespace hull::machine {

namespace {
constexpr const char* kDevice = "/dev/kvm";
constexpr const char* kUseMachine =
    "use hull machine, an emulated host (slow but complete), or a host with VT-x or AMD-V";
}  // namespace

std::string_view toString(HostVirtualization value) {
  switch (value) {
    case HostVirtualization::kUsable:
      return "usable";
    case HostVirtualization::kNoCpuFlags:
      return "no-cpu-flags";
    case HostVirtualization::kNoDevice:
      return "no-device";
    case HostVirtualization::kNoPermission:
      return "no-permission";
    case HostVirtualization::kEmulatedOnly:
      return "emulated-only";
    case HostVirtualization::kProbeFailed:
      return "probe-failed";
  }
  return "unknown";
}

std::string cpuVirtualizationFlag(const std::string& cpuinfo) {
  size_t begin = cpuinfo.rfind("flags\t", 0) == 0 ? 0 : cpuinfo.find("\nflags\t");
  if (begin == std::string::npos) return "";
  const size_t end = cpuinfo.find('\n', begin + 1);
  const std::string flags = cpuinfo.substr(begin, end - begin) + ' ';
  if (flags.find(" vmx ") != std::string::npos) return "vmx";
  if (flags.find(" svm ") != std::string::npos) return "svm";
  return "";
}

Detection detect() {
  const std::string flag = cpuVirtualizationFlag(readFile("/proc/cpuinfo"));
  const bool present = ::access(kDevice, F_OK) == 0;
  if (flag.empty()) {
    if (!present) {
      return {HostVirtualization::kNoCpuFlags,
              "the processor offers no hardware virtualization (neither vmx nor svm)", kUseMachine};
    }
    const std::string why = ::access(kDevice, R_OK | W_OK) == 0 ? runProbeGuest(kDevice) : "";
    return {HostVirtualization::kEmulatedOnly,
            "/dev/kvm is there, but the processor offers neither vmx nor svm" +
                (why.empty() ? "" : "; probe guest: " + why),
            kUseMachine};
  }
  if (!present) {
    return {HostVirtualization::kNoDevice,
            "the processor has " + flag + ", but there is no /dev/kvm",
            flag == "svm" ? "run: sudo modprobe kvm_amd (or switch SVM on in the firmware)"
                          : "run: sudo modprobe kvm_intel (or switch VT-x on in the firmware)"};
  }
  const Fd device(::open(kDevice, O_RDWR | O_CLOEXEC));
  if (!device) {
    const int cause = errno;
    if (cause == ENOENT || cause == ENODEV || cause == ENXIO) {
      return {HostVirtualization::kNoDevice, "/dev/kvm has no driver behind it",
              "load kvm_amd or kvm_intel, or switch virtualization on in the firmware"};
    }
    return {HostVirtualization::kNoPermission,
            std::string("/dev/kvm cannot be opened: ") + strerror(cause),
            "run: sudo adduser \"$USER\" kvm, and log in again"};
  }
  const std::string why = runProbeGuest(kDevice);
  if (!why.empty()) {
    return {HostVirtualization::kProbeFailed, "the probe guest failed on /dev/kvm: " + why,
            kUseMachine};
  }
  return {HostVirtualization::kUsable,
          "hardware virtualization works (" + flag + ", /dev/kvm, probe guest)", ""};
}

}  // namespace hull::machine
