#!/usr/bin/env python3
"""What the VMM costs, side by side with QEMU's microvm machine: the same kernel, initramfs, disk and tap, alternating in
one run. Start, memory beyond the guest's, disk, network, exits by kind, and the CPU time of 20 idle VMs.

Needs root and /dev/kvm; fio and iperf3 are put into the guest's initramfs from this host. Prints one JSON object.
"""
import argparse
import contextlib
import fcntl
import glob
import json
import os
import re
import shutil
import statistics
import struct
import subprocess
import tempfile
import time

from common import QEMU_OK, MEMORY_MIB, bare_vm_contenders, have_qemu, host, hull_vm, qemu_vm, result, say, timed, with_libraries

DISK_MIB = 256
GUEST_MEMORY_MIB = 384  # for fio and iperf3 with their libraries
IDLE_VMS = 20
TUNSETIFF = 0x400454CA
TAP_FLAGS = 0x0002 | 0x1000 | 0x4000  # IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
TAP, HOST_ADDRESS, GUEST_ADDRESS, MAC = "hullbench0", "10.99.77.1", "10.99.77.2", "02:00:00:00:00:07"
BLOCK_JOBS = [("block-randread-vs-qemu", "randread", "4k", "iops"), ("block-seqread-vs-qemu", "read", "1M", "bw"),
              ("block-randwrite-vs-qemu", "randwrite", "4k", "iops"), ("block-seqwrite-vs-qemu", "write", "1M", "bw")]


# --- the guest: init, fio and iperf3 with the libraries of this host ------------------------------------------------------
def newc(entries):
    """The cpio format of an initramfs; entries are (name, mode, bytes)."""
    out = bytearray()
    for name, mode, data in [*entries, ("TRAILER!!!", 0, b"")]:
        encoded = name.encode() + b"\0"
        out += b"070701" + b"".join(b"%08X" % field for field in (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)) + encoded
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def make_initrd(options, path, programs=()):
    with open(options.vmm_init, "rb") as file:
        init = file.read()
    folders = {"dev", "proc", "sys", "tmp", "dev/shm"}
    contents = []
    for program in programs:
        found = shutil.which(program)
        if not found:
            say(f"{program} is not here: its benchmarks are skipped")
            continue
        for name in with_libraries(os.path.join("/usr/bin", program) if os.path.exists(f"/usr/bin/{program}") else found):
            with open(name, "rb") as file:
                contents.append((name.lstrip("/"), 0o100755, file.read()))
            parent = os.path.dirname(name.lstrip("/"))
            while parent:
                folders.add(parent)
                parent = os.path.dirname(parent)
    with open(path, "wb") as file:
        file.write(newc([(name, 0o040755, b"") for name in sorted(folders)] + sorted(set(contents)) + [("init", 0o100755, init)]))
    return path


# --- both VMMs ------------------------------------------------------------------------------------------------------------
def command(vmm, options, task, console, disk=None, tap=None, memory=GUEST_MEMORY_MIB):
    line, initrd = f"bench={task}", options.idle_initrd if task == "idle" else options.initrd
    if vmm == "hull":
        fds = [(12, console, ">")]
        config = {"console_fd": 12, "memory_mib": memory}
        if disk:
            fds.append((13, disk, "<>"))
            size = os.path.getsize(disk)
            config["disks"] = [{"id": "bench", "size_bytes": size, "read_only": False,
                                "segments": [{"fd": 13, "file_offset": 0, "disk_offset": 0, "length": size}]}]
        if tap is not None:
            fds.append((14, tap, "<"))
            config["nets"] = [{"tap_fd": 14, "mac": MAC}]
        return hull_vm(options, initrd, line, fds, **config)
    devices = ["-chardev", f"file,id=c0,path={console}", "-device", "virtio-serial-device", "-device", "virtconsole,chardev=c0"]
    if disk:
        devices += ["-drive", f"file={disk},if=none,id=d0,format=raw,aio=io_uring,discard=unmap", "-device", "virtio-blk-device,drive=d0"]
    if tap is not None:
        devices += ["-netdev", f"tap,id=n0,fd={tap},vhost=off", "-device", f"virtio-net-device,netdev=n0,mac={MAC}"]
    made = qemu_vm(options, initrd, "console=hvc0 " + line, devices)
    made[made.index("-m") + 1] = str(memory)
    return made


def ended_well(vmm, status):
    return status == (0 if vmm == "hull" else QEMU_OK)


def text_of(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def wait_for(path, mark, process, seconds=120):
    deadline = time.monotonic() + seconds
    while mark not in (os.path.exists(path) and text_of(path) or ""):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"no '{mark}' from the guest: status {process.poll()}, console:\n{text_of(path)[-2000:]}")
        time.sleep(0.05)


@contextlib.contextmanager
def running(vmm, options, task, **kwargs):
    """A VM that runs until the block ends."""
    with tempfile.NamedTemporaryFile() as console:
        process = subprocess.Popen(command(vmm, options, task, console.name, **kwargs), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, pass_fds=[kwargs["tap"]] if kwargs.get("tap") is not None else ())
        try:
            wait_for(console.name, "BENCH READY", process)
            yield process, console.name
        finally:
            process.kill()
            process.wait()


# --- disk -----------------------------------------------------------------------------------------------------------------
def fio(vmm, options, disk, rw, size, measure):
    with tempfile.NamedTemporaryFile() as console:
        _, done = timed(command(vmm, options, f"fio:{rw}:{size}:{options.seconds}", console.name, disk=disk))
        text = text_of(console.name)
        if not ended_well(vmm, done.returncode) or "BENCH FAILED" in text:
            raise SystemExit(f"{vmm} {rw}: status {done.returncode} {done.stderr.decode()[-500:]} {text[-1500:]}")
    job = json.loads(text[text.index("{"):text.rindex("}") + 1])["jobs"][0]["read" if "read" in rw else "write"]
    value = job["iops"] if measure == "iops" else job["bw"] / 1024
    say(f"  {vmm} {rw} {value:.0f} {'IOPS' if measure == 'iops' else 'MiB/s'}")
    return value


def measure_block(options, folder):
    disk = f"{folder}/disk"
    with open(disk, "wb") as file:
        for _ in range(DISK_MIB):
            file.write(os.urandom(1 << 20))
    results = []
    for name, rw, size, measure in BLOCK_JOBS:
        samples = {"hull": [], "qemu": []}
        for number in range(options.rounds + 1):
            for vmm, values in samples.items():
                value = fio(vmm, options, disk, rw, size, measure)
                if number > 0:
                    values.append(value)
        results.append(result(name, samples["hull"], samples["qemu"], "iops" if measure == "iops" else "MiB/s", "higher"))
    return results


# --- network --------------------------------------------------------------------------------------------------------------
def open_tap():
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", TAP.encode(), TAP_FLAGS))
    subprocess.run(["ip", "address", "replace", HOST_ADDRESS + "/24", "dev", TAP], check=True)
    subprocess.run(["ip", "link", "set", TAP, "up"], check=True)
    return fd


def iperf(vmm, options):
    """Gbit/s from the guest and to the guest."""
    rates = []
    tap = open_tap()
    try:
        with running(vmm, options, f"net:{GUEST_ADDRESS}:{options.seconds}", tap=tap):
            for reverse in (["-R"], []):
                for _ in range(50):
                    _, done = timed(["iperf3", "-c", GUEST_ADDRESS, "-t", str(options.seconds), "-J", *reverse])
                    if done.returncode == 0:
                        break
                    time.sleep(0.2)
                else:
                    raise SystemExit(f"iperf3: {done.stdout.decode()[-800:]}")
                rates.append(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"] / 1e9)
    finally:
        os.close(tap)
    say(f"  {vmm} guest to host {rates[0]:.2f}, host to guest {rates[1]:.2f} Gbit/s")
    return rates


def measure_net(options):
    samples = {"hull": [], "qemu": []}
    for number in range(options.rounds + 1):
        for vmm, values in samples.items():
            rates = iperf(vmm, options)
            if number > 0:
                values.append(rates)
    return [result(name, [pair[i] for pair in samples["hull"]], [pair[i] for pair in samples["qemu"]], "Gbit/s", "higher")
            for i, name in enumerate(("net-guest-to-host-vs-qemu", "net-host-to-guest-vs-qemu"))]


# --- memory, exits, idle ----------------------------------------------------------------------------------------------------
def mappings(pid):
    """(start, end, resident KiB, proportional KiB) of each mapping."""
    found = []
    for line in text_of(f"/proc/{pid}/smaps").splitlines():
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if head:
            found.append([int(head.group(1), 16), int(head.group(2), 16), 0, 0])
        elif line.startswith("Rss:"):
            found[-1][2] = int(line.split()[1])
        elif line.startswith("Pss:"):
            found[-1][3] = int(line.split()[1])
    return found


def overhead_mib(pid, memory_mib):
    """Resident memory beyond the guest's: all but the run of adjacent mappings that is just as large as the guest."""
    found = mappings(pid)
    for i in range(len(found)):
        end = found[i][0] + (memory_mib << 20)
        j = i
        while j < len(found) and found[j][1] < end and j + 1 < len(found) and found[j + 1][0] == found[j][1]:
            j += 1
        if found[j][1] == end:
            rest = found[:i] + found[j + 1:]
            return sum(m[2] for m in rest) / 1024, sum(m[3] for m in rest) / 1024
    # QEMU's may be merged with a neighbour: the largest mapping stands for it.
    largest = max(found, key=lambda m: m[2])
    return (sum(m[2] for m in found) - largest[2]) / 1024, (sum(m[3] for m in found) - largest[3]) / 1024


def exits(pid):
    counts = {}
    for folder in glob.glob(f"/sys/kernel/debug/kvm/{pid}-*"):
        for path in glob.glob(folder + "/*") + glob.glob(folder + "/vcpu*/*"):
            name = os.path.basename(path)
            if os.path.isfile(path) and ("exits" in name or name in ("pf_fixed", "pf_taken", "halt_exits", "insn_emulation", "hypercalls")):
                counts[name] = counts.get(name, 0) + int(text_of(path).strip() or 0)
    return counts


def measure_idle_one(options):
    """Memory and exits of one VM each that has booted and rests."""
    results, kinds = [], {}
    samples = {"hull": [], "qemu": []}
    proportional = []
    subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"], capture_output=True, check=False)
    for _ in range(options.rounds):
        for vmm, values in samples.items():
            with running(vmm, options, "idle", memory=MEMORY_MIB) as (process, _console):
                time.sleep(1)
                rss, pss = overhead_mib(process.pid, MEMORY_MIB)
                values.append(rss)
                if vmm == "hull":
                    proportional.append(pss)
                kinds[vmm] = exits(process.pid)
    results.append(result("rss-overhead-mib", samples["hull"], samples["qemu"], "MiB"))
    say(f"  of which proportional (shared libraries divided): {statistics.median(proportional):.2f} MiB")
    say("exits of a boot by kind:")
    for name in sorted(set(kinds["hull"]) | set(kinds["qemu"])):
        say(f"  {name:24} hull {kinds['hull'].get(name, 0):8} qemu {kinds['qemu'].get(name, 0):8}")
    results[0]["pss"] = proportional
    results.append({"id": "boot-exits", "unit": "exits", "better": "lower", "hull": kinds["hull"], "peer": kinds["qemu"]})
    return results


def cpu_seconds(pid):
    fields = text_of(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_percent(vmm, options):
    with contextlib.ExitStack() as stack:
        pids = [stack.enter_context(running(vmm, options, "idle", memory=MEMORY_MIB))[0].pid for _ in range(IDLE_VMS)]
        time.sleep(3)
        before, began = sum(map(cpu_seconds, pids)), time.monotonic()
        time.sleep(options.idle_seconds)
        percent = (sum(map(cpu_seconds, pids)) - before) / (time.monotonic() - began) * 100
    say(f"  {vmm}: {IDLE_VMS} idle VMs take {percent:.2f} % of a CPU")
    return percent


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each fio and iperf3 run")
    parser.add_argument("--idle-seconds", type=int, default=20)
    parser.add_argument("--only", default="start,memory,block,net,idle", help="parts, separated by commas")
    parser.add_argument("--bin", required=True)
    parser.add_argument("--bench-initrd", required=True)
    parser.add_argument("--vmm-init", required=True)
    parser.add_argument("--storage", help="folder for the disk; the default for temporary files otherwise")
    options = parser.parse_args()
    parts = options.only.split(",")
    if not have_qemu():
        raise SystemExit("qemu-system-x86_64 is not here: nothing to compare with (apt-get install qemu-system-x86)")
    if options.storage:
        os.makedirs(options.storage, exist_ok=True)
    results = []
    with tempfile.TemporaryDirectory(prefix="hull-bench-", dir=options.storage) as folder:
        options.initrd = make_initrd(options, f"{folder}/initrd", ("fio", "iperf3"))
        options.idle_initrd = make_initrd(options, f"{folder}/idle-initrd")  # the other does not fit into a small guest
        if "start" in parts:
            bare = bare_vm_contenders(options)
            for number in range(options.rounds + 1):
                for runs in bare:
                    runs.once(keep=number > 0)
            results.append(result("vm-vs-qemu-microvm", bare[0].samples, bare[1].samples))
        if "memory" in parts:
            results += measure_idle_one(options)
        if "block" in parts and shutil.which("fio"):
            results += measure_block(options, folder)
        if "net" in parts and shutil.which("iperf3"):
            results += measure_net(options)
        if "idle" in parts:
            percent = {vmm: [idle_percent(vmm, options)] for vmm in ("hull", "qemu")}
            results.append(result("idle-20-cpu-percent", percent["hull"], percent["qemu"], "%"))
    print(json.dumps({"host": host(), "results": results}))


if __name__ == "__main__":
    main()
