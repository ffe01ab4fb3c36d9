"""What is left when something dies or runs full: the engine, a virtual machine, a pull, an import, a build, the disk.

Each test has an engine of its own (private_engine.py), which it may treat badly.
"""
import os
import subprocess
import unittest

from harness import BUSYBOX, unique, wait_for, tar_of
from private_engine import PrivateEngineTest, engine_command, programs

# Counts to standard output until told to stop: output is on its way whenever the engine dies.
COUNTER = "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i; [ $((i % 20)) = 0 ] && sleep 0.2; done; echo end $i; exit 7"
MEBIBYTE = 1 << 20


def context(**files):
    return tar_of({name: text.encode() for name, text in files.items()})


def big_layer(mebibytes):
    return tar_of({"big": os.urandom(mebibytes * MEBIBYTE)})


class FaultTest(PrivateEngineTest):
    def begin(self, engine, *args):
        """`hull args…` in the background, with pipes."""
        process = subprocess.Popen(engine.hull_argv(*args), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

        def end():
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe.close()
        self.addCleanup(end)
        return process

    def failed(self, process):
        """The end of a client whose engine died: it fails and says so. Returns what it wrote to stderr."""
        status = process.wait(60)
        error = process.stderr.read().decode()
        self.assertNotEqual(status, 0)
        self.assertNotEqual(error.strip(), "")
        return error

    def assert_nothing_half_made(self, engine, before):
        self.assertEqual(engine.half_made(), [])
        self.assertEqual(engine.files(), before)
        self.assertEqual(engine.machines(), [])


class KilledEngine(FaultTest):
    def setUp(self):
        self.hulld = self.engine()
        self.hulld.import_busybox()

    def run_detached(self, script, *options):
        name = unique()
        self.hulld.hull("run", "-d", "--name", name, *options, BUSYBOX, "sh", "-c", script)
        return name

    def last_line(self, name):
        return self.hulld.hull("logs", "--tail", "1", name).out

    def test_containers_run_on_and_no_output_is_lost_or_doubled(self):
        name = self.run_detached(COUNTER)
        [machine] = self.hulld.machines()
        for _ in range(3):
            seen = self.last_line(name)
            wait_for(lambda: self.last_line(name) != seen, "more output")
            self.hulld.restart()
        self.assertEqual(self.hulld.machines(), [machine])
        self.hulld.hull("exec", name, "touch", "/stop")
        self.assertEqual(self.hulld.hull("wait", name).out.strip(), "7")
        lines = self.hulld.logs(name).splitlines()
        count = len(lines) - 1
        self.assertEqual(lines[-1], f"end {count}")
        self.assertEqual(lines[:-1], [str(number) for number in range(1, count + 1)])
        self.hulld.hull("rm", name)
        self.assertEqual((self.hulld.machines(), self.hulld.taps()), ([], []))

    def test_an_end_while_no_engine_runs_is_not_missed(self):
        name = self.run_detached("echo before; while [ ! -e /stop ]; do sleep 0.1; done; sleep 2; echo after; exit 3")
        self.hulld.hull("exec", name, "touch", "/stop")
        self.hulld.kill()
        engine_command("sleep", "5")
        self.hulld.start()
        self.assertEqual(self.hulld.hull("wait", name).out.strip(), "3")
        self.assertEqual(self.hulld.logs(name), "before\nafter\n")
        self.assertIn("Exited (3)", self.hulld.hull("ps", "-a").out)
        self.hulld.hull("start", name)  # as any other that ended; /stop is still there
        self.assertEqual(self.hulld.hull("wait", name).out.strip(), "3")

    def test_a_container_to_be_removed_at_its_end_is_removed(self):
        name = self.run_detached("while [ ! -e /stop ]; do sleep 0.1; done", "--rm")
        self.hulld.restart()
        self.hulld.hull("exec", name, "touch", "/stop")
        wait_for(lambda: name not in self.hulld.hull("ps", "-a").out, "the container is removed")
        self.assertEqual((self.hulld.machines(), self.hulld.taps()), ([], []))

    def test_an_attached_client_says_that_the_engine_is_gone(self):
        client = self.begin(self.hulld, "run", "--name", "attached", BUSYBOX, "sh", "-c", "echo up; sleep 1000")
        self.assertEqual(client.stdout.readline(), b"up\n")
        self.hulld.kill()
        self.failed(client)
        self.assertEqual(client.returncode, 125)
        self.hulld.start()
        self.assertIn("attached", self.hulld.hull("ps").out)
        self.hulld.hull("kill", "attached")
        self.assertEqual(self.hulld.hull("wait", "attached").out.strip(), "137")

    def test_a_machine_that_died_while_no_engine_ran_is_137(self):
        name = self.run_detached("sleep 1000")
        [machine] = self.hulld.machines()
        self.hulld.kill()
        self.hulld.kill(machine)
        self.hulld.start()
        self.assertEqual(self.hulld.hull("wait", name).out.strip(), "137")
        self.assertEqual(self.hulld.taps(), [])
        self.hulld.hull("rm", name)

    def test_an_import_leaves_nothing_and_can_be_repeated(self):
        before, data = self.hulld.files(), big_layer(8)
        client = self.begin(self.hulld, "import", "-", "hull-test/big")
        client.stdin.write(data[:5 * MEBIBYTE])
        client.stdin.flush()
        wait_for(self.hulld.half_made, "the import is under way")
        self.hulld.kill()
        client.stdin.close()
        self.failed(client)
        self.hulld.start()
        self.assert_nothing_half_made(self.hulld, before)
        self.hulld.hull("import", "-", "hull-test/big", stdin=data)
        self.hulld.hull("image", "inspect", "hull-test/big")

    def test_a_pull_leaves_nothing_and_can_be_repeated(self):
        image = "localhost:5000/big"
        self.hulld.hull("import", "-", image, stdin=big_layer(64))
        registry = self.hulld.background_inside(f"{programs()}/hull-registry", "--listen", "127.0.0.1:5000", "--root",
                                                f"{self.hulld.folder}/registry", log="registry.log")
        wait_for(lambda: self.hulld.hull("push", image, check=False).status == 0, "the push")
        self.hulld.hull("rmi", image)
        before = self.hulld.files()
        client = self.begin(self.hulld, "pull", image)
        layers = f"{self.hulld.root}/layers"
        engine_command("sh", "-c", f"until ls -d {layers}/.tmp-* >/dev/null 2>&1; do :; done; kill -STOP {registry}; kill -9 {self.hulld.pid}")
        self.failed(client)
        self.hulld.kill()  # returns when it is gone
        engine_command("kill", "-CONT", registry)
        self.hulld.start()
        self.assert_nothing_half_made(self.hulld, before)
        self.hulld.hull("pull", image)
        self.hulld.hull("image", "inspect", image)

    def test_a_build_leaves_nothing_and_can_be_repeated(self):
        data = context(Dockerfile=f"FROM {BUSYBOX}\nARG NAP=1000\nCOPY Dockerfile /d\nRUN echo under way; sleep $NAP; echo made >/made\n")
        client = self.begin(self.hulld, "build", "-t", "hull-test/made", "-")
        client.stdin.write(data)
        client.stdin.close()
        while not (line := client.stderr.readline().decode()).strip().endswith("under way"):
            self.assertNotEqual(line, "", "the build ended early")
        self.assertEqual(len(self.hulld.machines()), 1)
        self.hulld.kill()
        self.failed(client)
        self.hulld.start()
        self.assertEqual((self.hulld.half_made(), self.hulld.machines(), self.hulld.taps()), ([], [], []))
        self.assertEqual([name for name in self.hulld.files() if name.startswith("builds/")], [])
        self.hulld.hull("build", "-t", "hull-test/made", "--build-arg", "NAP=0", "-", stdin=data)
        self.assertEqual(self.hulld.hull("run", "--rm", "hull-test/made", "cat", "/made").out, "made\n")


class KilledMachine(FaultTest):
    def test_that_container_alone_ends(self):
        hulld = self.engine()
        hulld.import_busybox()
        first, second = unique(), unique()
        hulld.hull("run", "-d", "--name", first, BUSYBOX, "sh", "-c", "echo said; sleep 1000")
        wait_for(lambda: hulld.logs(first) == "said\n", "the output")
        [machine] = hulld.machines()
        hulld.hull("run", "-d", "--name", second, BUSYBOX, "sleep", "1000")
        of_both = len(hulld.taps())
        self.assertGreater(of_both, 0)
        hulld.kill(machine)
        self.assertEqual(hulld.hull("wait", first).out.strip(), "137")
        self.assertIn("Exited (137)", hulld.hull("ps", "-a", "--filter", f"name={first}").out)
        self.assertEqual(hulld.logs(first), "said\n")
        self.assertEqual(hulld.hull("exec", second, "echo", "well").out, "well\n")
        self.assertEqual((len(hulld.machines()), 2 * len(hulld.taps())), (1, of_both))
        hulld.hull("start", first)
        self.assertEqual(hulld.hull("exec", first, "echo", "again").out, "again\n")
        hulld.hull("rm", "-f", first, second)
        self.assertEqual((hulld.machines(), hulld.taps()), ([], []))

    def test_an_attached_client_ends_with_137(self):
        hulld = self.engine()
        hulld.import_busybox()
        client = self.begin(hulld, "run", "--rm", BUSYBOX, "sh", "-c", "echo up; sleep 1000")
        self.assertEqual(client.stdout.readline(), b"up\n")
        hulld.kill(hulld.machines()[0])
        self.assertEqual(client.wait(60), 137)
        self.assertEqual(hulld.hull("ps", "-aq").out, "")


class FullDisk(FaultTest):
    SMALL, LARGE, LAYER = 48, 400, 64  # MiB

    def setUp(self):
        self.hulld = self.engine(megabytes=self.SMALL)
        self.hulld.import_busybox()

    def free_space(self):
        engine_command("mount", "-o", f"remount,size={self.LARGE}m", self.hulld.root)

    def assert_no_space(self, result):
        self.assertEqual(result.status, 1)
        self.assertIn("no space left on device", result.err.lower())
        self.assertEqual(self.hulld.half_made(), [])

    def test_an_import(self):
        before, data = self.hulld.files(), big_layer(self.LAYER)
        self.assert_no_space(self.hulld.hull("import", "-", "hull-test/big", stdin=data, check=False))
        self.assert_nothing_half_made(self.hulld, before)
        self.assertEqual(self.hulld.hull("run", "--rm", BUSYBOX, "echo", "well").out, "well\n")
        self.free_space()
        self.hulld.hull("import", "-", "hull-test/big", stdin=data)

    def test_a_pull(self):
        image = "localhost:5000/big"
        # The registry keeps its blobs outside the small folder.
        registry = f"{self.hulld.folder}/registry"
        self.hulld.background_inside(f"{programs()}/hull-registry", "--listen", "127.0.0.1:5000", "--root", registry, log="registry.log")
        self.free_space()
        self.hulld.hull("import", "-", image, stdin=big_layer(self.LAYER))
        wait_for(lambda: self.hulld.hull("push", image, check=False).status == 0, "the push")
        self.hulld.hull("rmi", image)
        engine_command("mount", "-o", f"remount,size={self.SMALL}m", self.hulld.root)
        before = self.hulld.files()
        self.assert_no_space(self.hulld.hull("pull", image, check=False))
        self.assert_nothing_half_made(self.hulld, before)
        self.free_space()
        self.hulld.hull("pull", image)

    def test_a_build(self):
        data = context(Dockerfile=f"FROM {BUSYBOX}\nRUN head -c {self.LAYER * MEBIBYTE} /dev/urandom >/big\n")
        self.assert_no_space(self.hulld.hull("build", "-t", "hull-test/big", "-", stdin=data, check=False))
        self.assertEqual(self.hulld.machines(), [])
        self.assertNotIn("hull-test/big", self.hulld.hull("images").out)
        self.assertEqual(self.hulld.hull("run", "--rm", BUSYBOX, "echo", "well").out, "well\n")
        self.free_space()
        self.hulld.hull("build", "-t", "hull-test/big", "-", stdin=data)
        self.assertEqual(self.hulld.hull("run", "--rm", "hull-test/big", "stat", "-c", "%s", "/big").out, f"{self.LAYER * MEBIBYTE}\n")


class FullEngine(FaultTest):
    def test_an_engine_runs_no_more_machines_than_it_may(self):
        engine = self.engine(options=["--max-machines", "1"])
        engine.import_busybox()
        engine.hull("run", "-d", "--name", "first", BUSYBOX, "sleep", "1000")
        refused = engine.hull("run", "--rm", BUSYBOX, "true", check=False)
        self.assertEqual(refused.status, 125)
        self.assertIn("--max-machines", refused.err)
        engine.restart()  # the adopted one counts, too
        self.assertEqual(engine.hull("run", "--rm", BUSYBOX, "true", check=False).status, 125)
        engine.hull("rm", "-f", "first")
        self.assertEqual(engine.hull("run", "--rm", BUSYBOX, "echo", "room").out, "room\n")
        self.assertEqual(engine.hull("ps", "-aq").out, "")


class WrongStart(FaultTest):
    def test_a_second_engine_on_the_same_folder_is_refused(self):
        hulld = self.engine()
        argv = hulld.hulld_argv()
        argv[argv.index("--socket") + 1] = f"{hulld.folder}/second.sock"
        result = engine_command(*argv, check=False)
        self.assertEqual(result.status, 1)
        self.assertIn(f"use {hulld.root}: another engine (process {hulld.pid})", result.err)
        self.assertEqual(hulld.hull("version").status, 0)

    def test_a_second_engine_on_the_same_socket_is_refused(self):
        hulld = self.engine()
        argv = hulld.hulld_argv()
        argv[argv.index("--root") + 1] = f"{hulld.folder}/second"
        result = engine_command(*argv, check=False)
        self.assertEqual(result.status, 1)
        self.assertIn("another engine answers there", result.err)
        self.assertEqual(hulld.hull("version").status, 0)

    def test_a_missing_kernel_is_named(self):
        folder = engine_command("mktemp", "-d", "/tmp/hull-resources-XXXXXX").out.strip()
        self.addCleanup(engine_command, "rm", "-rf", folder)
        engine_command("cp", f"{programs()}/hull-vmm", f"{programs()}/hull-initramfs", folder)
        hulld = self.engine(resources=folder)
        self.assertIn(f"no {folder}/vmlinux: no container can be started", hulld.log())
        hulld.import_busybox()  # images can be managed all the same
        result = hulld.hull("run", "--name", "lost", BUSYBOX, "true", check=False)
        self.assertEqual(result.status, 125)
        self.assertIn(f"{folder}/vmlinux", result.err)
        self.assertEqual((hulld.machines(), hulld.taps()), ([], []))
        engine_command("cp", f"{programs()}/vmlinux", folder)
        hulld.hull("start", "lost")
        self.assertEqual(hulld.hull("wait", "lost").out.strip(), "0")

    def test_a_file_that_is_no_kernel_is_named(self):
        folder = engine_command("mktemp", "-d", "/tmp/hull-resources-XXXXXX").out.strip()
        self.addCleanup(engine_command, "rm", "-rf", folder)
        engine_command("cp", f"{programs()}/hull-vmm", f"{programs()}/hull-initramfs", folder)
        engine_command("sh", "-c", f"echo no kernel >{folder}/vmlinux")
        hulld = self.engine(resources=folder)
        hulld.import_busybox()
        result = hulld.hull("run", "--rm", BUSYBOX, "true", check=False)
        self.assertEqual(result.status, 125)
        self.assertIn("kernel", result.err)
        self.assertEqual((hulld.machines(), hulld.taps(), hulld.hull("ps", "-aq").out), ([], [], ""))
