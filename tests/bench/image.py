#!/usr/bin/env python3
"""Pulling an image until it can run, with Hull, podman, docker and containerd's ctr; and what stitching costs.

All on this host, from one hull-registry, with stores on one file system. Two images: a big one (500 MB unpacked, 20 gzip
layers), and one of 50,000 small files (10 gzip layers). Each round, every contender pulls each into an empty store, in turn.
Docker, podman and ctr have unpacked an image when their pull returns; Hull's disk is stitched when a container first starts,
so its sample is `pull`, `create` and `start`, over a machine of local processes (hulld-fake), which has no boot time.
A peer that this host does not let run is named and left out. Prints one JSON object.
"""
import argparse
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

SECONDS = 900
START_SECONDS = 30
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
BIG_BYTES, BIG_LAYERS, BIG_FILE_BYTES = 500 << 20, 20, 1 << 20
SMALL_FILES, SMALL_LAYERS, FILES_PER_FOLDER = 50_000, 10, 200
PULL_AIM, STITCH_AIMS = 0.5, {50_000: ("stitch-50k-s", 0.3), 1_000_000: ("stitch-1m-s", 6.0)}


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# --- the images --------------------------------------------------------------------------------------------------------
def text_like(numbers, size):
    """Bytes that gzip makes about two and a half times smaller, as programs and texts are."""
    words = [numbers.randbytes(numbers.randint(3, 9)) for _ in range(600)]
    piece = b"".join(numbers.choices(words, k=size // 6 + 1))
    while len(piece) < size:
        piece += b"".join(numbers.choices(words, k=size // 6 + 1))
    return piece[:size]


def layer_of(files):
    """A gzip layer of (name, bytes) pairs: its bytes, and the digest of its tar."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_700_000_000
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), 6, mtime=0), "sha256:" + hashlib.sha256(plain.getvalue()).hexdigest()


def big_layers():
    numbers = random.Random(1)
    base = text_like(numbers, BIG_FILE_BYTES)
    for layer in range(BIG_LAYERS):
        files = []
        for number in range(BIG_BYTES // BIG_LAYERS // BIG_FILE_BYTES):
            fresh = text_like(numbers, BIG_FILE_BYTES // 8)
            turn = numbers.randrange(len(base))
            content = (fresh + base[turn:] + base[:turn])[:BIG_FILE_BYTES]
            files.append((f"usr/lib/layer-{layer}/library-{number}.so", content))
        yield layer_of(files)


def small_layers():
    numbers = random.Random(2)
    pool = text_like(numbers, 1 << 20)
    for layer in range(SMALL_LAYERS):
        files = []
        for number in range(SMALL_FILES // SMALL_LAYERS):
            at, size = numbers.randrange(len(pool) - 8192), numbers.randint(50, 8000)
            files.append((f"usr/share/layer-{layer}/package-{number // FILES_PER_FOLDER}/some-file-{number}.txt", pool[at:at + size]))
        yield layer_of(files)


def layout(folder, layers):
    """An OCI layout with one image."""
    os.makedirs(f"{folder}/blobs/sha256")

    def blob(content, media_type):
        digest = hashlib.sha256(content).hexdigest()
        with open(f"{folder}/blobs/sha256/{digest}", "wb") as file:
            file.write(content)
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(content)}

    blobs, diff_ids = [], []
    for content, diff_id in layers:
        blobs.append(blob(content, LAYER))
        diff_ids.append(diff_id)
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"], "Env": ["PATH=/usr/bin:/bin"]},
              "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": blob(json.dumps(config).encode(), CONFIG), "layers": blobs}
    index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), MANIFEST)]}
    with open(f"{folder}/index.json", "w", encoding="ascii") as file:
        json.dump(index, file)
    with open(f"{folder}/oci-layout", "w", encoding="ascii") as file:
        file.write('{"imageLayoutVersion":"1.0.0"}')


# --- the contenders ----------------------------------------------------------------------------------------------------
class Service:
    """A daemon with an empty store of its own, for one pull."""

    def __init__(self, command, ready, log):
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(ready, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise OSError(f"{command[0]} did not start; its log is {log.name}")
            time.sleep(0.05)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Contender:
    name = ""

    def __init__(self, options):
        self.options, self.samples = options, {}

    def missing(self):
        return [p for p in self.programs() if not shutil.which(p)]

    def programs(self):
        return []

    def service(self, folder, log):  # what must run meanwhile
        return None

    def commands(self, folder, image):
        raise NotImplementedError

    def once(self, image, folder):
        os.makedirs(folder)
        log = open(f"{self.options.work}/{self.name}.log", "ab")
        service = self.service(folder, log)
        try:
            began = time.monotonic()
            for command in self.commands(folder, image):
                done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
                if done.returncode != 0:
                    raise OSError(f"{' '.join(command)}: status {done.returncode}: {done.stderr.decode()[-400:]}")
            return time.monotonic() - began
        finally:
            if service:
                service.stop()
            log.close()
            subprocess.run(f"for m in $(grep -o '{folder}[^ ]*' /proc/mounts | sort -r); do umount -l $m; done", shell=True, check=False)
            shutil.rmtree(folder, ignore_errors=True)


class Hull(Contender):
    name = "hull"

    def hull(self, folder, *arguments):
        return [f"{self.options.bin}/hull", "-H", f"unix://{folder}/s", *arguments]

    def service(self, folder, log):
        return Service([self.options.fake, f"{folder}/root", f"{folder}/s"], self.hull(folder, "version"), log)

    def commands(self, folder, image):
        return [self.hull(folder, "pull", "-q", image), self.hull(folder, "create", "--name", "bench", image, "true"), self.hull(folder, "start", "bench")]


class Docker(Contender):
    name = "docker"

    def programs(self):
        return ["dockerd", "docker"]

    def docker(self, folder, *arguments):
        return ["docker", "-H", f"unix://{folder}/s", *arguments]

    def service(self, folder, log):
        return Service(["dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid", "-H", f"unix://{folder}/s",
                        "--bridge", "none", "--iptables=false", "--ip6tables=false"], self.docker(folder, "version"), log)

    def commands(self, folder, image):
        return [self.docker(folder, "pull", "-q", image)]


class Podman(Contender):
    name = "podman"

    def programs(self):
        return ["podman"]

    def commands(self, folder, image):
        # podman takes no runroot of more than 50 characters.
        runroot = f"/tmp/hull-bench-podman-{os.getpid()}"
        return [["podman", "--root", f"{folder}/root", "--runroot", runroot, "pull", "-q", "--tls-verify=false", image]]


class Ctr(Contender):
    name = "ctr"

    def programs(self):
        return ["containerd", "ctr"]

    def ctr(self, folder, *arguments):
        return ["ctr", "-a", f"{folder}/s", *arguments]

    def service(self, folder, log):
        return Service(["containerd", "--root", f"{folder}/root", "--state", f"{folder}/state", "--address", f"{folder}/s"], self.ctr(folder, "version"), log)

    def commands(self, folder, image):
        return [self.ctr(folder, "images", "pull", "--plain-http", image)]


def usable(contender, image, folder):
    """One unmeasured pull; why not, on standard error."""
    missing = contender.missing()
    if missing:
        say(f"  {contender.name}: left out, not installed: {', '.join(missing)}")
        return False
    try:
        contender.once(image, folder)
        return True
    except OSError as error:
        say(f"  {contender.name}: left out: {error}")
        return False


# --- the figures -------------------------------------------------------------------------------------------------------
def compared(name, samples):
    """Hull against the peer with the best median, pair by pair."""
    hull = samples.pop("hull")
    best = min(samples, key=lambda peer: statistics.median(samples[peer]))
    ratios = [h / p for h, p in zip(hull, samples[best])]
    ratio = statistics.median(ratios)
    others = ", ".join(f"{peer} {statistics.median(taken):.2f}" for peer, taken in samples.items())
    say(f"{name}: hull {statistics.median(hull):.2f} s; {others}; ratio to {best} {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), aim {PULL_AIM}")
    return {"id": name, "unit": "s", "better": "lower", "hull": hull, "peer": samples[best], "peer_name": best, "ratio": ratio, "target": PULL_AIM, "others": samples}


def pulls(options, port):
    results = []
    for name, layers, tag in (("pull-vs-best", big_layers, "big"), ("pull-small-files-vs-best", small_layers, "small")):
        say(f"making the image {tag}")
        layout(f"{options.work}/{tag}", layers())
        image = f"localhost:{port}/bench:{tag}"
        subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{options.work}/{tag}", f"docker://{image}"], check=True)
        shutil.rmtree(f"{options.work}/{tag}")
        contenders = [c for c in (kind(options) for kind in (Hull, Podman, Docker, Ctr)) if usable(c, image, f"{options.work}/{c.name}")]
        if [c.name for c in contenders] == ["hull"] or not contenders or contenders[0].name != "hull":
            raise SystemExit("nobody to compare with, or Hull itself does not pull; see above")
        samples = {c.name: [] for c in contenders}
        for number in range(options.rounds):
            for contender in contenders if number % 2 else contenders[::-1]:
                took = contender.once(image, f"{options.work}/{contender.name}")
                samples[contender.name].append(took)
                say(f"  {tag} {contender.name:8} {took:7.2f} s")
        results.append(compared(name, samples))
    return results


def stitching(options):
    measured = json.loads(subprocess.run([options.stitch_bench, *map(str, STITCH_AIMS)], check=True, capture_output=True).stdout)
    results = []
    for files, (name, aim) in STITCH_AIMS.items():
        samples = measured[str(files)]["cpu_s"]
        say(f"{name}: {statistics.median(samples):.3f} s of one core ({min(samples):.3f} to {max(samples):.3f}), aim {aim}; best round: {measured[str(files)]['best']}")
        results.append({"id": name, "unit": "s", "better": "lower", "value": statistics.median(samples), "hull": samples, "target": aim})
    return results


def host():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="ascii", errors="replace") if line.startswith("model name")), "")
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": os.uname().release, "load": os.getloadavg()[0]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--fake", required=True, help="hulld-fake")
    parser.add_argument("--stitch-bench", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where everybody keeps their files; a temporary folder by default")
    options = parser.parse_args()
    options.work = tempfile.mkdtemp(prefix="hull-bench-image.", dir=options.folder)
    port = free_port()
    log = open(f"{options.work}/registry.log", "ab")
    registry = None
    try:
        results = stitching(options)
        registry = Service([f"{options.bin}/hull-registry", "serve", "--listen", f"127.0.0.1:{port}", "--root", f"{options.work}/registry", "--access-log", "none"],
                           ["curl", "-sf", f"http://127.0.0.1:{port}/v2/"], log)
        results += pulls(options, port)
    finally:
        if registry:
            registry.stop()
        log.close()
        shutil.rmtree(options.work, ignore_errors=True)
    print(json.dumps({"host": host(), "results": results}))


if __name__ == "__main__":
    main()
