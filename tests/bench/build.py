#!/usr/bin/env python3
"""How long builds take, against docker's classic builder and buildah on the same Dockerfiles.

Runs on the host whose builders are compared (scripts/bench copies it into `hull machine` where there is no hardware
virtualization). In each round every builder does every case once, in turn, so that noise meets all alike. A cold build never
finds its steps: a build argument that is new each time is used by the first of them. Prints one JSON object.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid

from common import host, say, start_dockerd

SECONDS = 3600
COLD_TARGET = 1.0
TARGETS = {"unchanged": 0.3, "lastline": 0.7}


def run(command, **kwargs):
    began = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False, **kwargs)
    took = time.monotonic() - began
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: status {done.returncode}: {done.stdout.decode()[-500:]} {done.stderr.decode()[-1500:]}")
    return took


class Case:
    """A folder with a Dockerfile, and what changes in it before each build."""

    def __init__(self, folder, name, image, dockerfile, files=0, many=0, change=None, warm=False):
        self.folder, self.name, self.change, self.warm = folder / name, name, change, warm
        self.folder.mkdir()
        (self.folder / "Dockerfile").write_text(dockerfile.replace("BASE", image))
        for number in range(files):
            (self.folder / f"f{number}").write_text(f"{number}\n" * 100)
        for number in range(many):
            path = self.folder / "tree" / f"d{number // 250}" / f"f{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number}\n")
        (self.folder / "last").write_text("0\n")

    def build(self, builder, nonce):
        if self.change:
            (self.folder / "last").write_text(f"{uuid.uuid4()}\n")
        return run([*builder, "--build-arg", f"NONCE={nonce}", "-t", f"bench-{self.name}", str(self.folder)])


def cases(folder, image, files):
    step = "ARG NONCE\nRUN echo $NONCE >/nonce\n"
    ten = "FROM BASE\n" + step + "".join(f"RUN echo {n} >/file-{n}\n" for n in range(9))
    heavy = "RUN echo $NONCE; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo $i >/done\n"
    last = "FROM BASE\n" + step + "".join(f"RUN echo {n} >/file-{n}\n" for n in range(4)) + "COPY last /last\nRUN cat /last >/copied\n"
    return [
        Case(folder, "10run", image, ten),
        Case(folder, "copy", image, "FROM BASE\nARG NONCE\nENV N=$NONCE\n" + "".join(f"COPY f{n} /files/f{n}\n" for n in range(30)), files=30),
        Case(folder, "context", image, "FROM BASE\nARG NONCE\nENV N=$NONCE\nCOPY tree /tree\n", many=files),
        Case(folder, "unchanged", image, ten, warm=True),
        Case(folder, "lastline", image, last, warm=True, change=True),
        Case(folder, "parallel", image, "FROM BASE AS a\nARG NONCE\n" + heavy + "FROM BASE AS b\nARG NONCE\n" + heavy +
             "FROM BASE\nCOPY --from=a /done /a\nCOPY --from=b /done /b\n"),
    ]


def builders(options):
    hull = [options.bin + "/hull"]
    found = {"hull": [*hull, "build", "-q"]}
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        run([*hull, "save", "-o", archive.name, options.image])
        if shutil.which("docker") and start_dockerd(options.storage):
            run(["docker", "load", "-q", "-i", archive.name])
            found["docker"] = ["env", "DOCKER_BUILDKIT=0", "docker", "build", "-q"]
        if shutil.which("buildah"):
            root = ["--root", options.storage + "/buildah"] if options.storage else []
            run(["buildah", *root, "pull", "-q", f"docker-archive:{archive.name}"])
            found["buildah"] = ["buildah", *root, "build", "--layers", "--pull-never", "-q"]
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="cases with commas between: 10run, copy, context, unchanged, lastline, parallel")
    parser.add_argument("--files", type=int, default=50_000, help="in the large context")
    parser.add_argument("--image", default="debian:bookworm-slim")
    parser.add_argument("--storage", help="folder for the peers' images; their own by default")
    parser.add_argument("--bin", required=True)
    parser.add_argument("--bench-initrd", help="not used here")
    options = parser.parse_args()
    found = builders(options)
    samples = {}
    with tempfile.TemporaryDirectory(prefix="hull-bench-", dir=options.storage) as folder:
        everything = cases(pathlib.Path(folder), options.image, options.files)
        if options.only:
            wanted = options.only.split(",")
            if unknown := set(wanted) - {case.name for case in everything}:
                raise SystemExit(f"--only {options.only}: there is no case {', '.join(sorted(unknown))}")
            everything = [case for case in everything if case.name in wanted]
        say("warming up")
        for case in everything:
            for name, builder in found.items():
                case.build(builder, "warm")
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            for case in everything:
                for name, builder in found.items():
                    took = case.build(builder, "warm" if case.warm else uuid.uuid4())
                    samples.setdefault(case.name, {}).setdefault(name, []).append(took)
                    say(f"  {case.name:10} {name:8} {took:8.3f} s")
    results = []
    for case, by_builder in samples.items():
        peers = {name: times for name, times in by_builder.items() if name != "hull"}
        if not peers:
            say(f"build-{case}-vs-best: skipped, neither docker nor buildah is here")
            continue
        best = min(peers, key=lambda name: statistics.median(peers[name]))
        ratios = [h / p for h, p in zip(by_builder["hull"], peers[best])]
        ratio = statistics.median(ratios)
        say(f"build-{case}-vs-best: hull {statistics.median(by_builder['hull']):.3f} s, {best} {statistics.median(peers[best]):.3f} s, "
            f"ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), aim {TARGETS.get(case, COLD_TARGET)}")
        results.append({"id": f"build-{case}-vs-best", "unit": "s", "better": "lower", "hull": by_builder["hull"], "peer": peers[best],
                        "peer_name": best, "ratio": ratio, "target": TARGETS.get(case, COLD_TARGET)})
    print(json.dumps({"host": host(), "results": results}))


if __name__ == "__main__":
    main()
