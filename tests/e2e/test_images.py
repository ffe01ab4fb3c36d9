"""Images: listing, naming, archives, registries, and what goes wrong on the way."""
import gzip
import io
import json
import pathlib
import tarfile

from harness import BUSYBOX, EngineTest, hull, tar_of, unique


def archive_entry(archive, name):
    with tarfile.open(archive) as tar:
        return tar.extractfile(name).read()


class Store(EngineTest):
    def test_images_tag_and_rmi(self):
        name = f"hull-test/{unique()}"
        hull("tag", BUSYBOX, f"{name}:v1")
        listing = hull("images", name).out.splitlines()
        self.assertEqual(listing[0].split()[:3], ["REPOSITORY", "TAG", "IMAGE"])
        self.assertEqual(listing[1].split()[:2], [name, "v1"])
        self.assertEqual(hull("rmi", f"{name}:v1").out, f"Untagged: {name}:v1\n")
        self.assertEqual(hull("rmi", f"{name}:v1", check=False).status, 1)
        self.assertEqual(hull("run", "--rm", BUSYBOX, "true").status, 0)

    def test_inspect_of_an_image(self):
        info = json.loads(hull("image", "inspect", BUSYBOX).out)[0]
        self.assertEqual((info["Os"], info["Architecture"]), ("linux", "amd64"))
        self.assertEqual(info["Config"]["Cmd"], ["sh"])
        self.assertRegex(info["Id"], "^sha256:[0-9a-f]{64}$")

    def test_an_image_in_use_is_kept(self):
        name = f"hull-test/{unique()}"
        root = tar_of({"only": unique().encode()})
        file = self.temporary_folder() / "root.tar"
        file.write_bytes(root)
        hull("import", str(file), name)
        container = hull("create", name, "/only").out.strip()
        self.addCleanup(hull, "rm", container, check=False)
        self.assertEqual(hull("rmi", name, check=False).status, 1)
        hull("rm", container)
        self.assertIn("Deleted: sha256:", hull("rmi", name).out)


class Archives(EngineTest):
    def test_save_and_load_give_the_same_image(self):
        name = f"hull-test/{unique()}:x"
        hull("tag", BUSYBOX, name)
        image = hull("inspect", "-f", "{{.Id}}", name).out
        archive = self.temporary_folder() / "image.tar"
        hull("save", "-o", str(archive), name)
        with tarfile.open(archive) as tar:
            names = tar.getnames()
        for wanted in ("manifest.json", "index.json", "oci-layout"):
            self.assertIn(wanted, names)
        hull("rmi", name)
        self.assertIn(f"Loaded image: {name}", hull("load", "-i", str(archive)).out)
        self.assertEqual(hull("inspect", "-f", "{{.Id}}", name).out, image)
        hull("rmi", name)

    def test_a_compressed_root_file_system_is_imported_with_changes(self):
        name = f"hull-test/{unique()}"
        file = self.temporary_folder() / "root.tar.gz"
        file.write_bytes(gzip.compress(tar_of({"hello": b"content"})))
        hull("import", "-c", 'CMD ["/hello"]', "-c", "ENV A=b", "-c", "WORKDIR /w", str(file), name)
        config = json.loads(hull("image", "inspect", name).out)[0]["Config"]
        self.assertEqual((config["Cmd"], config["Env"], config["WorkingDir"]), (["/hello"], ["A=b"], "/w"))
        hull("rmi", name)

    def test_everything_a_layer_holds_arrives_in_the_guest(self):
        def special(kind, **attributes):
            def apply(info):
                info.type, info.mode = kind, 0o640
                for key, value in attributes.items():
                    setattr(info, key, value)
            return apply

        def setuid(info):
            info.mode, info.uid, info.gid, info.mtime = 0o4755, 12, 34, 1_234_567_890
            return b"x" * 5000

        def with_xattr(info):
            info.pax_headers = {"SCHILY.xattr.user.note": "kept"}
            return b""
        from harness import busybox_rootfs
        base = io.BytesIO(busybox_rootfs())
        out = io.BytesIO()
        extra = {"s/": None, "s/setuid": setuid, "s/fifo": special(tarfile.FIFOTYPE), "s/null": special(tarfile.CHRTYPE, devmajor=1, devminor=3),
                 "s/" + "n" * 255: b"long", "s/hard": special(tarfile.LNKTYPE, linkname="s/setuid"), "s/xattr": with_xattr}
        with tarfile.open(fileobj=base) as source, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for member in source:
                tar.addfile(member, source.extractfile(member) if member.isfile() else None)
            with tarfile.open(fileobj=io.BytesIO(tar_of(extra))) as more:
                for member in more:
                    tar.addfile(member, more.extractfile(member) if member.isfile() else None)
        file = self.temporary_folder() / "root.tar"
        file.write_bytes(out.getvalue())
        name = f"hull-test/{unique()}"
        self.addCleanup(hull, "rmi", "-f", name, check=False)
        hull("import", str(file), name)
        result = self.run_in("/bin/sh", "-c", "PATH=/bin; cd /s; stat -c '%n %a %u:%g %F %h %Y %s' setuid; stat -c '%F' fifo; stat -c '%F %t:%T' null;"
                             " cat n*; test setuid -ef hard && echo same", image=name)
        self.assertEqual(result.out.splitlines(), ["setuid 4755 12:34 regular file 2 1234567890 5000", "fifo", "character special file 1:3", "longsame"])


    def test_layers_meet_in_the_guest_as_one_tree(self):
        from harness import busybox_rootfs
        attributes = {"user.note": b"kept", "security.capability": bytes.fromhex("0100000200040000000000000000000000000000"),
                      "system.posix_acl_access": bytes.fromhex(
                          "02000000" "01000600ffffffff" "0200040007000000" "04000400ffffffff" "10000400ffffffff" "20000400ffffffff")}

        def attributed(info):
            info.mode, info.pax_headers = 0o644, {"mtime": "1234567890.123456789"}
            info.pax_headers.update({f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in attributes.items()})
            return b"with attributes"
        lower = tar_of({"t/": None, "t/gone": b"", "t/kept": attributed, "t/opaque/": None, "t/opaque/old": b"old", "t/real": b"data"})
        upper = tar_of({"t/.wh.gone": b"", "t/opaque/.wh..wh..opq": b"", "t/opaque/new": b"new", "t/link": lambda info: setattr(info, "type", tarfile.LNKTYPE) or
                        setattr(info, "linkname", "t/real")})
        name = f"hull-test/{unique()}"
        self.addCleanup(hull, "rmi", "-f", name, check=False)
        hull("load", stdin=layered_archive(name, [busybox_rootfs(), lower, upper]), text=False)
        container = unique()
        self.addCleanup(hull, "rm", "-f", container, check=False)
        seen = hull("run", "--name", container, name, "/bin/sh", "-c", "PATH=/bin; cd /t; ls -A . opaque; cat opaque/new; test real -ef link && echo same").out
        self.assertEqual(seen.splitlines(), [".:", "kept", "link", "opaque", "real", "", "opaque:", "new", "newsame"])
        with tarfile.open(fileobj=io.BytesIO(hull("export", container, text=False).out), errors="surrogateescape") as tar:
            kept = tar.getmember("t/kept")
        self.assertEqual(kept.pax_headers.get("mtime"), "1234567890.123456789")
        found = {key: kept.pax_headers.get(f"SCHILY.xattr.{key}", "").encode("utf-8", "surrogateescape") for key in attributes}
        self.assertEqual(found, attributes)


def layered_archive(name, layers):
    """A docker-archive as bytes."""
    import hashlib
    ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ids}}).encode()
    files = {f"{i}.tar": layer for i, layer in enumerate(layers)}
    manifest = [{"Config": "config.json", "RepoTags": [f"{name}:latest"], "Layers": list(files)}]
    return tar_of({**files, "config.json": config, "manifest.json": json.dumps(manifest).encode()})


class Transfer(EngineTest):
    def test_push_remove_pull_run(self):
        registry = self.registry()
        name = f"{registry.address}/crew/busybox:1"
        hull("tag", BUSYBOX, name)
        pushed = hull("push", name)
        self.assertIn("digest: sha256:", pushed.out)
        self.assertIn("Layer already exists", hull("push", name).out)
        hull("rmi", name)
        pulled = hull("pull", name)
        self.assertIn("Status: ", pulled.out)
        self.assertEqual(hull("run", "--rm", name, "echo", "pulled").out, "pulled\n")
        hull("rmi", name)
        self.assertEqual(hull("run", "--rm", name, "echo", "by run").out, "by run\n")
        hull("rmi", name)

    def test_what_is_not_there_is_said(self):
        registry = self.registry()
        result = hull("pull", f"{registry.address}/no/such:thing", check=False)
        self.assertEqual(result.status, 1)
        self.assertIn("not found", result.err)
        result = hull("push", f"{registry.address}/never/tagged:thing", check=False)
        self.assertEqual(result.status, 1)

    def test_a_damaged_layer_is_refused_and_a_mended_one_is_pulled(self):
        registry = self.registry()
        marker = unique()
        file = self.temporary_folder() / "root.tar"
        file.write_bytes(tar_of({"marker": marker.encode() * 10_000}))
        name = f"{registry.address}/damaged:1"
        hull("import", str(file), name)
        hull("push", name)
        hull("rmi", name)
        layers = [p for p in pathlib.Path(registry.folder.name).rglob("*") if p.is_file() and p.read_bytes()[:2] == b"\x1f\x8b"]
        self.assertEqual(len(layers), 1)
        good = layers[0].read_bytes()
        for bad in (good[:len(good) // 2], good[:-20] + bytes(20), b"\x1f\x8b" + bytes(len(good) - 2)):
            layers[0].write_bytes(bad)
            result = hull("pull", name, check=False)
            self.assertEqual(result.status, 1, result)
            self.assertEqual(hull("image", "inspect", name, check=False).status, 1)
        layers[0].write_bytes(good)
        hull("pull", name)
        hull("rmi", name)

    def test_another_platforms_image_is_kept_but_not_run(self):
        name = f"hull-test/{unique()}:x"
        hull("tag", BUSYBOX, name)
        self.addCleanup(hull, "rmi", name, check=False)
        archive = self.temporary_folder() / "image.tar"
        hull("save", "-o", str(archive), name)
        with tarfile.open(archive) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
        manifest = json.loads(files["manifest.json"])
        config = json.loads(files[manifest[0]["Config"]])
        config["architecture"] = "arm64"
        manifest[0]["Config"] = "other.json"
        other = {"manifest.json": json.dumps(manifest).encode(), "other.json": json.dumps(config).encode()}
        other.update({layer: files[layer] for layer in manifest[0]["Layers"]})
        archive.write_bytes(tar_of(other))
        hull("load", "-i", str(archive))
        result = hull("run", "--rm", name, "true", check=False)
        self.assertEqual(result.status, 125)
        self.assertIn("arm64", result.err)
