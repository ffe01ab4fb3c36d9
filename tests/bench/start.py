#!/usr/bin/env python3
"""How long `run true` takes, against docker and podman, and a bare VM against QEMU's microvm machine.

Runs on the host whose engines are compared (scripts/bench copies it into `hull machine` where there is no hardware
virtualization). Each round runs every contender once, in turn, so that noise meets all alike. Prints one JSON object.
"""
import argparse
import json
import shutil
import subprocess
import tempfile

from common import Runs, bare_vm_contenders, host, result, say, start_dockerd


def container_contenders(options):
    image = options.image
    contenders = {"hull": lambda net: [options.hull, "run", "--rm", *net, image, "true"]}
    archive = tempfile.NamedTemporaryFile(suffix=".tar")
    subprocess.run([options.hull, "save", "-o", archive.name, image], check=True)
    if shutil.which("docker") and start_dockerd(options.storage):
        subprocess.run(["docker", "load", "-q", "-i", archive.name], check=True, stdout=subprocess.DEVNULL)
        contenders["docker"] = lambda net: ["docker", "run", "--rm", *net, image, "true"]
    if shutil.which("podman"):
        podman = ["podman", *(["--root", options.storage + "/podman"] if options.storage else [])]
        subprocess.run([*podman, "load", "-q", "-i", archive.name], check=True, stdout=subprocess.DEVNULL)
        contenders["podman"] = lambda net: [*podman, "run", "--rm", *net, image, "true"]
    return contenders


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
                results.append(result(f"run-vs-{peer}{suffix}", group["hull"].samples, group[peer].samples))
            else:
                say(f"run-vs-{peer}{suffix}: skipped, {peer} is not here")
    if len(bare) == 2:
        results.append(result("vm-vs-qemu-microvm", bare[0].samples, bare[1].samples))
    print(json.dumps({"host": host(), "results": results}))


if __name__ == "__main__":
    main()
