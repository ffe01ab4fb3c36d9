"""The real client against the real engine whose machines are processes of this host (hulld-fake): for verbs that need no
virtual machine. Native and quick; ctest runs it.

  HULL_BIN     folder with the programs
  HULLD_FAKE   the engine
"""
import hashlib
import io
import json
import os
import pathlib
import subprocess
import tarfile
import tempfile
import unittest

from harness import HULL, hull, wait_for

FAKE = os.environ.get("HULLD_FAKE", str(pathlib.Path(HULL).parents[1] / "tests" / "hulld-fake"))


class FakeEngine:
    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="hull-fake-")
        self.socket = f"{self.folder.name}/s"
        self.log = open(f"{self.folder.name}/log", "wb")  # pylint: disable=consider-using-with
        self.process = subprocess.Popen([FAKE, f"{self.folder.name}/root", self.socket], stdout=self.log, stderr=self.log)
        os.environ["HULL_HOST"] = f"unix://{self.socket}"
        wait_for(lambda: hull("version", check=False).status == 0, "hulld-fake answers")

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()
        self.folder.cleanup()


class FakeEngineTest(unittest.TestCase):
    """Each test has an engine of its own, with nothing but the images hulld-fake brings."""

    def setUp(self):
        engine = FakeEngine()
        self.addCleanup(engine.close)
        self.engine = engine
        for name in hull("images", "--format", "{{.ID}}").out.split():
            hull("rmi", "-f", name, check=False)

    def temporary_folder(self):
        folder = tempfile.TemporaryDirectory(prefix="hull-test-")
        self.addCleanup(folder.cleanup)
        return pathlib.Path(folder.name)

    def api(self, method, path, body=None, status=200):
        """One request to the engine's API; the answer as JSON."""
        command = ["curl", "-s", "-X", method, "--unix-socket", self.engine.socket, "-w", "\n%{http_code}", f"http://engine/v1.47{path}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        text, code = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.rsplit("\n", 1)
        self.assertEqual(int(code), status, text)
        return json.loads(text) if text.strip() else None


def plain_tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def config_of(layers, created="2024-05-06T07:08:09Z", labels=None, arch="amd64", history=None, cmd=None):
    """An image configuration over layers (uncompressed tars) as bytes."""
    return json.dumps({
        "architecture": arch, "os": "linux", "created": created,
        "config": {"Labels": labels or {}, "Cmd": cmd or ["true"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha256(layer) for layer in layers]},
        "history": history or [{"created": created, "created_by": f"LAYER {i}"} for i in range(len(layers))],
    }).encode()


def docker_archive(images):
    """images: list of (names, config bytes, layers) → a docker-archive as bytes."""
    files, manifest = {}, []
    for names, config, layers in images:
        files[f"{sha256(config)}.json"] = config
        paths = []
        for layer in layers:
            path = f"{sha256(layer)}/layer.tar"
            files[path] = layer
            paths.append(path)
        manifest.append({"Config": f"{sha256(config)}.json", "RepoTags": names, "Layers": paths})
    files["manifest.json"] = json.dumps(manifest).encode()
    return plain_tar(files)


def load_image(names, layers=None, **config):
    """Loads an image made here; returns its id."""
    layers = layers if layers is not None else [plain_tar({"f": b"x" * 1000})]
    text = config_of(layers, **config)
    hull("load", "-q", stdin=docker_archive([(names, text, layers)]), text=False)
    return "sha256:" + sha256(text)
