"""What the benchmarks share: contenders and their samples, the JSON results, docker and an engine of Hull's side by side with an
image of this host's programs, and a bare VM on either VMM."""
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
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


# --- docker, and an engine of the benchmark's own on the same host ------------------------------------------------------------
def wait_until(condition, what, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {seconds} s")
        time.sleep(0.2)


def succeeds(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def start_dockerd(storage):
    """Whether docker answers, started if need be."""
    if succeeds("docker", "version"):
        return True
    # Its own containerd gets 15 s from dockerd to start, which is not enough where the CPU is emulated.
    if shutil.which("containerd") and not succeeds("ctr", "version"):
        subprocess.Popen(["containerd"], stdout=open("/tmp/containerd.log", "wb"), stderr=subprocess.STDOUT)
        wait_until(lambda: succeeds("ctr", "version"), "containerd answers")
    arguments = ["--data-root", storage + "/docker"] if storage else []
    daemon = subprocess.Popen(["dockerd", *arguments], stdout=open("/tmp/dockerd.log", "wb"), stderr=subprocess.STDOUT)
    for _ in range(600):
        if succeeds("docker", "version"):
            return True
        if daemon.poll() is not None:
            break
        time.sleep(0.2)
    say("dockerd did not start: " + open("/tmp/dockerd.log", encoding="utf-8", errors="replace").read()[-800:])
    return False


def with_libraries(program):
    files = {program}
    for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout.splitlines():
        found = re.search(r"(/\S+)", line.split("=>")[-1])
        if found:
            files.add(found.group(1))
    return files


BUSYBOX_APPLETS = ("sh", "cat", "sleep", "mkdir", "chown", "chmod", "rm", "tar", "su", "ls", "true")


def image_of(path, programs, folders=(), texts=()):
    """The tar of a root file system: busybox, `programs` of this host with their libraries, and whole `folders`."""
    busybox = shutil.which("busybox")
    with tarfile.open(path, "w", dereference=True) as tar:
        for name in ("tmp", "run", "var/log", "root", "data"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(member)
        for name in sorted({busybox, "/etc/passwd", "/etc/group"}.union(*(with_libraries(p) for p in programs))):
            tar.add(name)
        for name in folders:
            tar.add(name)
        for name in ("bin/sh", *(f"usr/local/bin/{applet}" for applet in BUSYBOX_APPLETS)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, busybox
            tar.addfile(member)
        for name, text in dict(texts).items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))


class Engine:
    """Docker's verbs, by whichever command; `bench` is the image to run."""

    def __init__(self, name, command, archive):
        self.name, self.command, self.made = name, command, []
        self("import", "--change", "ENV PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/bin:/usr/sbin:/bin", archive, "bench")

    def __call__(self, *words):
        done = subprocess.run([*self.command, *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{self.name} {' '.join(map(str, words))}: status {done.returncode}: {done.stdout[-500:]} {done.stderr[-1500:]}")
        return done.stdout.strip()

    def run(self, name, *options, command):
        self.made.append(name)
        self("run", "-d", "--name", name, *options, "bench", *command)
        return name

    def address(self, name):
        return self("inspect", "-f", "{{.NetworkSettings.IPAddress}}", name)

    def close(self):
        if self.made:
            self("rm", "-f", *self.made)


class Shell:
    """A shell in a container, so that starting a command's process is all that is measured beside the command."""

    def __init__(self, engine, container):
        self.process = subprocess.Popen([*engine.command, "exec", "-i", container, "sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, script):
        """What it printed, and the seconds it took."""
        began = time.monotonic()
        self.process.stdin.write(f"{script}\necho; echo bench-end $?\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.startswith("bench-end"):
                return "".join(lines), time.monotonic() - began
            lines.append(line)
        raise SystemExit(f"the shell ended in: {script}: {''.join(lines)[-1000:]}")

    def close(self):
        self.process.stdin.close()
        self.process.wait(SECONDS)


class BothEngines:
    """Docker, and a hulld of the benchmark's own whose ports and folders are this host's, each with the image."""

    def __init__(self, options, archive, hulld_options=()):
        self.folder = tempfile.mkdtemp(prefix="hull-bench-engine.", dir=options.storage)
        if not start_dockerd(options.storage):
            raise SystemExit("docker is not here: nothing to compare with")
        # Docker drops what it does not forward itself (docs/networking.md).
        for direction in ("-i", "-o"):
            subprocess.run(["iptables", "-I", "DOCKER-USER", direction, "hull+", "-j", "ACCEPT"], check=False, stderr=subprocess.DEVNULL)
        socket = f"{self.folder}/s"
        with open("/tmp/hulld-bench.log", "wb") as log:
            self.command = [f"{options.bin}/hulld", "--root", f"{self.folder}/root", "--socket", socket, "--bridge", "hullbench"]
            self.hulld = subprocess.Popen([*self.command, "--stop-containers", *hulld_options], stdout=log, stderr=log)
        command = [f"{options.bin}/hull", "-H", f"unix://{socket}"]
        wait_until(lambda: succeeds(*command, "version"), "hulld answers")
        self.hull, self.docker = Engine("hull", command, archive), Engine("docker", ["docker"], archive)
        self.all = [self.hull, self.docker]

    def close(self):
        for engine in self.all:
            engine.close()
        self.hulld.terminate()
        self.hulld.wait(SECONDS)
        subprocess.run([*self.command, "--uninstall"], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


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
