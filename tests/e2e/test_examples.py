"""The Dockerfiles of examples/, built, run and spoken to over their ports. They install Debian packages, which takes minutes
where the CPU is emulated: HULL_TEST_EXAMPLES=1 says that this is wanted."""
import contextlib
import os
import pathlib
import socket
import subprocess
import unittest
import urllib.request

from harness import COMMAND_SECONDS, DEBIAN, HULL, ROOT, EngineTest, free_port, have_image, hull, unique, wait_for

BUILD_SECONDS = 3600  # only ends a hang
AUTHORITIES = pathlib.Path("/etc/ssl/certs/ca-certificates.crt")  # whom this host trusts: a proxy of its own, perhaps


@unittest.skipUnless(os.environ.get("HULL_TEST_EXAMPLES"), "installs Debian packages for minutes; HULL_TEST_EXAMPLES=1 runs it")
class Examples(EngineTest):
    def build(self, name):
        if not have_image(DEBIAN):
            self.skipTest(f"{DEBIAN} is not here")
        image = f"hull-example/{name}"
        secret = ["--secret", f"id=authorities,src={AUTHORITIES}"] if AUTHORITIES.exists() else []
        done = subprocess.run([HULL, "build", "-t", image, *secret, str(ROOT / "examples" / name)], capture_output=True, text=True, timeout=BUILD_SECONDS)
        self.assertEqual(done.returncode, 0, done.stderr)
        return image

    def serve(self, name, port, *options):
        image = self.build(name)
        host_port = free_port()
        self.container = container = unique(name)
        self.addCleanup(hull, "rm", "-f", "-v", container, check=False)
        hull("run", "-d", "--name", container, "-p", f"127.0.0.1:{host_port}:{port}", *options, image)
        return host_port

    def inspect(self, template):
        return hull("inspect", "-f", template, self.container).out.strip()

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
        wait_for(lambda: self.inspect("{{.State.Health.Status}}") == "healthy", "the health check passes", COMMAND_SECONDS)

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
        self.assertIn("volume /var/lib/postgresql", self.inspect("{{range .Mounts}}{{.Type}} {{.Destination}}\n{{end}}"))
        # Over its port, as another container of the same image.
        address = self.inspect("{{.NetworkSettings.IPAddress}}")
        said = hull("run", "--rm", "--entrypoint", "psql", "-e", "PGPASSWORD=secret", "hull-example/postgres", "-h", address, "-U", "postgres", "-At", "-c", "select 40 + 2")
        self.assertEqual(said.out, "42\n")
