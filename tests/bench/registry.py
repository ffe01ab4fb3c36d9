#!/usr/bin/env python3
"""hull-registry against Debian's docker-registry: pushing and pulling one large blob over one connection, manifests per
second over one connection, memory.

Both run on this host, on folders of one file system; each round asks both, in turn, for the same bytes. The client is a
plain socket, so that the servers are measured and not a client. Prints one JSON object.
"""
import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
START_SECONDS = 20


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def ask(self, method, target, headers=(), body=b"", file=None):
        size = os.fstat(file.fileno()).st_size if file else len(body)
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n" + "".join(f"{h}\r\n" for h in headers) + "\r\n"
        self.socket.sendall(head.encode() + body)
        if file:
            self.socket.sendfile(file)
        return self.head()

    def head(self):
        while b"\r\n\r\n" not in self.rest:
            got = self.socket.recv(65536)
            if not got:
                raise SystemExit("the server closed the connection")
            self.rest += got
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        fields = dict(re.findall(r"(?m)^([\w-]+): *(.*?)\r?$", head.decode().lower().replace("\r", "")))
        self.left = int(fields.get("content-length", 0))
        location = re.search(rb"(?im)^location: *(.*?)\r?$", head)
        return int(head.split()[1]), location[1].decode().strip() if location else ""

    def skip(self, buffer):
        self.left -= len(self.rest)
        self.rest = b""
        while self.left > 0:
            got = self.socket.recv_into(buffer, min(self.left, len(buffer)))
            if not got:
                raise SystemExit("the server closed the connection in the middle of a body")
            self.left -= got


class Server:
    """One contender, with the samples of what it did."""

    def __init__(self, name, command, port):
        self.name, self.port = name, port
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.samples = {"push": [], "pull": [], "manifest": []}
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{name} did not start") from None
                time.sleep(0.05)

    def push(self, path, digest):
        connection = Connection(self.port)
        began = time.monotonic()
        status, location = connection.ask("POST", "/v2/bench/blobs/uploads/")
        assert status == 202, status
        target = re.sub(r"^https?://[^/]*", "", location)
        with open(path, "rb") as file:
            status, _ = connection.ask("PUT", target + ("&" if "?" in target else "?") + "digest=" + digest.replace(":", "%3A"),
                                       ["Content-Type: application/octet-stream"], file=file)
        assert status == 201, status
        return time.monotonic() - began

    def pull(self, digest, size, buffer):
        connection = Connection(self.port)
        began = time.monotonic()
        status, _ = connection.ask("GET", f"/v2/bench/blobs/{digest}")
        assert status == 200 and connection.left == size, (status, connection.left)
        connection.skip(buffer)
        return time.monotonic() - began

    def manifests(self, count, buffer):
        connection = Connection(self.port)
        began = time.monotonic()
        for _ in range(count):
            status, _ = connection.ask("GET", "/v2/bench/manifests/latest", [f"Accept: {MANIFEST}"])
            assert status == 200, status
            connection.skip(buffer)
        return time.monotonic() - began

    def put_manifest(self, digest, size):
        blob = {"mediaType": "application/octet-stream", "digest": digest, "size": size}
        body = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": blob, "layers": [blob]}).encode()
        status, _ = Connection(self.port).ask("PUT", "/v2/bench/manifests/latest", [f"Content-Type: {MANIFEST}"], body)
        assert status == 201, status

    def memory(self, field):
        for line in open(f"/proc/{self.process.pid}/status", encoding="ascii"):
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
        raise SystemExit(f"no {field} of {self.name}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def host():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="ascii", errors="replace") if line.startswith("model name")), "")
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": os.uname().release, "load": os.getloadavg()[0]}


def compared(name, unit, hull, peer, target):
    ratios = [h / p for h, p in zip(hull, peer)]
    ratio = statistics.median(ratios)
    say(f"{name}: hull {statistics.median(hull):.0f} {unit}, docker-registry {statistics.median(peer):.0f} {unit}, "
        f"ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), aim {target}")
    return {"id": name, "unit": unit, "better": "higher", "hull": hull, "peer": peer, "ratio": ratio, "target": target}


def measure(options):
    work = tempfile.mkdtemp(prefix="hull-bench-registry.", dir=options.folder)
    servers = []
    try:
        ports = free_port(), free_port()
        with open(f"{work}/config.yml", "w", encoding="ascii") as file:
            file.write(f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
                       f"storage: {{filesystem: {{rootdirectory: {work}/peer}}}}\nhttp: {{addr: '127.0.0.1:{ports[1]}'}}\n")
        servers.append(Server("hull-registry", [f"{options.bin}/hull-registry", "serve", "--listen", f"127.0.0.1:{ports[0]}",
                                                "--root", f"{work}/hull", "--access-log", "none"], ports[0]))
        servers.append(Server("docker-registry", ["docker-registry", "serve", f"{work}/config.yml"], ports[1]))
        size, buffer, path = options.mib << 20, bytearray(1 << 20), f"{work}/blob"
        for number in range(options.rounds + 1):  # the first is a warm-up
            with open(path, "wb") as file:
                for _ in range(options.mib):
                    file.write(os.urandom(1 << 20))
                os.fsync(file.fileno())
            digest = "sha256:" + hashlib.sha256(open(path, "rb").read()).hexdigest()
            for server in servers if number % 2 else servers[::-1]:
                took = {"push": server.push(path, digest)}
                if number == 0:
                    server.put_manifest(digest, size)
                took["pull"] = server.pull(digest, size, buffer)
                took["manifest"] = server.manifests(options.manifests, buffer)
                say(f"  {server.name:16} push {took['push']:.2f} s, pull {took['pull']:.2f} s, {options.manifests} manifests {took['manifest']:.2f} s")
                if number:
                    server.samples["push"].append(options.mib / took["push"])
                    server.samples["pull"].append(options.mib / took["pull"])
                    server.samples["manifest"].append(options.manifests / took["manifest"])
        ours, peer = servers
        results = [compared(f"registry-{what}-vs-distribution", unit, ours.samples[key], peer.samples[key], target)
                   for what, key, unit, target in (("push", "push", "MiB/s", 3), ("pull", "pull", "MiB/s", 1), ("manifest-get", "manifest", "1/s", 10))]
        memory = ours.memory("VmHWM")
        say(f"registry-rss-mib: hull {memory:.1f} MiB at most, docker-registry {peer.memory('VmHWM'):.1f} MiB, aim 30")
        results.append({"id": "registry-rss-mib", "unit": "MiB", "better": "lower", "value": memory, "peer": peer.memory("VmHWM"), "target": 30})
        return results
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(work)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=256, help="size of the blob")
    parser.add_argument("--manifests", type=int, default=2000)
    parser.add_argument("--folder", help="where both keep their files; a temporary folder by default")
    options = parser.parse_args()
    if not shutil.which("docker-registry"):
        raise SystemExit("docker-registry is not installed")
    print(json.dumps({"host": host(), "results": measure(options)}))


if __name__ == "__main__":
    main()
