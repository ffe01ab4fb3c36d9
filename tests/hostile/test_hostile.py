"""Images, archives and guests that mean harm: refused or contained, and the engine goes on."""
import gzip
import io
import json
import os
import signal
import subprocess
import tarfile

from harness import BUSYBOX, COMMAND_SECONDS, HULL, EngineTest, hull, tar_of, unique, wait_for


class HostileArchives(EngineTest):
    def tearDown(self):
        self.assertEqual(hull("run", "--rm", BUSYBOX, "echo", "alive").out, "alive\n")

    def import_tar(self, data):
        file = self.temporary_folder() / "root.tar"
        file.write_bytes(data)
        name = f"hull-test/{unique()}"
        self.addCleanup(hull, "rmi", "-f", name, check=False)
        return name, hull("import", str(file), name, check=False)

    def refused(self, data):
        name, result = self.import_tar(data)
        self.assertEqual(result.status, 1, result)
        self.assertTrue(result.err.strip(), "an error is said")
        self.assertEqual(hull("image", "inspect", name, check=False).status, 1)
        return result.err

    def test_a_truncated_tar(self):
        whole = tar_of({"a": b"x" * 10_000, "b": b"y" * 10_000})
        self.refused(whole[:12_000])
        self.refused(gzip.compress(whole)[:-30])

    def test_no_tar_at_all(self):
        self.refused(os.urandom(20_000))
        self.refused(b"\x1f\x8b" + os.urandom(5_000))

    def test_a_gzip_bomb(self):
        out = io.BytesIO()
        with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9) as bomb:
            header = tarfile.TarInfo("big")
            header.size = 1 << 40
            bomb.write(header.tobuf())
            block = bytes(1 << 20)
            for _ in range(200):
                bomb.write(block)
        self.refused(out.getvalue())

    def test_paths_and_links_that_point_outside_stay_inside(self):
        def link(info):
            info.type, info.linkname = tarfile.SYMTYPE, "/../../../../etc"
        name, result = self.import_tar(tar_of({"evil": link, "evil/owned": b"x", "../../escape": b"x"}))
        if result.status == 0:  # kept inside the root, as containerd does
            self.assertEqual(hull("image", "inspect", name).status, 0)
        for path in ("/etc/owned", "/escape"):
            self.assertFalse(os.path.exists(path), path)

    def test_a_config_that_points_nowhere(self):
        for manifest in ([], [{}], [{"Config": "../../../etc/passwd", "RepoTags": ["a:b"], "Layers": []}],
                         [{"Config": "c", "RepoTags": ["a:b"], "Layers": ["missing"]}], {"not": "a list"}, None, [[[[[]]]]]):
            archive = self.temporary_folder() / "image.tar"
            archive.write_bytes(tar_of({"manifest.json": json.dumps(manifest).encode(), "c": b"{}"}))
            result = hull("load", "-i", str(archive), check=False)
            self.assertEqual(result.status, 1, (manifest, result))


class HostileGuests(EngineTest):
    def test_a_fork_bomb_hurts_only_itself(self):
        name = self.container("--pids-limit", "100", "--", "sh", "-c", "b() { b | b & }; b; sleep 1000")
        self.assertEqual(hull("run", "--rm", BUSYBOX, "echo", "other").out, "other\n")
        hull("rm", "-f", name)

    def test_a_fork_bomb_in_a_build_step_ends_with_the_step(self):
        neighbour = self.container("--", "sleep", "1000")
        bomb = "b() { b | b & }; b 2>/dev/null; "
        folder = self.temporary_folder()
        (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN {bomb} i=0; while [ $i -lt 50 ]; do i=$((i+1)); done; exit 7\n")
        result = hull("build", folder, check=False)
        self.assertIn("non-zero code: 7 ", result.err)
        self.assertEqual(hull("exec", neighbour, "echo", "fine").out, "fine\n")

    def test_a_fork_bomb_in_a_build_step_ends_when_the_build_is_cancelled(self):
        cache = unique("cache")
        folder, after = self.temporary_folder(), self.temporary_folder()
        (folder / "Dockerfile").write_text(
            f"FROM {BUSYBOX}\nRUN --mount=type=cache,id={cache},target=/c echo begun && b() {{ b | b & }}; b 2>/dev/null; while :; do :; done\n")
        bomb = subprocess.Popen([HULL, "build", "--progress", "plain", folder], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            self.assertTrue(any(line.endswith(" begun\n") for line in bomb.stderr))
            self.assertEqual(hull("run", "--rm", BUSYBOX, "echo", "other").out, "other\n")
        finally:
            bomb.terminate()  # SIGINT is ignored below a shell's background job
            bomb.wait(COMMAND_SECONDS)
            bomb.stderr.close()
        # The cache is a disk of one machine at a time: whoever gets it has outlived the bomb's.
        (after / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN --mount=type=cache,id={cache},target=/c echo free {unique()}\n")
        self.assertIn(" free ", hull("build", "--progress", "plain", after).err)

    def test_a_kernel_panic_ends_that_container_alone(self):
        neighbour = self.container("--", "sleep", "1000")
        name = self.container("--privileged", "--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 1000")
        wait_for(lambda: hull("inspect", "-f", "{{.State.Status}}", name).out == "exited\n", "the VM that panicked is gone")
        self.assertNotEqual(hull("inspect", "-f", "{{.State.ExitCode}}", name).out, "0\n")
        self.assertEqual(hull("exec", neighbour, "echo", "fine").out, "fine\n")

    def test_endless_output_to_nobody_holds_nothing_up(self):
        name = self.container("--", "sh", "-c", "yes")
        self.assertEqual(hull("run", "--rm", BUSYBOX, "echo", "other").out, "other\n")
        hull("rm", "-f", name)

    def test_a_reader_that_never_reads(self):
        name = self.container("--", "sh", "-c", "yes")
        stuck = subprocess.Popen([HULL, "logs", "-f", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            self.assertEqual(hull("exec", name, "echo", "through").out, "through\n")
            hull("rm", "-f", name)
        finally:
            stuck.send_signal(signal.SIGKILL)
            stuck.wait()
            stuck.stdout.close()

    def test_a_full_writable_disk_is_the_guests_problem(self):
        result = hull("run", "--rm", BUSYBOX, "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=20000000 2>&1 | tail -n 1; echo still here",
                      check=False) if os.environ.get("HULL_TEST_FILL_DISK") else None
        if result is None:
            self.skipTest("writes a whole disk: set HULL_TEST_FILL_DISK=1")
        self.assertIn("still here", result.out)
