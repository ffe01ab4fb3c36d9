"""The Dockerfiles of examples/, built, run and spoken to over their ports. They install Debian packages, which takes minutes
where the CPU is emulated: HULL_TEST_EXAMPLES=1 says that this is wanted."""
import contextlib
import os
import socket
import unittest
import urllib.request

from harness import COMMAND_SECONDS, DEBIAN, HULL, ROOT, EngineTest, free_port, have_image, hull, unique, wait_for

from private_engine import engine_command

import subprocess

BUILD_SECONDS = 3600  # only ends a hang


@unittest.skipUnless(os.environ.get("HULL_TEST_EXAMPLES"), "installs Debian packages for minutes; HULL_TEST_EXAMPLES=1 runs it")
class ExampleTest(EngineTest):
    def build(self, name):
        if not have_image(DEBIAN):
            self.skipTest(f"{DEBIAN} is not here")
        image = f"hull-example/{name}"
        done = subprocess.run([HULL, "build", "-t", image, str(ROOT / "examples" / name)], capture_output=True, text=True, timeout=BUILD_SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)
        return image


class Examples(ExampleTest):
    def serve(self, name, port, *options):
        image = self.build(name)
        host_port = free_port()
        container = unique(name)
        self.addCleanup(hull, "rm", "-f", container, check=False)
        hull("run", "-d", "--name", container, "-p", f"127.0.0.1:{host_port}:{port}", *options, image)
        return host_port

    def answer(self, port):
        def ask():
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
            return None
        return wait_for(ask, "an answer", COMMAND_SECONDS)

    def test_cpp(self):
        self.assertEqual(self.answer(self.serve("cpp", 8080)), "C++ on scratch\n")

    def test_node_service(self):
        self.assertIn("two days are 172800000 ms", self.answer(self.serve("node-service", 3000)))

    def test_python_web(self):
        self.assertEqual(self.answer(self.serve("python-web", 5000)), "Flask in a microVM\n")

    def test_static_site(self):
        self.assertIn("behind a hardware wall", self.answer(self.serve("static-site", 80)))

    def test_postgres(self):
        port = self.serve("postgres", 5432, "-e", "POSTGRES_PASSWORD=secret")
        request_for_tls = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")

        def ready():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(request_for_tls)
                return connection.recv(1) in (b"N", b"S")
            return False
        wait_for(ready, "PostgreSQL answers", COMMAND_SECONDS)


class Databases(ExampleTest):
    """PostgreSQL on a volume: what it has confirmed is there after a restart and after its machine was killed."""

    def database(self, volume):
        name = unique("postgres")
        self.addCleanup(hull, "rm", "-f", name, check=False)
        hull("run", "-d", "--name", name, "-m", "256m", "-v", f"{volume}:/var/lib/postgresql/data", self.image)
        return name

    def sql(self, name, text, check=True):
        return hull("exec", "-u", "postgres", name, "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", text, check=check)

    def await_database(self, name):
        wait_for(lambda: self.sql(name, "select 1", check=False).status == 0, "PostgreSQL answers", COMMAND_SECONDS)

    def survives(self, *options):
        self.image = self.build("postgres")
        volume = unique("data")
        self.addCleanup(hull, "volume", "rm", "-f", volume, check=False)
        hull("volume", "create", *options, volume)
        name = self.database(volume)
        self.await_database(name)
        self.sql(name, "create table kept (n int primary key); insert into kept select generate_series(1, 5000)")
        hull("restart", name)
        self.await_database(name)
        self.assertEqual(self.sql(name, "select count(*) from kept").out, "5000\n")
        for number in range(5001, 5011):
            self.sql(name, f"insert into kept values ({number})")  # committed when it returns
        pid = hull("inspect", "-f", "{{.State.Pid}}", name).out.strip()
        engine_command("kill", "-9", pid)
        self.assertEqual(hull("wait", name).out.strip(), "137")
        hull("rm", name)
        name = self.database(volume)  # another container on the same volume
        self.await_database(name)
        self.assertEqual(self.sql(name, "select count(*), max(n) from kept").out, "5010|5010\n")
        self.sql(name, "reindex table kept; vacuum full kept")

    def test_on_a_named_volume(self):
        self.survives()

    def test_on_a_disk(self):
        self.survives("--driver", "disk", "-o", "size=2g")
