// doctor: what this host can and cannot do for Hull, and how to mend it.

#include <fmt/format.h>
#include <linux/landlock.h>
#include <sched.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <iostream>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "cli/client/locate.h"
#include "cli/commands/context.h"
#include "machine/detect.h"

namespace hull::cli {

namespace {

enum class Verdict { kGood, kNote, kBad };

struct Finding {
  Verdict verdict;
  std::string what;
  std::string next_step;  // empty: nothing to do
};

constexpr uint64_t kWantedDiskBytes = uint64_t{5} << 30;

bool inPath(const std::string& program) {
  const char* path = getenv("PATH");
  for (std::string_view rest = path ? path : "/usr/bin:/bin"; !rest.empty();) {
    const size_t colon = std::min(rest.find(':'), rest.size());
    if (access((std::string(rest.substr(0, colon)) + "/" + program).c_str(), X_OK) == 0)
      return true;
    rest.remove_prefix(std::min(colon + 1, rest.size()));
  }
  return false;
}

Finding virtualization(const machine::Detection& detection) {
  if (detection.usable()) return {Verdict::kGood, "virtualization: " + detection.explanation, ""};
  return {Verdict::kNote,
          "virtualization: " + detection.explanation +
              "; containers run in hull machine, an emulated host (slow)",
          detection.next_step};
}

Finding programs() {
  std::string missing;
  for (const std::string name : {"hulld", "hull-vmm", "hull-share", "hull-initramfs", "vmlinux"}) {
    if (!fileExists(programDirectory() + "/" + name))
      missing += (missing.empty() ? "" : ", ") + name;
  }
  if (missing.empty()) return {Verdict::kGood, "programs: all in " + programDirectory(), ""};
  return {Verdict::kBad, "programs: " + missing + " not in " + programDirectory(),
          "run scripts/quickstart, which builds them"};
}

Finding peers(bool kvm) {
  if (kvm && geteuid() != 0) {
    if (inPath("passt"))
      return {Verdict::kGood, "network: passt is installed, for an engine without root", ""};
    return {Verdict::kBad, "network: an engine without root needs passt, which is not installed",
            "apt-get install passt (or run hulld as root)"};
  }
  if (kvm) {
    if (!fileExists("/dev/net/tun")) {
      return {Verdict::kBad, "network: no /dev/net/tun", "modprobe tun"};
    }
    return {Verdict::kGood, "network: /dev/net/tun is here", ""};
  }
  if (inPath("qemu-system-x86_64"))
    return {Verdict::kGood, "emulator: qemu-system-x86_64 is installed", ""};
  return {Verdict::kBad, "emulator: qemu-system-x86_64 is not installed",
          "apt-get install qemu-system-x86"};
}

// What this user's own VMMs and passt processes wall themselves in with.
bool mayMakeNamespaces() {
  const pid_t child = fork();
  if (child == 0) {
    constexpr int kNamespaces =
        CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS;
    _exit(unshare(kNamespaces) == 0 ? 0 : 1);
  }
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

bool hasLandlock() {
  return syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION) > 0;
}

Finding jail() {
  const std::string landlock = hasLandlock() ? "Landlock" : "no Landlock (this kernel has none)";
  if (!mayMakeNamespaces()) {
    return {Verdict::kBad,
            "jail: this user may not make namespaces; passt needs them, and virtual machines have "
            "system call filters and " +
                landlock + " around them, nothing else",
            "allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, or "
            "kernel.apparmor_restrict_unprivileged_userns=0), or run hulld as root"};
  }
  return {Verdict::kNote,
          "jail: system call filters, namespaces, an empty root, no capabilities, " + landlock +
              "; but every virtual machine runs as you, where root's engine gives each a user and "
              "a PID namespace of its own",
          ""};
}

// What an engine that is not root's does differently.
Finding withoutRoot() {
  std::string first_port = "1024";
  try {
    first_port = readFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", 64);
    first_port.erase(first_port.find_last_not_of('\n') + 1);
  } catch (const Error&) {
    // The kernel's default.
  }
  return {Verdict::kNote,
          "an engine of your own, without root: networks bridge and none only, each container "
          "alone in it; ports from " +
              first_port +
              " on; volumes are disks; no folders of the host; CPU shares only below the usual; no "
              "cgroups of the host (with root there are none either)",
          "for all of it run hulld as root; docs/networking.md says what differs"};
}

Finding diskSpace() {
  const char* home = getenv("HOME");
  const std::string where = geteuid() == 0 ? "/var/lib" : home ? home : "/";
  struct statvfs info {};
  if (statvfs(where.c_str(), &info) < 0)
    return {Verdict::kNote, "disk: " + where + " cannot be examined", ""};
  const uint64_t free_bytes = uint64_t{info.f_bavail} * info.f_frsize;
  const std::string text = fmt::format("disk: {:.1f} GiB free in {}",
                                       static_cast<double>(free_bytes) / (1 << 30), where);
  if (free_bytes >= kWantedDiskBytes) return {Verdict::kGood, text, ""};
  return {Verdict::kNote, text,
          "images and containers want 5 GiB or more: free some, or give hulld another --root"};
}

Finding engine(Context& context) {
  const std::string socket = findRunningEngine(context.host);
  if (socket.empty())
    return {Verdict::kNote, "engine: none is running",
            "nothing to do: the next command starts one"};
  return {Verdict::kGood, "engine: answers at " + socket, ""};
}

void print(const Finding& finding) {
  const char* mark = finding.verdict == Verdict::kGood   ? "ok  "
                     : finding.verdict == Verdict::kNote ? "note"
                                                         : "BAD ";
  std::cout << mark << "  " << finding.what << "\n";
  if (!finding.next_step.empty()) std::cout << "      next: " << finding.next_step << "\n";
}

int doctorCommand(Context& context, bool brief, bool only_kvm) {
  const machine::Detection detection = machine::detect();
  if (only_kvm) return detection.usable() ? 0 : 1;
  if (brief) {
    print(virtualization(detection));
    return 0;
  }
  bool bad = false;
  std::vector<Finding> findings{virtualization(detection), programs(), peers(detection.usable()),
                                diskSpace(), engine(context)};
  if (detection.usable() && geteuid() != 0) {
    findings.push_back(jail());
    findings.push_back(withoutRoot());
  }
  for (const Finding& finding : findings) {
    print(finding);
    bad |= finding.verdict == Verdict::kBad;
  }
  return bad ? 1 : 0;
}

}  // namespace

void addDoctorCommand(CLI::App& app, Context& context) {
  auto brief = std::make_shared<bool>(false);
  auto only_kvm = std::make_shared<bool>(false);
  auto* command =
      app.add_subcommand("doctor", "Say what this host can and cannot do, and how to mend it");
  command->add_flag("--brief", *brief, "Only where containers will run");
  command->add_flag("--usable-kvm", *only_kvm,
                    "Print nothing; status 0 when this host's KVM is usable");
  command->callback([&context, brief, only_kvm] {
    context.exit_code = doctorCommand(context, *brief, *only_kvm);
  });
}

}  // namespace hull::cli
