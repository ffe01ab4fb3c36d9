#!/usr/bin/env python3
"""How long `run true` takes, against docker and podman, and a bare VM against QEMU's microvm machine.

Runs on the host whose engines are compared (scripts/bench copies it into `hull machine` where there is no hardware
virtualization). Each round runs every contender once, in turn, so that noise meets all alike. Prints one JSON object.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

SECONDS = 300


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


def start_dockerd(storage):
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0:
        return None
    arguments = ["--data-root", storage + "/docker"] if storage else []
    daemon = subprocess.Popen(["dockerd", *arguments], stdout=open("/tmp/dockerd.log", "wb"), stderr=subprocess.STDOUT)
    for _ in range(600):
        if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0:
            return daemon
        if daemon.poll() is not None:
            break
        time.sleep(0.2)
    say("dockerd did not start: " + open("/tmp/dockerd.log", encoding="utf-8", errors="replace").read()[-800:])
    return None


def container_contenders(options):
    image = options.image
    contenders = {"hull": lambda net: [options.hull, "run", "--rm", *net, image, "true"]}
    archive = tempfile.NamedTemporaryFile(suffix=".tar")
    subprocess.run([options.hull, "save", "-o", archive.name, image], check=True)
    if shutil.which("docker") and (start_dockerd(options.storage) or subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0):
        subprocess.run(["docker", "load", "-q", "-i", archive.name], check=True, stdout=subprocess.DEVNULL)
        contenders["docker"] = lambda net: ["docker", "run", "--rm", *net, image, "true"]
    if shutil.which("podman"):
        podman = ["podman", *(["--root", options.storage + "/podman"] if options.storage else [])]
        subprocess.run([*podman, "load", "-q", "-i", archive.name], check=True, stdout=subprocess.DEVNULL)
        contenders["podman"] = lambda net: [*podman, "run", "--rm", *net, image, "true"]
    return contenders


def bare_vm_contenders(options):
    folder = tempfile.mkdtemp(prefix="hull-bench-")
    config = {"memory_mib": 128, "vcpus": 1, "kernel_fd": 10, "initrd_fd": 11, "command_line": ""}
    with open(f"{folder}/config.json", "w", encoding="ascii") as file:
        json.dump(config, file)
    hull = ["bash", "-c", f"exec {options.bin}/hull-vmm --config-fd 9 9<{folder}/config.json 10<{options.bin}/vmlinux 11<{options.bench_initrd}"]
    contenders = [Runs("vm: hull-vmm", hull)]
    if shutil.which("qemu-system-x86_64"):
        qemu = ["qemu-system-x86_64", "-M", "microvm,acpi=off,pit=off,pic=off,rtc=off,isa-serial=off", "-accel", "kvm", "-cpu", "host", "-m", "128",
                "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-kernel", f"{options.bin}/vmlinux", "-initrd", options.bench_initrd,
                "-append", "quiet reboot=k panic=-1 8250.nr_uarts=0", "-device", "isa-debug-exit,iobase=0x500,iosize=1"]
        contenders.append(Runs("vm: qemu microvm", qemu, ok=lambda done: done.returncode == 5))  # (2 << 1) | 1
    return contenders


def result(name, hull, peer):
    ratios = [h / p for h, p in zip(hull.samples, peer.samples)]
    say(f"{name}: hull {statistics.median(hull.samples):.3f} s, peer {statistics.median(peer.samples):.3f} s, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return {"id": name, "unit": "s", "better": "lower", "hull": hull.samples, "peer": peer.samples, "ratio": statistics.median(ratios)}


def host():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="ascii", errors="replace") if line.startswith("model name")), "")
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": os.uname().release, "emulated": "QEMU TCG" in model or "TCG" in model}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--image", default="debian:bookworm-slim")
    parser.add_argument("--storage", help="folder for the peers' images; their own by default")
    parser.add_argument("--bin", required=True)
    parser.add_argument("--bench-initrd", required=True)
    options = parser.parse_args()
    options.hull = options.bin + "/hull"

    groups = []
    contenders = container_contenders(options)
    for suffix, net in (("", []), ("-no-network", ["--network", "none"])):
        groups.append((suffix, {name: Runs(f"{name} run{suffix}", make(net)) for name, make in contenders.items()}))
    bare = bare_vm_contenders(options)
    everything = [runs for _, group in groups for runs in group.values()] + bare
    say("warming up")
    for runs in everything:
        runs.once(keep=False)
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}")
        for runs in everything:
            runs.once()

    results = []
    for suffix, group in groups:
        for peer in ("docker", "podman"):
            if peer in group:
                results.append(result(f"run-vs-{peer}{suffix}", group["hull"], group[peer]))
            else:
                say(f"run-vs-{peer}{suffix}: skipped, {peer} is not here")
    if len(bare) == 2:
        results.append(result("vm-vs-qemu-microvm", bare[0], bare[1]))
    print(json.dumps({"host": host(), "results": results}))


if __name__ == "__main__":
    main()
