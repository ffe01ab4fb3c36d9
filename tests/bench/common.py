"""What the benchmarks share: contenders and their samples, the JSON results, and a bare VM on either VMM."""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

SECONDS = 300
MEMORY_MIB = 128


def timed(command, **kwargs):
    began = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False, **kwargs)
    took = time.monotonic() - began
    return took, done


def say(text):
    print(text, file=sys.stderr, flush=True)


class Runs:
    """One contender: a command, and its samples in seconds."""

    def __init__(self, name, command, ok=lambda done: done.returncode == 0):
        self.name, self.command, self.ok, self.samples = name, command, ok, []

    def once(self, keep=True):
        took, done = timed(self.command)
        if not self.ok(done):
            raise SystemExit(f"{self.name}: status {done.returncode}: {done.stdout.decode()[-500:]} {done.stderr.decode()[-500:]}")
        if keep:
            self.samples.append(took)
            say(f"  {self.name:28} {took:7.3f} s")


def result(name, hull, peer, unit="s", better="lower"):
    """Samples of both, pair by pair in the order they were taken; the ratio is Hull's over the peer's."""
    ratios = [h / p for h, p in zip(hull, peer)]
    say(f"{name}: hull {statistics.median(hull):.3f} {unit}, peer {statistics.median(peer):.3f} {unit}, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return {"id": name, "unit": unit, "better": better, "hull": hull, "peer": peer, "ratio": statistics.median(ratios)}


def host():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="ascii", errors="replace") if line.startswith("model name")), "")
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": os.uname().release, "emulated": "QEMU TCG" in model or "TCG" in model}


# --- a bare VM: the guest kernel and an initramfs whose init ends it through I/O port 0x500 ------------------------------
def hull_vm(options, initrd, command_line="", fds=(), **config):
    """argv of hull-vmm; `fds` are (number in the VMM, path or descriptor, redirection: < or <>)."""
    full = {"memory_mib": MEMORY_MIB, "vcpus": 1, "kernel_fd": 10, "initrd_fd": 11, "command_line": command_line, **config}
    file = tempfile.NamedTemporaryFile("w", prefix="hull-bench-", suffix=".json", delete=False, encoding="ascii")
    with file:
        json.dump(full, file)
    redirections = "".join(f" {number}{how}{'&' if isinstance(what, int) else ''}{what}" for number, what, how in fds)
    return ["bash", "-c", f"exec {options.bin}/hull-vmm --config-fd 9 9<{file.name} 10<{options.bin}/vmlinux 11<{initrd}{redirections}"]


QEMU_OK = (2 << 1) | 1  # isa-debug-exit: what init wrote to the port


def have_qemu():
    return shutil.which("qemu-system-x86_64") is not None


def qemu_vm(options, initrd, command_line="", devices=()):
    """argv of QEMU's microvm machine with the same kernel and initramfs."""
    return ["qemu-system-x86_64", "-M", "microvm,acpi=off,pit=off,pic=off,rtc=off,isa-serial=off", "-accel", "kvm", "-cpu", "host", "-m", str(MEMORY_MIB),
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-kernel", f"{options.bin}/vmlinux", "-initrd", initrd,
            "-append", f"quiet reboot=k panic=-1 8250.nr_uarts=0 {command_line}", "-device", "isa-debug-exit,iobase=0x500,iosize=1", *devices]


def bare_vm_contenders(options):
    contenders = [Runs("vm: hull-vmm", hull_vm(options, options.bench_initrd))]
    if have_qemu():
        contenders.append(Runs("vm: qemu microvm", qemu_vm(options, options.bench_initrd), ok=lambda done: done.returncode == QEMU_OK))
    return contenders
