"""The options of hull build, natively: steps that need no machine."""
import io
import json
import os
import tarfile

from fake_engine import FakeEngineTest, plain_tar
from harness import hull

DOCKERFILE = "FROM scratch\nCOPY a.txt /\n"


class Options(FakeEngineTest):
    def setUp(self):
        super().setUp()
        self.folder = self.temporary_folder() / "context"
        self.folder.mkdir()
        (self.folder / "Dockerfile").write_text(DOCKERFILE)
        (self.folder / "a.txt").write_text("A\n")
        self.out = self.temporary_folder()

    def identity(self, name):
        return hull("inspect", "-f", "{{.Id}}", name).out.strip()

    def test_files_of_a_build_say_what_was_made(self):
        hull("build", "-t", "app:1", "-t", "app:2", "--iidfile", self.out / "id", "--metadata-file", self.out / "metadata", self.folder)
        identity = self.identity("app:1")
        self.assertEqual((self.out / "id").read_text(), identity)
        metadata = json.loads((self.out / "metadata").read_text())
        self.assertEqual((metadata["containerimage.config.digest"], metadata["image.name"]), (identity, "app:1,app:2"))
        self.assertEqual(hull("build", "-q", self.folder).out.strip(), identity)

    def test_outputs(self):
        names = {}
        for kind in ("tar", "oci", "docker"):
            hull("build", "-t", "app:1", "-o", f"type={kind},dest={self.out}/{kind}", self.folder)
            with tarfile.open(self.out / kind) as tar:
                names[kind] = set(tar.getnames())
        self.assertEqual(names["tar"], {"a.txt"})
        self.assertLessEqual({"oci-layout", "index.json"}, names["oci"])
        self.assertIn("manifest.json", names["docker"])
        hull("build", "-o", f"type=local,dest={self.out}/folder", self.folder)
        self.assertEqual((self.out / "folder/a.txt").read_text(), "A\n")
        with tarfile.open(fileobj=io.BytesIO(hull("build", "-o", "-", self.folder, text=False).out)) as tar:
            self.assertEqual(tar.getnames(), ["a.txt"])
        os.mkfifo(self.out / "pipe")
        reader = os.open(self.out / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        hull("build", "-o", f"type=tar,dest={self.out}/pipe", self.folder)
        self.assertIn(b"a.txt", os.read(reader, 1 << 16))
        self.assertTrue((self.out / "pipe").is_fifo())
        for wrong in ("type=zip,dest=x", "type=local", "dst=x"):
            self.assertEqual(hull("build", "-o", wrong, self.folder, check=False).status, 125, wrong)

    def test_a_context_may_be_a_tar_on_standard_input(self):
        for options, files in (((), {"Dockerfile": DOCKERFILE.encode(), "a.txt": b"A\n"}),
                               (("-f", "sub/other"), {"sub/other": DOCKERFILE.encode(), "a.txt": b"A\n"})):
            done = hull("build", "-t", "app:tar", *options, "-", stdin=plain_tar(files), text=False)
            self.assertEqual(done.status, 0)
            self.assertEqual(hull("build", "-q", "-t", "app:folder", self.folder).status, 0)
        self.assertEqual(hull("build", "-q", "-", stdin="FROM scratch\nENV A=b\n").status, 0)

    def test_progress_in_its_modes(self):
        plain = hull("build", "--progress", "plain", self.folder)
        self.assertRegex(plain.err, r"#\d+ \[stage-0 2/2\] COPY a.txt /\n")
        events = [json.loads(line) for line in hull("build", "--no-cache", "--progress", "rawjson", self.folder).err.splitlines()]
        self.assertIn("[stage-0 2/2] COPY a.txt /", [event.get("hull", {}).get("name") for event in events])
        self.assertIn("fancy", hull("build", "--progress", "fancy", self.folder, check=False).err)

    def test_stages_that_are_built_again(self):
        (self.folder / "Dockerfile").write_text("FROM scratch AS one\nCOPY a.txt /1\nFROM scratch AS two\nCOPY a.txt /2\nCOPY --from=one /1 /1\n")
        def cached(*options):
            return sorted(line.split("[")[1].split(" ")[0] for line in self.lines(*options) if "CACHED" in line)
        cached()
        self.assertEqual(cached(), ["one", "two", "two"])
        self.assertEqual(cached("--no-cache-filter", "two"), ["one"])
        self.assertEqual(cached("--no-cache-filter", "one"), ["two", "two"])
        self.assertEqual(cached("--no-cache"), [])
        self.assertEqual(cached("--target", "two", "--target", "one"), ["one"])  # the last of two

    def lines(self, *options):
        """A line for each step: its name, and CACHED when it was."""
        steps = {}
        for line in hull("build", "--progress", "plain", *options, self.folder).err.splitlines():
            number, _, text = line.partition(" ")
            if text.startswith("[") and not text.startswith("[internal"):
                steps[number] = text
            elif text == "CACHED" and number in steps:
                steps[number] += " CACHED"
        return steps.values()

    def test_secrets_need_a_value_and_a_name_of_their_own(self):
        for wrong, said in ((["id=a,src=/no/such"], "/no/such"), (["id=a,env=HULL_NO_SUCH"], "no variable HULL_NO_SUCH"), (["src=x"], "id=NAME is missing"),
                            (["id=a,src=/etc/hostname", "id=a,src=/etc/hostname"], "given twice")):
            done = hull("build", *[word for text in wrong for word in ("--secret", text)], self.folder, check=False)
            self.assertNotEqual(done.status, 0)
            self.assertIn(said, done.err)
        large = self.out / "large"
        large.write_bytes(b"x" * (500 * 1024))
        hull("build", "--secret", f"id=large,src={large}", self.folder)
        large.write_bytes(b"x" * (500 * 1024 + 1))
        self.assertIn("large", hull("build", "--secret", f"id=large,src={large}", self.folder, check=False).err)
