"""The verbs of images as Docker's users know them, by the command line and by the API. No virtual machine is needed."""
import io
import json
import os
import stat
import tarfile

from fake_engine import FakeEngineTest, config_of, docker_archive, load_image, plain_tar
from harness import hull


def rows(*arguments):
    return hull("images", "--format", "{{.Repository}}:{{.Tag}}", *arguments).out.split()


class NamesAndFiles(FakeEngineTest):
    def test_what_is_no_name_is_refused(self):
        load_image(["app:1"])
        for name in ("sha256:abcd", "a" * 64, "a" * 64 + ":1", "App:1"):
            result = hull("tag", "app:1", name, check=False)
            self.assertEqual((result.status, len(result.err.splitlines())), (1, 1), name)
        self.assertEqual(rows(), ["app:1"])

    def test_a_digest_cannot_be_pushed(self):
        load_image(["localhost:1/app:1"])
        digest = "sha256:" + "0" * 64
        self.assertIn("cannot push a digest reference", hull("push", f"localhost:1/app@{digest}", check=False).err)
        answer = self.api("POST", f"/images/localhost:1/app/push?tag={digest}", status=400)
        self.assertIn("cannot push a digest reference", answer["message"])

    def test_an_archive_goes_into_a_pipe_and_leaves_a_link_alone(self):
        load_image(["app:1"])
        folder = self.temporary_folder()
        (folder / "link").symlink_to("file")
        (folder / "file").write_text("before")
        hull("save", "-o", folder / "link", "app:1")
        self.assertTrue((folder / "link").is_symlink())
        self.assertTrue(tarfile.is_tarfile(folder / "file"))
        self.assertIn("manifest.json", tarfile.open(fileobj=io.BytesIO(hull("save", "-o", "/dev/stdout", "app:1", text=False).out)).getnames())
        hull("save", "-o", "/dev/null", "app:1")
        self.assertTrue(stat.S_ISCHR(os.stat("/dev/null").st_mode))


class Listing(FakeEngineTest):
    def test_one_row_for_each_name_newest_image_first(self):
        old = load_image(["app:1", "other/app:x"], created="2020-01-01T00:00:00Z")
        new = load_image(["app:2"], created="2021-01-01T00:00:00Z")
        nameless = load_image(None, created="2019-01-01T00:00:00Z")
        listing = hull("images").out.splitlines()
        self.assertEqual(listing[0].split(), ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"])
        self.assertEqual([line.split()[:3] for line in listing[1:]],
                         [["app", "2", new[7:19]], ["app", "1", old[7:19]], ["other/app", "x", old[7:19]], ["<none>", "<none>", nameless[7:19]]])
        self.assertEqual(hull("images", "-q").out.split(), [new[7:19], old[7:19], old[7:19], nameless[7:19]])
        self.assertEqual(hull("image", "ls", "-q", "--no-trunc", "app:2").out.split(), [new])
        self.assertEqual(rows("app"), ["app:2", "app:1"])
        self.assertEqual(rows("-a"), rows())

    def test_filters(self):
        load_image(["a:1"], created="2020-01-01T00:00:00Z", labels={"kind": "x"})
        load_image(["b:1"], created="2021-01-01T00:00:00Z", labels={"kind": "y", "more": "1"})
        load_image(["c:1"], created="2022-01-01T00:00:00Z")
        load_image(None, created="2023-01-01T00:00:00Z")
        for filters, wanted in [
                (["before=b:1"], ["a:1"]), (["since=b:1"], ["<none>:<none>", "c:1"]), (["since=a:1", "before=c:1"], ["b:1"]),
                (["dangling=true"], ["<none>:<none>"]), (["dangling=false"], ["c:1", "b:1", "a:1"]),
                (["label=kind"], ["b:1", "a:1"]), (["label=kind=x"], ["a:1"]), (["label=kind", "label=more=1"], ["b:1"]),
                (["reference=[ab]:*"], ["b:1", "a:1"]), (["reference=a", "reference=c"], ["c:1", "a:1"]), (["reference=no*"], []),
                (["until=2021-06-01"], ["b:1", "a:1"])]:
            with self.subTest(filters=filters):
                self.assertEqual(rows(*[word for text in filters for word in ("-f", text)]), wanted)
        for wrong in ("nonsense=1", "dangling", "dangling=maybe", "before=no/such"):
            result = hull("images", "-f", wrong, check=False)
            self.assertEqual(result.status, 1, wrong)
            self.assertEqual(len(result.err.splitlines()), 1, result)

    def test_formats(self):
        identity = load_image(["app:1"], created="2020-01-02T03:04:05Z")
        self.assertEqual(hull("images", "--format", "{{.ID}} {{.Repository}} {{.Tag}} {{.Digest}} {{.Size}}").out, f"{identity[7:19]} app 1 <none> 1kB\n")
        self.assertRegex(hull("images", "--format", "{{.CreatedAt}}").out, r"^2020-01-0[123] \d\d:04:05 [+-]\d{4} \S+\n$")
        self.assertRegex(hull("images", "--format", "table {{.ID}}\t{{.CreatedAt}}").out, r"^IMAGE ID +CREATED AT\n" + identity[7:19])
        row = json.loads(hull("images", "--format", "json").out)
        self.assertEqual((row["Repository"], row["Tag"], row["ID"]), ("app", "1", identity[7:19]))
        self.assertEqual(hull("images", "--format", "{{.Nonsense}}", check=False).status, 1)

    def test_a_tree_shows_platforms_and_use(self):
        load_image(["app:1", "app:2"], created="2021-01-01T00:00:00Z")
        load_image(["far:1"], arch="arm64", created="2020-01-01T00:00:00Z")
        hull("create", "app:1")
        lines = hull("images", "--tree").out.splitlines()
        self.assertEqual(lines[0].split("   ")[0], "IMAGE")
        self.assertEqual([line.split()[0] for line in lines[1:]], ["app:1", "app:2", "└─", "far:1", "└─"])
        self.assertTrue(lines[2].rstrip().endswith("U"))
        self.assertIn("linux/amd64", lines[3])
        self.assertIn("linux/arm64", lines[5])
        self.assertEqual(hull("images", "--tree", "-q", check=False).status, 1)

    def test_the_api_gives_shared_sizes_and_manifests(self):
        base = plain_tar({"base": b"b" * 5000})
        load_image(["one:1"], layers=[base, plain_tar({"one": b"1"})])
        load_image(["two:1"], layers=[base])
        images = {image["RepoTags"][0]: image for image in self.api("GET", "/images/json?shared-size=1&manifests=1")}
        self.assertEqual((images["one:1"]["Size"], images["one:1"]["SharedSize"]), (5001, 5000))
        self.assertEqual(images["two:1"]["SharedSize"], 5000)
        manifest = images["one:1"]["Manifests"][0]
        self.assertEqual(manifest["ImageData"]["Platform"], {"architecture": "amd64", "os": "linux"})
        self.assertEqual(manifest["ID"], manifest["Descriptor"]["digest"])
        self.assertEqual(self.api("GET", "/images/json")[0]["SharedSize"], -1)
        self.assertEqual(self.api("GET", "/system/df")["LayersSize"], 5001)


class History(FakeEngineTest):
    LAYERS = [plain_tar({"a": b"a" * 3000}), plain_tar({"b": b"b" * 20})]
    STEPS = [{"created": "2020-01-01T00:00:00Z", "created_by": "ADD base"},
             {"created": "2020-01-02T00:00:00Z", "created_by": "ENV A=" + "b" * 60, "empty_layer": True},
             {"created": "2020-01-03T00:00:00Z", "created_by": "COPY\tb /", "comment": "last"}]

    def test_steps_newest_first_with_what_each_added(self):
        identity = load_image(["app:1"], layers=self.LAYERS, history=self.STEPS)
        self.assertEqual(hull("history", "--format", "{{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}}", "app:1").out.splitlines(),
                         [f"{identity[7:19]}|COPY b /|20B|last", "<missing>|ENV A=" + "b" * 38 + "…|0B|", "<missing>|ADD base|3kB|"])
        self.assertEqual(hull("history", "-q", "--no-trunc", "app:1").out.split(), [identity, "<missing>", "<missing>"])
        self.assertIn("b" * 60, hull("history", "--no-trunc", "app:1").out)
        self.assertEqual(hull("history", "--human=false", "--format", "{{.Size}} {{.CreatedAt}}", "app:1").out.splitlines()[2].split()[0], "3000")
        self.assertRegex(hull("image", "history", "app:1").out.splitlines()[0], "^IMAGE +CREATED +CREATED BY +SIZE +COMMENT$")
        self.assertRegex(hull("history", "--human=false", "app:1").out.splitlines()[0], "^IMAGE +CREATED AT +CREATED BY")
        result = hull("history", "no/such", check=False)
        self.assertEqual((result.status, result.out), (1, ""))
        self.assertIn("No such image: no/such:latest", result.err)


class Names(FakeEngineTest):
    def test_an_image_is_found_by_tag_id_and_short_id(self):
        identity = load_image(["app:1", "localhost:5000/x/app:2"])
        for name in ("app:1", "docker.io/library/app:1", "localhost:5000/x/app:2", identity, identity[7:], identity[7:19], identity[:19], identity[7:11]):
            self.assertEqual(hull("image", "inspect", "-f", "{{.Id}}", name).out.strip(), identity, name)
        for name in ("app", "app:3", "localhost:5000/app:2", identity[8:20]):
            self.assertEqual(hull("image", "inspect", name, check=False).status, 1, name)

    def test_inspect_says_what_an_image_is(self):
        load_image(["app:1"], arch="arm64", labels={"a": "b"}, cmd=["/bin/x", "y"])
        self.assertEqual(hull("inspect", "-f", "{{.Os}}/{{.Architecture}} {{json .Config.Cmd}} {{index .RepoTags 0}} {{len .RootFS.Layers}} {{.Created}}", "app:1").out,
                         'linux/arm64 ["/bin/x","y"] app:1 1 2024-05-06T07:08:09Z\n')
        two = json.loads(hull("image", "inspect", "app:1", "app:1").out)
        self.assertEqual(len(two), 2)
        self.assertEqual(two[0]["Descriptor"]["mediaType"], "application/vnd.oci.image.manifest.v1+json")
        result = hull("image", "inspect", "app:1", "no/such", check=False)
        self.assertEqual(result.status, 1)
        self.assertEqual(len(json.loads(result.out)), 1)
        self.assertIn("No such image: no/such", result.err)

    def test_tags_move_and_bad_ones_are_refused(self):
        one, two = load_image(["one:1"]), load_image(["two:1"], created="2021-01-01T00:00:00Z")
        hull("tag", one[7:19], "name")
        hull("tag", "two:1", "name:latest")
        self.assertEqual(hull("image", "inspect", "-f", "{{.Id}}", "name").out.strip(), two)
        for bad in ("UPPER", "a b", "x:" + "t" * 129, "name@sha256:" + "0" * 64, "-x", "http://x/y", "a//b"):
            self.assertNotEqual(hull("tag", "one:1", "--", bad, check=False).status, 0, bad)
        self.assertEqual(hull("tag", "no/such", "x:1", check=False).status, 1)

    def test_an_image_for_another_machine_is_kept_and_shown_but_not_run(self):
        load_image(["far:1"], arch="arm64")
        self.assertEqual(rows(), ["far:1"])
        result = hull("create", "far:1", check=False)
        self.assertNotEqual(result.status, 0)
        self.assertIn("image is for linux/arm64, this host runs linux/amd64", result.err)


class Removal(FakeEngineTest):
    def test_untags_first_and_deletes_with_the_last_name(self):
        identity = load_image(["app:1", "app:2"])
        self.assertEqual(hull("rmi", "app:1").out, "Untagged: app:1\n")
        self.assertEqual(hull("rmi", "--no-prune", "app:2").out, f"Untagged: app:2\nDeleted: {identity}\n")

    def test_several_at_once_and_the_missing_one_is_told(self):
        load_image(["a:1"])
        load_image(["b:1"], created="2021-01-01T00:00:00Z")
        result = hull("rmi", "a:1", "no/such:1", "b:1", check=False)
        self.assertEqual(result.status, 1)
        self.assertIn("No such image: no/such:1", result.err)
        self.assertEqual(rows(), [])

    def test_by_id_only_with_one_name_or_force(self):
        identity = load_image(["a:1", "b:1"])
        result = hull("rmi", identity[7:19], check=False)
        self.assertEqual(result.status, 1)
        self.assertIn("image is referenced in multiple repositories", result.err)
        self.assertEqual(hull("image", "rm", "--force", identity[7:19]).out, f"Untagged: a:1\nUntagged: b:1\nDeleted: {identity}\n")

    def test_what_a_container_uses_stays_unless_forced(self):
        load_image(["a:1", "b:1"])
        container = hull("create", "a:1").out.strip()
        self.assertEqual(hull("rmi", "a:1").out, "Untagged: a:1\n")
        result = hull("rmi", "b:1", check=False)
        self.assertEqual(result.status, 1)
        self.assertIn("container", result.err)
        self.assertIn("Untagged: b:1", hull("rmi", "-f", "b:1").out)
        hull("rm", container)

    def test_prune_removes_the_nameless_and_with_all_the_unused(self):
        nameless = load_image(None, created="2020-01-01T00:00:00Z")
        load_image(["used:1"], created="2021-01-01T00:00:00Z")
        load_image(["idle:1"], created="2022-01-01T00:00:00Z", labels={"keep": "1"})
        hull("create", "used:1")
        declined = hull("image", "prune", stdin="n\n")
        self.assertIn("WARNING! This will remove all dangling images.", declined.err)
        self.assertEqual(len(rows()), 3)
        self.assertRegex(hull("image", "prune", stdin="y\n").out, f"^Deleted Images:\ndeleted: {nameless}\n\nTotal reclaimed space: [1-9]")
        self.assertEqual(hull("image", "prune", "-f").out, "Total reclaimed space: 0B\n")
        hull("image", "prune", "-af", "--filter", "label!=keep")
        hull("image", "prune", "-af", "--filter", "until=2021-06-01")
        self.assertEqual(rows(), ["idle:1", "used:1"])
        self.assertRegex(hull("image", "prune", "-af").out, "^Deleted Images:\nuntagged: idle:1\ndeleted: sha256:")
        self.assertEqual(rows(), ["used:1"])
        self.assertEqual(hull("image", "prune", "-f", "--filter", "nonsense=1", check=False).status, 1)


class Archives(FakeEngineTest):
    def test_several_images_in_one_archive(self):
        one, two = load_image(["one:1", "one:2"]), load_image(["two:1"], created="2021-01-01T00:00:00Z")
        archive = self.temporary_folder() / "images.tar"
        hull("save", "-o", str(archive), "one", "two:1")
        hull("rmi", "-f", one[7:19], two[7:19])
        loaded = hull("load", "-i", str(archive))
        self.assertEqual(sorted(loaded.out.splitlines()), ["Loaded image: one:1", "Loaded image: one:2", "Loaded image: two:1"])
        self.assertEqual(hull("image", "inspect", "-f", "{{.Id}}", "one:2", "two:1").out.split(), [one, two])
        # The same through a pipe.
        piped = hull("save", "one:1", "two:1", text=False).out
        with tarfile.open(archive) as tar:
            self.assertIn("oci-layout", tar.getnames())
        hull("rmi", "-f", one[7:19], two[7:19])
        hull("load", "-q", stdin=piped, text=False)
        self.assertEqual(sorted(rows()), ["one:1", "two:1"])

    def test_an_image_of_another_machine_is_saved_beside_one_of_this(self):
        load_image(["here:1"])
        load_image(["far:1"], arch="arm64")
        archive = hull("save", "here:1", "far:1", text=False).out
        hull("rmi", "here:1", "far:1")
        hull("load", "-q", stdin=archive, text=False)
        self.assertEqual(sorted(rows()), ["far:1", "here:1"])

    def test_by_id_it_has_no_name(self):
        identity = load_image(["app:1"])
        archive = hull("save", identity[7:19], text=False).out
        hull("rmi", "app:1")
        self.assertEqual(hull("load", stdin=archive, text=False).out.decode(), f"Loaded image ID: {identity}\n")
        self.assertEqual(rows(), ["<none>:<none>"])

    def test_what_cannot_be_saved_or_loaded_leaves_nothing(self):
        load_image(["app:1"])
        archive = self.temporary_folder() / "images.tar"
        result = hull("save", "-o", str(archive), "app:1", "no/such", check=False)
        self.assertEqual(result.status, 1)
        self.assertIn("No such image: no/such", result.err)
        self.assertEqual(list(archive.parent.iterdir()), [])
        layers = [plain_tar({"f": b"1"})]
        good = docker_archive([(["new:1"], config_of(layers), layers)])
        for bad in (b"", b"rubbish", good[:1500], plain_tar({"etc/passwd": b"x"})):
            result = hull("load", stdin=bad, check=False, text=False)
            self.assertEqual(result.status, 1, bad[:20])
            self.assertEqual(rows(), ["app:1"])
        self.assertEqual(hull("load", "-i", "/no/such/file", check=False).status, 1)

    def test_import_with_changes_message_and_platform(self):
        folder = self.temporary_folder()
        (folder / "root.tar").write_bytes(plain_tar({"hello": b"content"}))
        identity = hull("import", "-c", 'ENTRYPOINT ["/hello"]', "-c", "LABEL a=b", "-m", "by hand", "--platform", "linux/arm64", str(folder / "root.tar"), "app:i").out.strip()
        image = json.loads(hull("image", "inspect", "app:i").out)[0]
        self.assertEqual((image["Id"], image["Comment"], image["Architecture"]), (identity, "by hand", "arm64"))
        self.assertEqual((image["Config"]["Entrypoint"], image["Config"]["Labels"]), (["/hello"], {"a": "b"}))
        nameless = hull("import", "-", stdin=plain_tar({"x": b""}), text=False).out.decode().strip()
        self.assertRegex(nameless, "^sha256:[0-9a-f]{64}$")
        self.assertEqual(hull("import", "-c", "RUN x", str(folder / "root.tar"), check=False).status, 1)
