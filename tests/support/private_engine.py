"""An engine of a test's own, which the test may kill, starve of disk space or start wrongly.

It runs where the run's engine runs: on this host as root, or inside `hull machine`. A network namespace of its own keeps
its bridge, taps and packet filter away from the other engine's.
"""
import os
import pathlib
import re
import shlex
import subprocess
import time
import unittest

from harness import BIN, COMMAND_SECONDS, HULL, Result, busybox_rootfs, BUSYBOX, wait_for


def in_machine():
    return "/machine/" in os.environ.get("HULL_HOST", "")


def programs():
    return "/opt/hull" if in_machine() else str(BIN)


def engine_argv(*command):
    """The argument vector that runs `command` as root where the engine runs."""
    command = [str(word) for word in command]
    if in_machine():
        return [HULL, "machine", "run", *command]
    return command if os.geteuid() == 0 else ["sudo", "-n", *command]


def why_not():
    """A reason why no private engine can run here, or nothing."""
    done = subprocess.run(engine_argv("unshare", "-n", "true"), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return "" if done.returncode == 0 else "needs root and network namespaces where the engine runs: " + done.stderr.strip()


def engine_command(*command, stdin=None, check=True):
    """Runs `command` as root where the engine runs."""
    done = subprocess.run(engine_argv(*command), input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                          capture_output=True, timeout=COMMAND_SECONDS)
    done.stdout, done.stderr = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    result = Result(done)
    if check and result.status != 0:
        raise AssertionError(f"{command}: {result!r}")
    return result


class PrivateEngine:
    def __init__(self, megabytes=None, resources=None, options=()):
        self.folder = engine_command("sh", "-c", "d=$(mktemp -d /tmp/hull-private-XXXXXX) && chmod 711 $d && mkdir $d/root && echo $d").out.strip()
        self.root, self.socket = f"{self.folder}/root", f"{self.folder}/hulld.sock"
        self.resources = resources
        self.options = list(options)
        self.mounted = megabytes is not None
        self.pid = None
        if self.mounted:
            engine_command("mount", "-t", "tmpfs", "-o", f"mode=711,size={megabytes}m", "tmpfs", self.root)
        self.namespace = self._background("unshare", "-n", "sh", "-c", "ip link set lo up && exec sleep infinity", log="namespace.log")
        self.others = [self.namespace]
        # The namespace is there once its loopback is up.
        wait_for(lambda: "UP" in self.inside("ip", "link", "show", "lo", check=False).out, "the network namespace")
        self.start()

    def _background(self, *command, log):
        words = shlex.join(map(str, command))
        return int(engine_command("sh", "-c", f"setsid {words} </dev/null >>{self.folder}/{log} 2>&1 & echo $!").out)

    def inside(self, *command, **kwargs):
        """A command in the engine's network namespace."""
        return engine_command("nsenter", "-t", self.namespace, "-n", *command, **kwargs)

    def background_inside(self, *command, log):
        pid = self._background("nsenter", "-t", self.namespace, "-n", *command, log=log)
        self.others.append(pid)
        return pid

    def hulld_argv(self, *more):
        argv = ["nsenter", "-t", self.namespace, "-n", f"{programs()}/hulld", "--root", self.root, "--socket", self.socket, *self.options, *more]
        return argv + (["--resources", self.resources] if self.resources else [])

    def start(self):
        self.pid = self._background(*self.hulld_argv(), log="hulld.log")
        def answers():
            if self.hull("version", check=False).status == 0:
                return True
            if not self.alive(self.pid):
                raise AssertionError("hulld ended:\n" + self.log())
            return False
        wait_for(answers, "hulld answers")

    def alive(self, pid):
        return engine_command("readlink", f"/proc/{pid}/exe", check=False).status == 0  # a zombie has none

    def kill(self, pid=None):
        """kill -9 of the engine (or of `pid`); back when it is gone."""
        pid = pid or self.pid
        engine_command("sh", "-c", f"kill -9 {pid}; while readlink /proc/{pid}/exe >/dev/null; do sleep 0.05; done")

    def restart(self):
        self.kill()
        self.start()

    def log(self):
        return engine_command("cat", f"{self.folder}/hulld.log").out

    def hull_argv(self, *args):
        return engine_argv(f"{programs()}/hull", "-H", f"unix://{self.socket}", *args)

    def hull(self, *args, **kwargs):
        return engine_command(f"{programs()}/hull", "-H", f"unix://{self.socket}", *args, **kwargs)

    def import_busybox(self):
        self.hull("import", "--change", 'CMD ["sh"]', "--change", "ENV PATH=/bin:/usr/bin", "-", BUSYBOX, stdin=busybox_rootfs())

    def logs(self, name):
        return self.hull("logs", name).out

    def files(self):
        """What is stored, by name: layers, blobs, disks, containers, builds (no databases, which grow and shrink)."""
        listing = engine_command("sh", "-c", f"cd {self.root} && for d in blobs layers disks containers builds; do [ -d $d ] && find $d; done; true")
        return sorted(line for line in listing.out.splitlines() if not line.endswith("/.lock"))

    def half_made(self):
        return [name for name in self.files() if re.search(r"/\.tmp-", name)]

    def machines(self):
        """Process ids of this engine's hull-vmm."""
        # Each holds its disks open, which lie below the root (also when they are deleted).
        script = ("for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = hull-vmm ] && "
                  f"ls -l $p/fd 2>/dev/null | grep -q {self.root}/ && echo ${{p#/proc/}}; done; true")
        return [int(pid) for pid in engine_command("sh", "-c", script).out.split()]

    def taps(self):
        """The network cards of containers, on the host's side: one for each network, and one to spare."""
        return re.findall(r"\bht[0-9a-z]+-[0-9a-f]+", self.inside("ip", "-o", "link").out)

    def close(self):
        names = self.hull("ps", "-aq", check=False).out.split()
        if names:
            self.hull("rm", "-f", *names, check=False)
        for pid in [self.pid, *reversed(self.others)]:
            engine_command("kill", "-9", pid, check=False)
        time.sleep(0.1)  # descriptors below the mount are closed a moment after the signal
        if self.mounted:
            engine_command("umount", "-l", self.root, check=False)
        engine_command("rm", "-rf", self.folder, check=False)


class PrivateEngineTest(unittest.TestCase):
    """Skipped, with the reason, where no engine of a test's own can run."""

    @classmethod
    def setUpClass(cls):
        reason = why_not()
        if reason:
            raise unittest.SkipTest(reason)

    def engine(self, **kwargs):
        """A PrivateEngine that ends with the test."""
        engine = PrivateEngine(**kwargs)
        self.addCleanup(engine.close)
        return engine
