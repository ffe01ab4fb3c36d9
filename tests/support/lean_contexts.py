"""What travels of a build's context to an engine that is reached by ssh: counted byte by byte on the way (counting_ssh.py). Steps
that need no machine, so that any engine does; mixed into a test class that says which (`socket_path`, `temporary_folder`)."""
import json
import os
import pathlib
import shutil
import tarfile

from harness import HULL, hull, unique

BIG = 4 << 20
LITTLE = 100_000  # far less than any big file here, far more than names and headers


class LeanContexts:
    maxDiff = None

    def setUp(self):
        super().setUp()
        self.folder = self.temporary_folder() / "context"
        self.folder.mkdir()
        (self.folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        (self.folder / "big").write_bytes(os.urandom(BIG))
        (self.folder / "sub").mkdir()
        (self.folder / "sub/other").write_bytes(os.urandom(BIG))
        (self.folder / "small").write_text("small")
        tools = self.temporary_folder()
        shutil.copy(pathlib.Path(__file__).with_name("counting_ssh.py"), tools / "ssh")
        self.log = tools / "log"
        self.remote = {"PATH": f"{tools}:{os.environ['PATH']}", "HULL_HOST": "ssh://engine", "COUNTING_LOG": str(self.log),
                       "COUNTING_SOCKET": self.socket_path(), "XDG_CACHE_HOME": str(tools / "cache"), "SOURCE_DATE_EPOCH": "1700000000"}
        self.addCleanup(hull, "builder", "prune", "-f", check=False)
        hull("builder", "prune", "-f")

    def requests(self, path):
        """Bytes that went to `path`, of each request since the last question."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [line["sent"] for line in lines if line["path"] == path]

    def build(self, *options, env=None):
        """Builds through the counting way; the image's id, the bytes of all builds' requests, and what was said."""
        self.log.unlink(missing_ok=True)
        name = f"hull-test/{unique()}"
        self.addCleanup(hull, "rmi", "-f", name, check=False)
        result = hull("build", "-t", name, *options, self.folder, env={**self.remote, **(env or {})})
        return hull("inspect", "-f", "{{.Id}}", name).out, sum(self.requests("/build")), result.err

    def built_here(self, *options):
        """The same by the engine's own socket, which nobody takes for that of hull machine: the tar travels whole."""
        name = f"hull-test/{unique()}"
        self.addCleanup(hull, "rmi", "-f", name, check=False)
        result = hull("build", "-t", name, *options, self.folder,
                      env={"SOURCE_DATE_EPOCH": "1700000000", "HULL_STATE": str(self.temporary_folder())})
        return hull("inspect", "-f", "{{.Id}}", name).out, result.err

    def files(self, *options):
        """The image's files by name, as the engine gives them."""
        out = self.temporary_folder() / "root.tar"
        hull("build", "-o", f"type=tar,dest={out}", *options, self.folder, env=self.remote)
        with tarfile.open(out) as tar:
            return {member.name.rstrip("/"): (member, tar.extractfile(member).read() if member.isreg() else None) for member in tar}

    def test_the_second_build_sends_little_and_makes_the_same(self):
        image, sent, said = self.build()
        self.assertGreater(sent, 2 * BIG)
        again, sent, said = self.build("--no-cache")
        self.assertLess(sent, LITTLE, said)
        self.assertEqual(again, image)
        self.assertRegex(said, r"transferring context: [0-9.]+k?B of 8.39MB \(8.39MB unchanged\)")
        whole, said = self.built_here()
        self.assertEqual(whole, image)
        self.assertEqual(said.count(" CACHED\n"), 1, said)

    def test_a_cache_of_whole_tars_hits_for_lean_ones(self):
        image, _ = self.built_here()
        lean, sent, said = self.build()
        self.assertEqual(lean, image)
        self.assertGreater(sent, 2 * BIG)  # of a whole tar nothing is kept
        self.assertEqual(said.count(" CACHED\n"), 1, said)

    def test_a_changed_file_travels_alone(self):
        self.build()
        changed = os.urandom(BIG // 2)
        (self.folder / "sub/other").write_bytes(changed)
        _, sent, said = self.build()
        self.assertGreater(sent, BIG // 2)
        self.assertLess(sent, BIG // 2 + LITTLE, said)
        files = self.files()
        self.assertEqual(files["sub/other"][1], changed)
        self.assertEqual(files["big"][1], (self.folder / "big").read_bytes())
        self.assertIn("hull-test/", hull("images").out)  # an export of the same takes no image away that has a name

    def test_a_change_of_neither_size_nor_time_is_seen(self):
        self.build()
        self.build()  # the second knows the files without reading them
        old = (self.folder / "big").stat()
        changed = os.urandom(BIG)
        (self.folder / "big").write_bytes(changed)
        os.utime(self.folder / "big", ns=(old.st_atime_ns, old.st_mtime_ns))
        self.assertEqual(self.files()["big"][1], changed)

    def test_names_modes_and_links_arrive_without_their_contents(self):
        self.build()
        (self.folder / "small").unlink()
        (self.folder / "big").rename(self.folder / "moved")
        (self.folder / "sub/other").chmod(0o751)
        (self.folder / "link").symlink_to("moved")
        os.link(self.folder / "moved", self.folder / "hard")
        (self.folder / "copy").write_bytes((self.folder / "moved").read_bytes())
        with open(self.folder / "sparse", "wb") as sparse:
            sparse.truncate(64 << 20)
        _, sent, said = self.build()
        self.assertLess(sent, LITTLE, said)
        image, sent, said = self.build("--no-cache")
        self.assertLess(sent, LITTLE, said)
        self.assertEqual(image, self.built_here("--no-cache")[0])
        files = self.files()
        data = (self.folder / "moved").read_bytes()
        self.assertNotIn("small", files)
        self.assertNotIn("big", files)
        self.assertEqual(files["copy"][1], data)
        self.assertEqual(files["sub/other"][0].mode, 0o751)
        self.assertEqual(files["link"][0].linkname, "moved")
        self.assertEqual(files["hard"][1], data)
        self.assertEqual(files["sparse"][1], bytes(64 << 20))

    def test_folders_of_named_contexts_travel_lean_too(self):
        other = self.temporary_folder()
        (other / "data").write_bytes(os.urandom(BIG))
        (self.folder / "Dockerfile").write_text("FROM scratch\nCOPY --from=other data /from-other\nCOPY big /\n")
        _, sent, _ = self.build("--build-context", f"other={other}")
        self.assertGreater(sent, 3 * BIG)
        _, sent, said = self.build("--build-context", f"other={other}")
        self.assertLess(sent, LITTLE, said)
        self.assertEqual(self.files("--build-context", f"other={other}")["from-other"][1], (other / "data").read_bytes())

    def test_what_was_pruned_is_sent_again(self):
        image, _, _ = self.build()
        self.assertRegex(hull("builder", "du").out, r"source.local\s+8.4[0-9]*MB")
        hull("builder", "prune", "-f")
        self.assertNotIn("source.local", hull("builder", "du").out)
        again, sent, _ = self.build()
        self.assertGreater(sent, 2 * BIG)
        self.assertEqual(again, image)

    def test_what_is_pruned_between_question_and_build_is_sent_whole(self):
        image, _, _ = self.build()
        prune = json.dumps([HULL, "-H", os.environ["HULL_HOST"], "builder", "prune", "-f"])
        again, _, said = self.build(env={"COUNTING_BEFORE": prune})
        self.assertEqual(again, image)
        builds = self.requests("/build")
        self.assertEqual(len(builds), 2, said)
        self.assertLess(builds[0], LITTLE)
        self.assertGreater(builds[1], 2 * BIG)

    def test_an_engine_that_knows_no_lean_contexts_gets_the_tar(self):
        image, _, _ = self.build()
        again, sent, _ = self.build(env={"COUNTING_REFUSE": "/build/contents"})
        self.assertEqual(again, image)
        self.assertGreater(sent, 2 * BIG)

    def test_a_small_context_and_one_over_the_engines_own_socket_travel_whole(self):
        self.built_here()
        self.assertNotIn("source.local", hull("builder", "du").out)
        (self.folder / "big").unlink()
        (self.folder / "sub/other").unlink()
        self.build()
        self.assertEqual(self.requests("/build/contents"), [])
