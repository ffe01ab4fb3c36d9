"""Images and tools that this project did not make."""
import json
import os
import pathlib
import shutil
import subprocess
import unittest

from harness import BUSYBOX, EngineTest, busybox_rootfs, free_port, hull, unique, wait_for

TOOL_SECONDS = 300
SMALL_LIMIT = 1000


def needs(*programs):
    missing = [p for p in programs if not shutil.which(p)]
    return unittest.skipIf(missing, f"not installed: {', '.join(missing)}")


def tool(*command, check=True, env=None, stdin=None):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=TOOL_SECONDS, input=stdin,
                          stdin=None if stdin is not None else subprocess.DEVNULL, env={**os.environ, **(env or {})}, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def podman_alone(*arguments):
    """podman in a mount namespace whose only cgroups are version 2 (crun refuses a host that mixes both), with small resource
    limits (its defaults may be higher than this process's, and raising them takes a capability that a CI host may lack)."""
    limits = []
    for name in ("nofile", "nproc"):
        limits += ["--ulimit", f"{name}={SMALL_LIMIT}:{SMALL_LIMIT}"]
    run = arguments.index("run")
    script = 'umount -R -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec podman "$@"'
    return tool("unshare", "--mount", "sh", "-c", script, "podman", *arguments[: run + 1], *limits, *arguments[run + 1:])


class DebianRegistry:
    """Debian's docker-registry on a port and folder of its own."""

    def __init__(self, folder):
        self.port = free_port()
        self.address = f"localhost:{self.port}"
        config = pathlib.Path(folder) / "registry.yml"
        config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n"
                          f"http: {{addr: '127.0.0.1:{self.port}'}}\n")
        self.process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: subprocess.run(["curl", "-sf", f"http://{self.address}/v2/"], capture_output=True, check=False).returncode == 0, "docker-registry answers")

    def close(self):
        self.process.terminate()
        self.process.wait(10)


class Images(EngineTest):
    @needs("buildah")
    def test_an_oci_image_built_by_buildah_runs(self):
        folder = self.temporary_folder()
        (folder / "root.tar").write_bytes(busybox_rootfs())
        storage = ["--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs"]
        container = tool("buildah", *storage, "from", "scratch").stdout.strip()
        tool("buildah", *storage, "add", container, folder / "root.tar", "/")
        (folder / "note").write_text("by buildah\n")
        tool("buildah", *storage, "copy", container, folder / "note", "/note")
        tool("buildah", *storage, "config", "--cmd", "cat /note", "--env", "PATH=/bin", "--workingdir", "/tmp", container)
        name = f"hull-test/{unique()}"
        image = tool("buildah", *storage, "commit", container).stdout.strip()
        tool("buildah", *storage, "push", image, f"oci-archive:{folder}/image.tar:{name}:v1")
        loaded = hull("load", "-i", str(folder / "image.tar")).out
        self.assertIn("Loaded image", loaded)
        reference = loaded.split()[-1]
        self.addCleanup(hull, "rmi", "-f", reference, check=False)
        self.assertEqual(self.run_in(image=reference).out, "by buildah\n")
        self.assertEqual(self.run_in("pwd", image=reference).out, "/tmp\n")

    @needs("skopeo")
    def test_an_image_pushed_by_skopeo_is_run_from_hull_registry(self):
        registry = self.registry()
        folder = self.temporary_folder()
        hull("save", "-o", str(folder / "image.tar"), BUSYBOX)
        name = f"{registry.address}/by/skopeo:1"
        tool("skopeo", "copy", "--dest-tls-verify=false", f"docker-archive:{folder}/image.tar", f"docker://{name}")
        self.addCleanup(hull, "rmi", "-f", name, check=False)
        self.assertEqual(hull("run", "--rm", name, "echo", "from skopeo").out, "from skopeo\n")
        tags = json.loads(tool("skopeo", "list-tags", "--tls-verify=false", f"docker://{registry.address}/by/skopeo").stdout)
        self.assertEqual(tags["Tags"], ["1"])
        tool("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{folder}/back:1")

    @needs("docker-registry", "skopeo", "podman")
    def test_an_image_pushed_to_debians_registry_is_good_for_others(self):
        folder = self.temporary_folder()
        server = DebianRegistry(folder)
        self.addCleanup(server.close)
        name = f"{server.address}/from/hull:1"
        hull("tag", BUSYBOX, name)
        self.addCleanup(hull, "rmi", "-f", name, check=False)
        hull("push", name)
        info = json.loads(tool("skopeo", "inspect", "--tls-verify=false", f"docker://{name}").stdout)
        self.assertEqual((info["Os"], info["Architecture"]), ("linux", "amd64"))
        hull("rmi", name)
        self.assertEqual(hull("run", "--rm", name, "echo", "back").out, "back\n")
        storage = ["--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]
        tool("podman", *storage, "pull", "--tls-verify=false", name)
        run = podman_alone(*storage, "run", "--rm", "--network", "none", "--cgroups", "disabled", name, "echo", "podman")
        self.assertEqual(run.stdout, "podman\n")


@needs("docker")
class DockerClient(EngineTest):
    """The docker command line against hulld, unchanged."""

    def docker(self, *args, check=True, stdin=None):
        return tool("docker", *args, check=check, stdin=stdin,
                    env={"DOCKER_HOST": os.environ["HULL_HOST"], "DOCKER_BUILDKIT": "0", "DOCKER_CONFIG": str(self.temporary_folder())})

    def test_run_exec_logs_rm(self):
        self.assertEqual(self.docker("run", "--rm", BUSYBOX, "echo", "docker").stdout, "docker\n")
        self.assertEqual(self.docker("run", "--rm", "-i", BUSYBOX, "cat", stdin="fed\n").stdout, "fed\n")
        self.assertEqual(self.docker("run", "--rm", BUSYBOX, "sh", "-c", "exit 3", check=False).returncode, 3)
        self.assertEqual(self.docker("run", "--rm", BUSYBOX, "missing", check=False).returncode, 127)
        name = unique()
        self.addCleanup(hull, "rm", "-f", name, check=False)
        self.docker("run", "-d", "--name", name, BUSYBOX, "sh", "-c", "echo up; sleep 1000")
        wait_for(lambda: self.docker("logs", name).stdout == "up\n", "docker logs")
        self.assertEqual(self.docker("exec", name, "echo", "in").stdout, "in\n")
        self.assertIn(name, self.docker("ps").stdout)
        self.assertEqual(self.docker("inspect", "-f", "{{.State.Running}} {{.Config.Image}}", name).stdout, f"true {BUSYBOX}\n")
        self.docker("stop", "-t", "0", name)
        self.docker("rm", name)

    def test_images_and_system(self):
        self.assertIn(BUSYBOX, self.docker("images").stdout)
        self.assertIn("Server", self.docker("version").stdout)
        self.docker("info")
        name = f"hull-test/{unique()}"
        self.docker("tag", BUSYBOX, name)
        self.docker("history", name)
        self.docker("rmi", name)

    def test_the_classic_builder(self):
        folder = self.temporary_folder()
        (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY x /x\nRUN cat /x > /y\n")
        (folder / "x").write_text("by docker build\n")
        name = f"hull-test/{unique()}"
        self.addCleanup(hull, "rmi", "-f", name, check=False)
        built = self.docker("build", "-t", name, folder)
        self.assertRegex(built.stdout, "Successfully built [0-9a-f]{12}")
        self.assertEqual(self.docker("run", "--rm", name, "cat", "/y").stdout, "by docker build\n")

    def test_the_classic_builder_takes_an_image_as_a_cache(self):
        folder = self.temporary_folder()
        (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY x /x\nRUN cat /proc/sys/kernel/random/uuid > /id\n")
        (folder / "x").write_text(unique())
        first, again, other = (f"hull-test/{unique()}" for _ in range(3))
        self.addCleanup(hull, "rmi", "-f", first, again, other, check=False)
        self.docker("build", "-t", first, folder)
        identity = self.docker("run", "--rm", first, "cat", "/id").stdout
        hull("builder", "prune", "-f")
        built = self.docker("build", "-t", again, "--cache-from", first, folder)
        self.assertEqual(built.stdout.count(" ---> Using cache"), 2, built.stdout)
        self.assertEqual(self.docker("run", "--rm", again, "cat", "/id").stdout, identity)
        hull("builder", "prune", "-f")
        self.docker("build", "-t", other, folder)
        self.assertNotEqual(self.docker("run", "--rm", other, "cat", "/id").stdout, identity)

    def test_push_and_pull(self):
        registry = self.registry()
        name = f"{registry.address}/docker/cli:1"
        self.docker("tag", BUSYBOX, name)
        self.docker("push", name)
        self.docker("rmi", name)
        self.docker("pull", name)
        self.docker("rmi", name)
