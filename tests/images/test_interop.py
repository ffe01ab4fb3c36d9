"""Archives of images between Hull and the tools that others use: skopeo, podman, buildah. No virtual machine is needed."""
import io
import json
import os
import shutil
import subprocess
import tarfile
import unittest

from fake_engine import FakeEngineTest, load_image, plain_tar
from harness import hull, unique

TOOL_SECONDS = 120


def needs(*programs):
    missing = [p for p in programs if not shutil.which(p)]
    return unittest.skipIf(missing or os.geteuid() != 0, f"not installed: {', '.join(missing)}" if missing else "needs root")


def tool(*command, stdin=None):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=TOOL_SECONDS, check=False,
                          input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def config_digest(image):
    return json.loads(tool("skopeo", "inspect", "--raw", image))["config"]["digest"]


def layers():
    """Two layers, the upper one with a whiteout, a link and an attribute."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        link = tarfile.TarInfo("etc/link")
        link.type, link.linkname = tarfile.SYMTYPE, "kept"
        tar.addfile(link)
        noted = tarfile.TarInfo("etc/noted")
        noted.pax_headers = {"SCHILY.xattr.user.note": "kept"}
        tar.addfile(noted)
        tar.addfile(tarfile.TarInfo("etc/.wh.gone"))
    return [plain_tar({"etc/kept": unique().encode(), "etc/gone": b"x" * 5000}), out.getvalue()]


class Interop(FakeEngineTest):
    def setUp(self):
        super().setUp()
        self.folder = self.temporary_folder()
        self.name = f"example.com/crew/{unique('app')}:v1"
        self.identity = load_image([self.name], layers=layers(), labels={"made": "here"})
        self.archive = self.folder / "hull.tar"
        hull("save", "-o", str(self.archive), self.name)

    def storage(self, program):
        return [program, "--root", self.folder / "storage", "--runroot", self.folder / "run", "--storage-driver", "vfs"]

    def loads_as(self, path, identity=None):
        """Hull loads the archive and has that image (the id names every layer's content); it is removed again."""
        hull("load", "-q", "-i", str(path))
        wanted = identity or self.identity
        self.assertEqual(hull("images", "-q", "--no-trunc").out.split(), [wanted])
        hull("rmi", "-f", wanted)

    @needs("skopeo")
    def test_skopeo_reads_what_hull_saves_and_hull_what_skopeo_writes(self):
        for transport in ("docker-archive", "oci-archive"):
            seen = json.loads(tool("skopeo", "inspect", "--config", f"{transport}:{self.archive}"))
            self.assertEqual(seen["config"]["Labels"], {"made": "here"})
        hull("rmi", "-f", self.identity)
        for source in ("docker-archive", "oci-archive"):
            for target in ("docker-archive", "oci-archive"):
                with self.subTest(source=source, target=target):
                    path = self.folder / f"{source}-{target}.tar"
                    tool("skopeo", "copy", f"{source}:{self.archive}", f"{target}:{path}:{self.name}")
                    # Between Docker's types and OCI's skopeo writes the configuration anew.
                    self.loads_as(path, config_digest(f"{target}:{path}"))

    @needs("skopeo")
    def test_hull_loads_layers_in_zstd_and_an_image_of_docker_types(self):
        for name, options in {"zstd": ["--dest-compress-format", "zstd", "--dest-compress"], "v2s2": ["--format", "v2s2"]}.items():
            with self.subTest(name):
                layout = self.folder / name
                tool("skopeo", "copy", *options, f"docker-archive:{self.archive}", f"oci:{layout}:{self.name}" if name == "zstd" else f"dir:{layout}")
                if name == "v2s2":
                    tool("skopeo", "copy", f"dir:{layout}", f"oci:{layout}.oci:{self.name}")
                    layout = self.folder / "v2s2.oci"
                path = self.folder / f"{name}.tar"
                tool("tar", "-C", layout, "-cf", path, ".")
                identity = config_digest(f"oci:{layout}")
                hull("rmi", "-f", self.identity, check=False)
                self.loads_as(path, identity)

    @needs("podman")
    def test_podman_loads_what_hull_saves_and_hull_what_podman_saves(self):
        podman = self.storage("podman")
        self.assertIn(self.name, tool(*podman, "load", "-i", self.archive))
        self.assertEqual("sha256:" + tool(*podman, "image", "inspect", "-f", "{{.Id}}", self.name).strip(), self.identity)
        mounted = tool(*podman, "image", "mount", self.name).strip()
        self.assertEqual(sorted(os.listdir(f"{mounted}/etc")), ["kept", "link", "noted"])
        self.assertEqual(os.getxattr(f"{mounted}/etc/noted", "user.note"), b"kept")
        tool(*podman, "image", "unmount", self.name)
        hull("rmi", "-f", self.identity)
        for form in ("docker-archive", "oci-archive"):
            with self.subTest(form):
                path = self.folder / f"podman-{form}.tar"
                tool(*podman, "save", "--format", form, "-o", path, self.name)
                hull("load", "-i", str(path))
                self.assertEqual(hull("images", "--format", "{{.Repository}}:{{.Tag}}").out.split(), [self.name])
                self.loads_as(path)

    @needs("podman")
    def test_several_images_go_both_ways(self):
        other = f"example.com/crew/{unique('other')}:v2"
        load_image([other], created="2021-01-01T00:00:00Z")
        both = self.folder / "both.tar"
        hull("save", "-o", str(both), self.name, other)
        podman = self.storage("podman")
        loaded = tool(*podman, "load", "-i", both)
        for name in (self.name, other):
            self.assertIn(name, loaded)
        path = self.folder / "multi.tar"
        tool(*podman, "save", "-m", "-o", path, self.name, other)
        hull("rmi", "-f", self.name, other)
        hull("load", "-i", str(path))
        self.assertEqual(sorted(hull("images", "--format", "{{.Repository}}:{{.Tag}}").out.split()), sorted([self.name, other]))

    @needs("buildah")
    def test_buildah_builds_on_what_hull_saves_and_hull_loads_the_result(self):
        buildah = self.storage("buildah")
        container = tool(*buildah, "from", f"docker-archive:{self.archive}").strip()
        (self.folder / "note").write_text("by buildah\n")
        tool(*buildah, "copy", container, self.folder / "note", "/etc/note")
        image = tool(*buildah, "commit", container).strip()
        hull("rmi", "-f", self.identity)
        for transport in ("docker-archive", "oci-archive"):
            with self.subTest(transport):
                path = self.folder / f"buildah-{transport}.tar"
                tool(*buildah, "push", image, f"{transport}:{path}:example.com/by/buildah:1")
                self.assertIn("example.com/by/buildah:1", hull("load", "-i", str(path)).out)
                self.loads_as(path, f"sha256:{image}")
