#!/usr/bin/env python3
"""Many containers through an engine, and a count of what they leave behind: soak.py --host SOCKET --pid HULLD [--root FOLDER]
[--cycles N] [--parallel N]. Prints one JSON object; status 1 when anything is left.

A first, uncounted round brings caches and pools to their size. Counted before and after the rest: the engine's descriptors,
threads and memory, processes of this host, network interfaces, mounts, files of the engine's folder, packet filter rules.
"""
import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

KEPT_MEMORY_KIB = 16 * 1024  # an allocator does not give every page back
SETTLE_SECONDS = 30


class Api(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("hull", timeout=300)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def call(path, method, target, body=None):
    connection = Api(path)
    try:
        connection.request(method, target, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {target}: {answer.status} {text[:300]!r}")
        return json.loads(text) if text.strip() else None
    finally:
        connection.close()


def cycle(path, image, number):
    """create, start, wait, logs, remove."""
    made = call(path, "POST", "/containers/create", {"Image": image, "Cmd": ["sh", "-c", f"echo {number}; exit 3"]})["Id"]
    call(path, "POST", f"/containers/{made}/start")
    code = call(path, "POST", f"/containers/{made}/wait")["StatusCode"]
    connection = Api(path)
    connection.request("GET", f"/containers/{made}/logs?stdout=1")
    logs = connection.getresponse().read()
    connection.close()
    call(path, "DELETE", f"/containers/{made}?v=1")
    if code != 3 or logs[8:] != f"{number}\n".encode():
        raise RuntimeError(f"container {number}: code {code}, logs {logs!r}")


class StuckReaders:
    """Clients that ask for everything and never read: they must hold nothing up."""

    def __init__(self, path, image):
        self.path = path
        self.box = call(path, "POST", "/containers/create", {"Image": image, "Cmd": ["sh", "-c", "while true; do head -c 65536 /dev/zero | tr '\\0' x; done"],
                                                           "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}}})["Id"]
        call(path, "POST", f"/containers/{self.box}/start")
        self.clients = []
        for target in (f"/containers/{self.box}/logs?stdout=1&follow=1", "/events", f"/containers/{self.box}/stats"):
            connection = Api(path)
            connection.request("GET", target)
            self.clients.append(connection)

    def close(self):
        for client in self.clients:
            client.close()
        call(self.path, "DELETE", f"/containers/{self.box}?force=1")


def lines_of(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return len(done.stdout.splitlines()) if done.returncode == 0 else 0


def counts(pid, root):
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    below = [child for child in pathlib.Path("/proc").iterdir() if child.name.isdigit() and is_below(child, pid)]
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
        "memory_kib": int(status["VmRSS"].split()[0]),
        "processes": len(below),
        "interfaces": len(os.listdir("/sys/class/net")),
        "mounts": len(pathlib.Path(f"/proc/{pid}/mounts").read_text().splitlines()),
        "files": sum(len(files) for _, _, files in os.walk(root)) if root else 0,
        "rules": lines_of("nft", "list", "ruleset"),
    }


def is_below(folder, pid):
    try:
        text = (folder / "stat").read_text()
    except OSError:
        return False
    return int(text.rsplit(")", 1)[1].split()[1]) == pid


def leftovers(before, after):
    return {key: (before[key], after[key]) for key in before
            if after[key] > before[key] + (KEPT_MEMORY_KIB if key == "memory_kib" else 0)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--root", default="")
    parser.add_argument("--image", default="debian")
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--parallel", type=int, default=50)
    options = parser.parse_args()
    path = options.host.removeprefix("unix://")

    def round_of(count):
        with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:
            list(pool.map(lambda number: cycle(path, options.image, number), range(count)))

    round_of(min(options.cycles, 2 * options.parallel))
    before = counts(options.pid, options.root)
    stuck = StuckReaders(path, options.image)
    began = time.monotonic()
    round_of(options.cycles)
    took = time.monotonic() - began
    stuck.close()
    deadline = time.monotonic() + SETTLE_SECONDS
    while (left := leftovers(before, after := counts(options.pid, options.root))) and time.monotonic() < deadline:
        time.sleep(0.5)  # the last connections' threads end
    results = [{"id": "soak-kinds-left", "unit": "kinds of things", "better": "lower", "value": len(left)},
               {"id": "soak-memory-growth-kib", "unit": "KiB", "better": "lower", "value": after["memory_kib"] - before["memory_kib"]},
               {"id": "soak-runs-per-second", "unit": "1/s", "better": "higher", "value": round(options.cycles / took, 2)}]
    host = {"cpus": os.cpu_count(), "kernel": os.uname().release, "load": os.getloadavg()[0]}
    print(json.dumps({"host": host, "cycles": options.cycles, "parallel": options.parallel, "before": before, "after": after, "left": left, "results": results}))
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
