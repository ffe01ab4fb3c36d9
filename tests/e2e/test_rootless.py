"""An engine without root: an ordinary user in the group kvm, passt for the network, a folder and a socket of his own.

Runs where the run's engine runs (private_engine.py), as a user that is made up for it.
"""
import os
import shlex
import unittest

from harness import BUSYBOX, DEBIAN, busybox_rootfs, tar_of, unique, wait_for
from private_engine import engine_command, in_machine, programs, why_not
from test_socket import probe_entries
from test_storage import rootfs_with

UID = 47001  # nobody's
KVM_GROUP = 47002  # where /dev/kvm has no group that may use it
HOST_PORT = 18099  # a server on all addresses of the host
SERVE = ("mkdir -p /www && echo served >/www/index.html && httpd -p 80 -h /www && echo ready && exec sleep 100000",)


def shell(script, **kwargs):
    """A script of root's, where the engine runs."""
    return engine_command("sh", "-c", script, **kwargs)


def kvm_group():
    """The group that may use /dev/kvm. The emulated host has no udev, which would give it one."""
    mode, group = shell("stat -c '%a %g' /dev/kvm").out.split()
    if int(mode, 8) & 0o060 == 0o060 and group != "0":
        return int(group)
    if not in_machine():
        raise unittest.SkipTest("/dev/kvm is for no group on this host")
    shell(f"chgrp {KVM_GROUP} /dev/kvm && chmod 660 /dev/kvm")
    return KVM_GROUP


class UserEngine:
    """A user, and the engine that his first command starts."""

    def __init__(self):
        self.group = kvm_group()
        self.home = shell(f"d=$(mktemp -d /tmp/hull-user-XXXXXX) && mkdir -m 700 $d/run && chown -R {UID}:{UID} $d && echo $d").out.strip()
        self.socket = f"{self.home}/run/hull/hulld.sock"
        self.root = f"{self.home}/.local/share/hull"

    def words(self, *command):
        """The words that run `command` as the user, with nothing of root's."""
        return ["setpriv", f"--reuid={UID}", f"--regid={UID}", f"--groups={self.group}", "--inh-caps=-all", "--no-new-privs", "env", "-i",
                f"HOME={self.home}", f"XDG_RUNTIME_DIR={self.home}/run", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", *map(str, command)]

    def run(self, *command, **kwargs):
        return engine_command(*self.words(*command), **kwargs)

    def hull(self, *args, **kwargs):
        return self.run(f"{programs()}/hull", *args, **kwargs)

    def processes(self):
        """Name → ids of the user's processes."""
        found = {}
        # Not by the owner of /proc/ID: what may not be dumped belongs to root there.
        listing = shell(f"for p in /proc/[0-9]*; do grep -q '^Uid:.{UID}.{UID}.{UID}' $p/status 2>/dev/null && "
                        "readlink $p/exe >/dev/null && echo $(cat $p/comm) ${p#/proc/}; done; true").out
        for line in listing.splitlines():
            name, pid = line.rsplit(" ", 1)
            found.setdefault(name.split(".")[0], []).append(int(pid))
        return found

    def log(self):
        return shell(f"cat {self.root}/hulld.log").out

    def end(self, signal="TERM"):
        """Ends the engine; back when it is gone."""
        for pid in self.processes().get("hulld", []):
            shell(f"kill -{signal} {pid}; while readlink /proc/{pid}/exe >/dev/null; do sleep 0.1; done")

    def close(self):
        names = self.hull("ps", "-aq", check=False).out.split()
        if names:
            self.hull("rm", "-f", *names, check=False)
        self.end()
        for pids in self.processes().values():
            shell(f"kill -9 {shlex.join(map(str, pids))}", check=False)
        shell(f"rm -rf {self.home}")


class Rootless(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = why_not()
        if reason:
            raise unittest.SkipTest(reason)
        cls.user = UserEngine()
        cls.addClassCleanup(cls.user.close)
        for needed, what in (("command -v passt", "passt is not installed"), (f"test -x {programs()}/hulld", "a user may not run the programs"),
                             ("unshare -U true", "users may not make user namespaces")):
            if cls.user.run("sh", "-c", needed, check=False).status != 0:
                raise unittest.SkipTest(what)
        started = cls.user.hull("import", "--change", "ENV PATH=/bin:/usr/bin", "-", BUSYBOX, stdin=busybox_rootfs())
        cls.first_words = started.err
        # A server of the host.
        shell(f"mkdir {cls.user.home}/www && echo host >{cls.user.home}/www/index.html")
        server = shell(f"setsid busybox httpd -f -p {HOST_PORT} -h {cls.user.home}/www </dev/null >/dev/null 2>&1 & echo $!").out.strip()
        cls.addClassCleanup(shell, f"kill {server}", check=False)

    def container(self, *args, command=SERVE):
        """A container that runs; its name."""
        name = unique()
        self.addCleanup(self.user.hull, "rm", "-f", name, check=False)
        self.user.hull("run", "-d", "--name", name, *args, BUSYBOX, "sh", "-c", *command)
        return name

    def refused(self, *args):
        result = self.user.hull(*args, check=False)
        self.assertNotEqual(result.status, 0, result)
        return result.err

    def fetch(self, port, address="127.0.0.1"):
        """From the host, a published port; nothing when nobody answers. (A static busybox cannot look up names there.)"""
        ask = f"exec 3<>/dev/tcp/{address}/{port} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && sed '1,/^\\r*$/d' <&3"
        return engine_command("timeout", "20", "bash", "-c", ask, check=False).out

    def ready(self, name):
        wait_for(lambda: "ready" in self.user.hull("logs", name).out, f"{name} serves")

    def test_the_engine_is_the_users_and_runs_debian(self):
        self.assertIn("an engine of your own, without root", self.first_words)
        self.assertIn(f"listening on {self.user.socket}", self.user.log())
        system = "" if in_machine() else f"-H {shlex.quote(os.environ['HULL_HOST'])}"
        load = shlex.join(self.user.words(f"{programs()}/hull", "load"))
        shell(f"{programs()}/hull {system} save {DEBIAN} | {load}")
        result = self.user.hull("run", "--rm", DEBIAN, "sh", "-c", "id -u; head -n 1 /etc/os-release")
        self.assertIn("0\n", result.out)
        self.assertIn("Debian", result.out)
        self.user.hull("rmi", DEBIAN)

    def test_every_process_is_the_users_and_none_is_left(self):
        name = self.container("-p", "18081:80")
        processes = self.user.processes()
        for program in ("hulld", "hull-vmm", "passt"):
            self.assertEqual(len(processes.get(program, [])), 1, processes)
        capabilities = shell(f"grep CapEff /proc/{processes['hulld'][0]}/status").out.split()[1]
        self.assertEqual(int(capabilities, 16), 0)
        self.user.hull("rm", "-f", name)
        left = wait_for(lambda: not {"passt", "hull-vmm"} & set(self.user.processes()), "helpers end with their machine")
        self.assertTrue(left)
        self.assertEqual(shell(f"find {self.user.root}/containers {self.user.root}/builds -type s").out, "")

    def test_logs_exec_and_stop(self):
        name = self.container(command=("echo out; echo err >&2; trap 'exit 3' TERM; while :; do sleep 0.1; done",))
        wait_for(lambda: "out" in self.user.hull("logs", name).out, "output")
        self.assertIn("inside\n", self.user.hull("exec", name, "echo", "inside").out)
        self.user.hull("stop", name)
        self.assertEqual(self.user.hull("wait", name).out.strip(), "3")
        self.user.hull("start", name)
        self.assertIn("172.", self.user.hull("exec", name, "ip", "-4", "addr", "show", "eth0").out)

    def test_published_ports(self):
        name = self.container("-p", "18080:80", "-p", "127.0.0.1::81")
        self.ready(name)
        self.assertEqual(self.fetch(18080), "served\n")
        self.assertRegex(self.user.hull("port", name, "81").out, r"127\.0\.0\.1:\d+")
        self.assertIn("port is already allocated", self.refused("run", "--rm", "-p", "18080:80", BUSYBOX, "true"))
        self.assertEqual(self.fetch(18080), "served\n")
        low = self.refused("run", "--rm", "-p", "81:80", BUSYBOX, "true")
        self.assertIn("without root", low)
        self.assertIn("ip_unprivileged_port_start", low)
        self.user.hull("rm", "-f", name)
        self.assertEqual(self.fetch(18080), "")

    def test_the_host_is_reached_only_when_it_was_asked_for(self):
        # Its name goes through the hosts file alone; nc, because a static busybox' wget needs glibc's resolver for more.
        ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 10 nc -w 5 %s {HOST_PORT} | tail -n 1"
        by_name = ask % "$(sed -n 's/[[:space:]]host.docker.internal$//p' /etc/hosts)"
        opened = self.user.hull("run", "--rm", "--add-host", "host.docker.internal:host-gateway", BUSYBOX, "sh", "-c", by_name)
        self.assertEqual(opened.out, "host\n")
        name = self.container(command=("exec sleep 100000",))
        gateway = self.user.hull("exec", name, "sh", "-c", "ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'").out.strip()
        own = shell("ip -4 -o addr show scope global | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p' | head -n 1").out.strip()
        for address in (gateway, own):
            closed = self.user.hull("exec", name, "sh", "-c", ask % address, check=False)
            self.assertNotEqual(closed.out, "host\n", address)  # what the outside has at the gateway's address is no matter

    def test_a_build_runs_steps_with_a_network(self):
        dockerfile = f"FROM {BUSYBOX}\nRUN ip -4 addr show eth0 | grep -q 172. && echo built >/made\n"
        tag = unique()
        self.user.hull("build", "-t", tag, "-", stdin=tar_of({"Dockerfile": dockerfile.encode()}))
        self.addCleanup(self.user.hull, "rmi", "-f", tag, check=False)
        self.assertEqual(self.user.hull("run", "--rm", "--network", "none", tag, "cat", "/made").out, "built\n")
        self.assertNotIn("passt", self.user.processes())

    def test_networks_are_bridge_and_none(self):
        names = self.user.hull("network", "ls", "--format", "{{.Name}}").out.split()
        self.assertEqual(sorted(names), ["bridge", "none"])
        self.assertIn("runs as root", self.refused("network", "create", unique()))
        alone = self.user.hull("run", "--rm", "--network", "none", BUSYBOX, "ip", "-o", "link").out
        self.assertNotIn("eth0", alone)

    def test_volumes_are_disks_and_folders_are_refused(self):
        volume = unique()
        self.addCleanup(self.user.hull, "volume", "rm", volume, check=False)
        self.user.hull("run", "--rm", "-v", f"{volume}:/data", BUSYBOX, "sh", "-c", "echo kept >/data/file && chown 1000 /data/file")
        self.assertEqual(self.user.hull("run", "--rm", "-v", f"{volume}:/data", BUSYBOX, "cat", "/data/file").out, "kept\n")
        self.assertIn("runs as root", self.refused("run", "--rm", "-v", f"{self.user.home}:/host", BUSYBOX, "true"))

    def test_the_engines_socket_is_that_of_the_users_engine(self):
        image = f"hull-test/{unique()}"
        self.user.hull("import", "--change", "ENV PATH=/bin:/usr/bin", "-", image, stdin=rootfs_with(probe_entries()))
        self.addCleanup(self.user.hull, "rmi", image, check=False)
        for source in (self.user.socket, "/var/run/docker.sock"):
            asked = self.user.hull("run", "--rm", "-v", f"{source}:/s", image, "engine_probe", "/s", "ask", "GET", "/info")
            self.assertIn(f'"DockerRootDir":"{self.user.root}"', asked.out)

    def test_a_machine_outlives_its_passt(self):
        name = self.container("-p", "18082:80")
        self.ready(name)
        (passt,) = self.user.processes()["passt"]
        shell(f"kill -9 {passt}")
        wait_for(lambda: "passt, which is its network, has ended" in self.user.log(), "the engine's log tells it")
        self.assertIn("alive\n", self.user.hull("exec", name, "echo", "alive").out)
        self.user.hull("restart", "-t", "0", name)
        wait_for(lambda: self.fetch(18082) == "served\n" or None, "a new start has a network again")

    def test_an_engine_that_is_killed_finds_its_containers_again(self):
        name = self.container("-p", "18083:80")
        self.ready(name)
        before = self.user.processes()
        self.user.end("KILL")
        self.assertEqual(self.fetch(18083), "served\n")
        self.assertIn(name, self.user.hull("ps", "--format", "{{.Names}}").out)
        after = self.user.processes()
        self.assertEqual(after["passt"], before["passt"])
        self.assertEqual(self.fetch(18083), "served\n")
        self.user.hull("rm", "-f", name)
        wait_for(lambda: "passt" not in self.user.processes(), "passt ends with its machine")

    def test_doctor_says_what_differs(self):
        told = self.user.hull("doctor", check=False).out
        for text in ("passt is installed", "jail:", "without root", "ports from"):
            self.assertIn(text, told)


if __name__ == "__main__":
    unittest.main()
