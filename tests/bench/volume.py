#!/usr/bin/env python3
"""Volumes and bind mounts against docker's on the same host: pgbench on a volume (Hull's folder and its disk), `git status` in a bind
mount, and unpacking and removing many small files there, which is what `npm install` asks of a file system.

Needs root. Both engines run the same image, made of this host's programs; both have their containers up all the time and are asked in
turn. Prints one JSON object.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile

from common import BothEngines, Shell, host, image_of, result, say, wait_until

DATABASE = ("[ -s /data/db/PG_VERSION ] || { mkdir -p /data/db && chown postgres /data/db && chmod 700 /data/db; "
            "su -s /usr/local/bin/sh postgres -c 'initdb -D /data/db -A trust --locale=C -E UTF8 --no-sync' >/dev/null; }; "
            "exec su -s /usr/local/bin/sh postgres -c 'exec postgres -D /data/db -c jit=off -c listen_addresses= -c unix_socket_directories=/tmp'")


def make_repository(folder, files):
    subprocess.run(["git", "init", "-q", folder], check=True)
    for number in range(files):
        path = f"{folder}/d{number // 50}/f{number}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{number}\n" * 20)
    subprocess.run(["git", "-C", folder, "add", "."], check=True)
    subprocess.run(["git", "-C", folder, "-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "-q", "-m", "all"], check=True)
    subprocess.run(["tar", "-C", folder, "--exclude=.git", "-cf", f"{folder}/.git/files.tar", "."], check=True)


class Database:
    """PostgreSQL on one kind of volume, with pgbench beside it."""

    def __init__(self, engine, label, volume):
        self.engine, self.label, self.tps = engine, label, []
        self.name = engine.run(f"bench-{label}", "-v", f"{volume}:/data", "-m", "384m", command=["sh", "-c", DATABASE])
        self.shell = Shell(engine, self.name)
        wait_until(lambda: "accepting" in self.shell("pg_isready -h /tmp")[0], f"PostgreSQL of {label} answers")
        self.shell("pgbench -h /tmp -U postgres -q -i -s 1 postgres 2>/dev/null")

    def measure(self, seconds, keep):
        text, _ = self.shell(f"pgbench -h /tmp -U postgres -n -c 1 -T {seconds} postgres 2>&1")
        found = re.search(r"tps = ([0-9.]+)", text)
        if not found:
            raise SystemExit(f"pgbench of {self.label}: {text[-800:]}")
        say(f"  {self.label:12} pgbench {float(found[1]):9.2f} tps")
        if keep:
            self.tps.append(float(found[1]))


class Tree:
    """A git repository in a bind mount."""

    def __init__(self, engine, folder, files):
        self.engine, self.samples = engine, {"git-status-bind-vs-docker": [], "small-files-bind-vs-docker": []}
        make_repository(folder, files)
        name = engine.run("bench-tree", "-v", f"{folder}:/work", "-m", "384m", "-e", "GIT_CONFIG_COUNT=1", "-e", "GIT_CONFIG_KEY_0=safe.directory",
                          "-e", "GIT_CONFIG_VALUE_0=*", command=["sleep", "1000000"])
        self.shell = Shell(engine, name)

    def measure(self, keep):
        text, status = self.shell("git -C /work status --porcelain")
        if text.strip():
            raise SystemExit(f"git status of {self.engine.name} is not clean: {text[:500]}")
        _, unpack = self.shell("mkdir /work/copy && tar -C /work/copy -xf /work/.git/files.tar && rm -r /work/copy")
        for name, value in zip(self.samples, (status, unpack)):
            say(f"  {self.engine.name:12} {name} {value:8.3f} s")
            if keep:
                self.samples[name].append(value)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10, help="of each pgbench run")
    parser.add_argument("--files", type=int, default=2000, help="in the repository")
    parser.add_argument("--only", default="pgbench,tree", help="parts, separated by commas")
    parser.add_argument("--storage", help="folder for images and volumes; the default for temporary files otherwise")
    parser.add_argument("--bin", required=True)
    parser.add_argument("--bench-initrd", help="not used here")
    options = parser.parse_args()
    if options.storage:
        os.makedirs(options.storage, exist_ok=True)
    postgres = "/usr/lib/postgresql/15"
    programs = [shutil.which("git"), *(f"{postgres}/bin/{p}" for p in ("postgres", "initdb", "pgbench", "pg_isready"))]
    with tempfile.NamedTemporaryFile(suffix=".tar", dir=options.storage) as archive:
        image_of(archive.name, programs, [f"{postgres}/lib/{p}" for p in ("plpgsql.so", "dict_snowball.so", "libpqwalreceiver.so")] +
                 ["/usr/share/postgresql/15", "/usr/share/zoneinfo/Etc"])
        both = BothEngines(options, archive.name)
    work = tempfile.mkdtemp(prefix="hull-bench-volume.", dir=options.storage)
    try:
        databases, trees = [], []
        if "pgbench" in options.only:
            both.hull("volume", "create", "--driver", "disk", "-o", "size=2g", "disk")
            databases = [Database(both.hull, "hull-folder", "folder"), Database(both.hull, "hull-disk", "disk"), Database(both.docker, "docker", "folder")]
        for engine in both.all if "tree" in options.only else ():
            os.mkdir(f"{work}/{engine.name}")
            trees.append(Tree(engine, f"{work}/{engine.name}", options.files))
        for number in range(options.rounds + 1):  # the first is a warm-up
            say(f"round {number} of {options.rounds}" if number else "warming up")
            turn = 1 if number % 2 else -1
            for database in databases[::turn]:
                database.measure(options.seconds, keep=number > 0)
            for tree in trees[::turn]:
                tree.measure(keep=number > 0)
        for one in [*databases, *trees]:
            one.shell.close()
    finally:
        both.close()
        subprocess.run(["docker", "volume", "rm", "-f", "folder"], capture_output=True, check=False)
        shutil.rmtree(work, ignore_errors=True)
    results = []
    if databases:
        folder, disk, docker = (database.tps for database in databases)
        results += [result("pgbench-volume-vs-docker", folder, docker, "tps", "higher"), result("pgbench-disk-vs-docker", disk, docker, "tps", "higher")]
    if trees:
        results += [result(name, trees[0].samples[name], trees[1].samples[name]) for name in trees[0].samples]
    print(json.dumps({"host": host(), "results": results}))


if __name__ == "__main__":
    main()
