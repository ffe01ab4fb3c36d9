"""What the end-to-end suites share: the hull command, images to run, servers to talk to.

Tests drive the real client against the real engine, on this host's KVM or in `hull machine`; scripts/test sets up the
engine once per run and says where through the environment:
  HULL_BIN   folder with the programs
  HULL_HOST  the engine's socket
"""
import contextlib
import io
import os
import pathlib
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
import unittest
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("HULL_BIN", ROOT / "build" / "bin"))
HULL = str(BIN / "hull")

DEBIAN = "debian:bookworm-slim"
BUSYBOX = "hull-test/busybox"
COMMAND_SECONDS = 480  # a hang is a failure, not a slow test


class Result:
    def __init__(self, done):
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr

    def __repr__(self):
        return f"status {self.status}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def hull(*args, stdin=None, check=True, env=None, text=True, cwd=None):
    """Runs `hull args…`; with check, a status other than 0 fails the test showing what it wrote."""
    done = subprocess.run([HULL, *map(str, args)], input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
                          capture_output=True, text=text, timeout=COMMAND_SECONDS, env={**os.environ, **(env or {})}, cwd=cwd)
    result = Result(done)
    if check and result.status != 0:
        raise AssertionError(f"hull {' '.join(map(str, args))}: {result!r}")
    return result


def unique(prefix="t"):
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def tar_of(entries):
    """A tar as bytes. entries: name → bytes, or a TarInfo-changing function."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, value in entries.items():
            info = tarfile.TarInfo(name)
            info.mtime = 1_700_000_000
            if callable(value):
                data = value(info)
            elif value is None:
                info.type, info.mode, data = tarfile.DIRTYPE, 0o755, None
            else:
                info.mode, data = 0o644, value
            if data is not None:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if data is not None else None)
    return out.getvalue()


def symlink(target):
    def apply(info):
        info.type, info.linkname = tarfile.SYMTYPE, target
    return apply


def program(path, mode=0o755):
    def apply(info):
        info.mode = mode
        return pathlib.Path(path).read_bytes()
    return apply


def busybox_rootfs():
    """A root file system of one static program: small, so that tests of everything else are quick."""
    path = shutil.which("busybox") or "/bin/busybox"
    applets = subprocess.run([path, "--list"], capture_output=True, text=True, check=True).stdout.split()
    entries = {name + "/": None for name in ("bin", "etc", "tmp", "root", "home", "home/user", "var", "usr", "usr/bin")}
    entries["bin/busybox"] = program(path)
    for applet in applets:
        if applet != "busybox":
            entries[f"bin/{applet}"] = symlink("busybox")
    entries["etc/passwd"] = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:User:/home/user:/bin/sh\n"
    entries["etc/group"] = b"root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"
    return tar_of(entries)


def ensure_busybox():
    if hull("image", "inspect", BUSYBOX, check=False).status == 0:
        return
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(busybox_rootfs())
        file.flush()
        hull("import", "--change", 'CMD ["sh"]', "--change", "ENV PATH=/bin:/usr/bin", file.name, BUSYBOX)


def have_image(name):
    return hull("image", "inspect", name, check=False).status == 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, what, seconds=60):
    """Polls until `condition()` is true; the limit only ends a hang."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")


class Registry:
    """A hull-registry of the test's own."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="hull-registry-")
        self.port = free_port()
        self.address = f"localhost:{self.port}"
        self.process = subprocess.Popen([str(BIN / "hull-registry"), "--listen", f"127.0.0.1:{self.port}", "--root", self.folder.name],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for(self._answers, "hull-registry answers")

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError("hull-registry ended: " + self.process.stderr.read().decode())
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stderr.close()
        self.folder.cleanup()


class EngineTest(unittest.TestCase):
    """A test with an engine. Containers and images that it names through these helpers are removed."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        ensure_busybox()

    def container(self, *args, image=BUSYBOX, name=None):
        """`hull run -d [options] image [-- command]` that is removed at the end; returns its name."""
        name = name or unique()
        self.addCleanup(hull, "rm", "-f", name, check=False)
        split = args.index("--") if "--" in args else len(args)
        hull("run", "-d", "--name", name, *args[:split], image, *args[split + 1:])
        return name

    def run_in(self, *command, image=BUSYBOX, options=(), **kwargs):
        """`hull run --rm options image command`."""
        return hull("run", "--rm", *options, image, *command, **kwargs)

    def temporary_folder(self):
        folder = tempfile.TemporaryDirectory(prefix="hull-test-")
        self.addCleanup(folder.cleanup)
        return pathlib.Path(folder.name)

    def registry(self):
        registry = Registry()
        self.addCleanup(registry.close)
        return registry

    def in_background(self, work):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread
