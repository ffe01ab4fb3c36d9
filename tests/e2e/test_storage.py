"""Volumes, bind mounts, and what a container finds in them; what happens when something of it goes away."""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from harness import BUSYBOX, EngineTest, busybox_rootfs, hull, tar_of, unique, wait_for
from private_engine import PrivateEngineTest, engine_command

import io
import tarfile

PROBE_SOURCE = pathlib.Path(__file__).with_name("share_probe.c")
ROOT_FILES_ARE_ROOTS = os.geteuid() == 0  # of the user whose files are shared


def owned(content, uid, gid, mode):
    def apply(info):
        info.uid, info.gid, info.mode = uid, gid, mode
        if content is None:
            info.type = tarfile.DIRTYPE
        return content
    return apply


def rootfs_with(entries):
    """busybox_rootfs() and more files."""
    both = io.BytesIO()
    with tarfile.open(fileobj=both, mode="w", format=tarfile.PAX_FORMAT) as out:
        for archive in (busybox_rootfs(), tar_of(entries)):
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                for member in tar:
                    out.addfile(member, tar.extractfile(member) if member.isreg() else None)
    return both.getvalue()


def import_image(test, entries, *changes):
    """An image of busybox and more files, gone at the end of the test."""
    name = f"hull-test/{unique('image')}"
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        file.write(rootfs_with(entries))
        file.flush()
        options = [word for change in ("CMD [\"sh\"]", "ENV PATH=/bin:/usr/bin", *changes) for word in ("--change", change)]
        hull("import", *options, file.name, name)
    test.addCleanup(hull, "rmi", "-f", name, check=False)
    return name


class StorageTest(EngineTest):
    def volume(self, *options):
        name = unique("v")
        self.addCleanup(hull, "volume", "rm", "-f", name, check=False)
        hull("volume", "create", *options, name)
        return name

    def inspect(self, name):
        return json.loads(hull("inspect", name).out)[0]

    def volumes(self):
        return hull("volume", "ls", "-q").out.split()


class Volumes(StorageTest):
    def test_a_named_volume_outlives_containers_and_is_removed_when_unused(self):
        volume = self.volume("--label", "purpose=test")
        self.run_in("sh", "-c", "echo kept > /data/file", options=["-v", f"{volume}:/data"])
        self.assertEqual(self.run_in("cat", "/data/file", options=["--mount", f"source={volume},target=/data"]).out, "kept\n")
        self.assertIn(volume, hull("volume", "ls", "-q", "--filter", "label=purpose=test", "--filter", "dangling=true").out.split())
        detail = json.loads(hull("volume", "inspect", volume).out)[0]
        self.assertEqual((detail["Driver"], detail["Scope"], detail["Labels"]), ("local", "local", {"purpose": "test"}))

        user = self.container("-v", f"{volume}:/data:ro", "--", "sleep", "1000")
        self.assertEqual([(m["Type"], m["Name"], m["Destination"], m["RW"]) for m in self.inspect(user)["Mounts"]],
                         [("volume", volume, "/data", False)])
        self.assertIn(user, hull("ps", "--filter", f"volume={volume}").out)
        refused = hull("volume", "rm", volume, check=False)
        self.assertEqual(refused.status, 1)
        self.assertIn(f"remove {volume}: volume is in use - [", refused.err)
        hull("rm", "-f", user)
        hull("volume", "rm", volume)
        missing = hull("volume", "inspect", volume, check=False)
        self.assertIn(f"get {volume}: no such volume", missing.err)

    def test_running_containers_see_each_others_changes_at_once(self):
        volume = self.volume()
        one = self.container("-v", f"{volume}:/a", "--", "sleep", "1000")
        other = self.container("-v", f"{volume}:/b", "--", "sleep", "1000")
        for number in range(5):
            hull("exec", one, "sh", "-c", f"echo {number} > /a/x; echo more {number} >> /a/log")
            self.assertEqual(hull("exec", other, "cat", "/b/x").out, f"{number}\n")
        self.assertEqual(hull("exec", other, "wc", "-l", "/b/log").out.split()[0], "5")
        hull("exec", other, "rm", "/b/x")
        self.assertEqual(hull("exec", one, "ls", "/a").out, "log\n")

    def test_a_new_volume_gets_the_images_files_once(self):
        image = import_image(self, {"data/": owned(None, 70, 71, 0o750), "data/sub/": owned(None, 70, 71, 0o711),
                                    "data/sub/file": owned(b"from the image\n", 72, 73, 0o4755)}, "VOLUME /data")
        volume = self.volume()
        show = ["sh", "-c", "stat -c '%u %g %a %n' /data /data/sub /data/sub/file; cat /data/sub/file"]
        expected = "70 71 750 /data\n70 71 711 /data/sub\n72 73 4755 /data/sub/file\nfrom the image\n"
        self.assertEqual(self.run_in(*show, image=image, options=["-v", f"{volume}:/data:ro"]).out, expected)
        # What is there already is nobody's business.
        self.run_in("sh", "-c", "rm -r /data/sub; echo mine > /data/own", image=image, options=["-v", f"{volume}:/data"])
        self.assertEqual(self.run_in("ls", "/data", image=image, options=["-v", f"{volume}:/data"]).out, "own\n")
        empty = self.volume()
        self.assertEqual(self.run_in("ls", "-A", "/data", image=image, options=["-v", f"{empty}:/data:nocopy"]).out, "")

        before = set(self.volumes())
        self.assertEqual(self.run_in(*show, image=image).out, expected)
        self.assertEqual(set(self.volumes()), before, "an anonymous volume goes with a container that is removed at its end")
        name = self.container(image=image)
        [own] = set(self.volumes()) - before
        self.assertEqual(self.inspect(name)["Mounts"][0]["Name"], own)
        wait_for(lambda: not self.inspect(name)["State"]["Running"], "its end")
        hull("rm", "-v", name)
        self.assertEqual(set(self.volumes()), before)

    def test_volumes_from_another_container_and_its_subdirectory(self):
        volume = self.volume()
        first = self.container("-v", f"{volume}:/data", "--tmpfs", "/t", "--", "sh", "-c", "mkdir -p /data/deep; echo x > /data/deep/file")
        wait_for(lambda: not self.inspect(first)["State"]["Running"], "its end")
        result = self.run_in("sh", "-c", "cat /data/deep/file; touch /data/no", options=["--volumes-from", f"{first}:ro"], check=False)
        self.assertEqual(result.out, "x\n")
        self.assertIn("Read-only file system", result.err)
        self.assertEqual(self.run_in("ls", "/sub", options=["--mount", f"source={volume},target=/sub,volume-subpath=deep"]).out, "file\n")
        refused = self.run_in("true", options=["--mount", f"source={volume},target=/sub,volume-subpath=none"], check=False)
        self.assertEqual(refused.status, 125, refused)
        self.assertIn("subpath none", refused.err)

    def test_mounts_nest_and_a_read_only_root_does_not_matter_to_them(self):
        outer, inner = self.volume(), self.volume()
        script = "echo o > /data/file; echo i > /data/inner/file; touch /else 2>/dev/null && echo wrong; touch /data/tmp/x; ls /data"
        result = self.run_in("sh", "-c", script, options=["--read-only", "-v", f"{inner}:/data/inner", "--tmpfs", "/data/tmp", "-v", f"{outer}:/data"])
        self.assertEqual(result.out, "file\ninner\ntmp\n")
        self.assertEqual(self.run_in("ls", "/o/inner", "/i", options=["-v", f"{outer}:/o", "-v", f"{inner}:/i"]).out, "/i:\nfile\n\n/o/inner:\n")

    def test_cp_reaches_volumes_of_running_and_stopped_containers(self):
        volume, folder = self.volume(), self.temporary_folder()
        (folder / "in").write_text("copied\n")
        name = self.container("-v", f"{volume}:/data", "--", "sleep", "1000")
        hull("cp", folder / "in", f"{name}:/data/running")
        self.assertEqual(hull("exec", name, "cat", "/data/running").out, "copied\n")
        hull("kill", name)
        hull("cp", folder / "in", f"{name}:/data/stopped")
        hull("cp", f"{name}:/data/running", folder / "out")
        self.assertEqual((folder / "out").read_text(), "copied\n")
        self.assertEqual(self.run_in("ls", "/data", options=["-v", f"{volume}:/data"]).out, "running\nstopped\n")

    def test_prune_takes_what_nobody_uses(self):
        volume = self.volume("--label", f"of={self.id()}")
        used = self.volume("--label", f"of={self.id()}")
        self.container("-v", f"{used}:/data", "--", "sleep", "1000")
        filters = ["--filter", f"label=of={self.id()}"]
        hull("volume", "prune", "-f", *filters)
        self.assertIn(volume, self.volumes(), "it has a name")
        pruned = hull("volume", "prune", "-af", *filters).out
        self.assertIn(volume, pruned)
        self.assertNotIn(used, pruned)
        self.assertNotIn(volume, self.volumes())

    def test_refusals_say_what_is_wrong(self):
        for options, text in ((["-v", "a/b:/x"], "includes invalid characters for a local volume name"),
                              (["-v", "v:x"], "mount path must be absolute"),
                              (["-v", "v:/x:sideways"], "invalid mode: sideways"),
                              (["-v", "v:/x", "--tmpfs", "/x"], "Duplicate mount point: /x"),
                              (["--mount", "type=bind,source=/no/such/folder,target=/x"], "bind source path does not exist: /no/such/folder"),
                              (["--mount", "target=/x,colour=red"], "unexpected key 'colour'")):
            refused = self.run_in("true", options=options, check=False)
            self.assertEqual(refused.status, 125, options)
            self.assertIn(text, refused.err)
        for options, text in ((["-d", "nfs"], 'plugin "nfs" not found'), (["-o", "type=nfs"], "--driver disk"), (["-d", "disk", "-o", "size=1k"], "16 MiB")):
            self.assertIn(text, hull("volume", "create", *options, unique(), check=False).err)


class Disks(StorageTest):
    def test_a_disk_volume_is_as_large_as_it_says_and_in_one_machine_at_a_time(self):
        volume = self.volume("--driver", "disk", "-o", "size=32m")
        mount = ["-v", f"{volume}:/data"]
        full = self.run_in("sh", "-c", "ls -A /data; dd if=/dev/zero of=/data/big bs=1M count=64; echo small > /data/small; df -m /data | tail -n 1",
                           options=mount, check=False)
        self.assertIn("No space left on device", full.err)
        self.assertNotIn("lost+found", full.out)
        self.assertLess(int(full.out.split()[1]), 32)
        name = self.container(*mount, "--", "sh", "-c", "rm /data/big; echo kept > /data/file; sleep 1000")
        refused = self.run_in("true", options=mount, check=False)
        self.assertEqual(refused.status, 125)
        self.assertIn("a disk volume can be in one running container at a time", refused.err)
        wait_for(lambda: "kept" in hull("exec", name, "cat", "/data/file", check=False).out, "the file")
        hull("exec", name, "sync")
        hull("kill", name)
        self.assertEqual(self.run_in("cat", "/data/file", options=mount).out, "kept\n")

    def test_a_disk_volume_gets_the_images_files(self):
        image = import_image(self, {"data/": owned(None, 70, 71, 0o700), "data/file": owned(b"x", 1, 2, 0o600)})
        volume = self.volume("--driver", "disk", "-o", "size=64m")
        for _ in range(2):
            shown = self.run_in("stat", "-c", "%u %g %a", "/data", "/data/file", image=image, options=["-v", f"{volume}:/data"]).out
            self.assertEqual(shown, "70 71 700\n1 2 600\n")


class Binds(StorageTest):
    """Folders of this host, wherever the engine runs."""

    def setUp(self):
        super().setUp()
        self.folder = self.temporary_folder()
        self.folder.chmod(0o755)

    def bind(self, *command, options="", source=None, **kwargs):
        return self.run_in(*command, options=["-v", f"{source or self.folder}:/host{options}"], **kwargs)

    def test_both_sides_see_the_others_files(self):
        (self.folder / "from-host").write_text("host\n")
        self.assertEqual(self.bind("sh", "-c", "cat /host/from-host; echo guest > /host/from-guest; mkdir /host/d; chmod 2750 /host/d").out, "host\n")
        self.assertEqual((self.folder / "from-guest").read_text(), "guest\n")
        self.assertEqual((self.folder / "d").stat().st_mode & 0o7777, 0o2750)

    def test_a_running_container_sees_the_hosts_changes_at_once(self):
        name = self.container("-v", f"{self.folder}:/host", "--", "sleep", "1000")
        for number in range(3):
            (self.folder / "file").write_text(f"{number}\n" * (number + 1))
            self.assertEqual(hull("exec", name, "cat", "/host/file").out, f"{number}\n" * (number + 1))
        (self.folder / "file").unlink()
        self.assertEqual(hull("exec", name, "ls", "/host").out, "")

    @unittest.skipUnless(ROOT_FILES_ARE_ROOTS, "owners are the user's own")
    def test_owners_are_numbers_on_both_sides(self):
        (self.folder / "theirs").write_text("x")
        os.chown(self.folder / "theirs", 1234, 4321)
        (self.folder / "theirs").chmod(0o600)
        shown = self.bind("sh", "-c", "stat -c '%u %g %a' /host/theirs; touch /host/mine; chown 77:88 /host/mine")
        self.assertEqual(shown.out, "1234 4321 600\n")
        mine = (self.folder / "mine").stat()
        self.assertEqual((mine.st_uid, mine.st_gid), (77, 88))
        self.folder.chmod(0o777)
        self.bind("touch", "/host/users", options=":rw", check=True)
        refused = self.run_in("cat", "/host/theirs", options=["-u", "user", "-v", f"{self.folder}:/host"], check=False)
        self.assertIn("Permission denied", refused.err)
        self.run_in("touch", "/host/by-user", options=["-u", "user", "-v", f"{self.folder}:/host"])
        self.assertEqual((self.folder / "by-user").stat().st_uid, 1000)

    def test_what_programs_expect_of_a_file_system(self):
        probe = self.folder / "probe"
        subprocess.run(["cc", "-static", "-O1", "-o", probe, PROBE_SOURCE], check=True)
        lines = self.bind("sh", "-c", "mkdir /host/work; cd /host/work; /host/probe").out.splitlines()
        self.assertEqual([line for line in lines if not line.endswith(" ok")], [])
        self.assertEqual(len(lines), 10)
        volume = self.volume()
        lines = self.run_in("sh", "-c", "cd /data; /host/probe", options=["-v", f"{self.folder}:/host:ro", "-v", f"{volume}:/data"]).out.splitlines()
        self.assertEqual([line for line in lines if not line.endswith(" ok")], [])

    def test_a_single_file_and_a_relative_source(self):
        (self.folder / "conf").write_text("one\n")
        result = hull("run", "--rm", "-v", "./conf:/etc/conf:ro", "-v", f"{self.folder}/conf:/etc/other", BUSYBOX, "sh", "-c",
                      "cat /etc/conf; echo two >> /etc/other; cat /etc/conf; touch /etc/conf", cwd=self.folder, check=False)
        self.assertEqual(result.out, "one\none\ntwo\n")
        self.assertIn("Read-only file system", result.err)
        self.assertEqual((self.folder / "conf").read_text(), "one\ntwo\n")
        refused = hull("run", "--rm", "-v", f"{self.folder}/conf:/tmp", BUSYBOX, "true", check=False)
        self.assertNotEqual(refused.status, 0)
        self.assertIn("Are you trying to mount a directory onto a file", refused.err)

    def test_a_missing_source_becomes_a_folder(self):
        self.bind("sh", "-c", "echo x > /host/file", source=self.folder / "made" / "here")
        self.assertEqual((self.folder / "made" / "here" / "file").read_text(), "x\n")

    def test_read_only_holds_on_the_host_whatever_the_guest_does(self):
        (self.folder / "below").mkdir()
        (self.folder / "below" / "file").write_text("x")
        script = ("mount -o remount,rw,bind /host; mkdir /again; mount -t virtiofs hull /again; "
                  "for d in /host /host/below /again/0 /again/0/below; do touch $d/no; echo y > $d/file; rm $d/file; rmdir $d; chmod 777 $d; mknod $d/n c 1 3; done; "
                  "cat /host/below/file")
        result = self.bind("sh", "-c", script, options=":ro", check=False)
        self.assertEqual(result.out, "x")
        self.assertEqual(sorted(path.name for path in self.folder.rglob("*")), ["below", "file"])
        privileged = hull("run", "--rm", "--privileged", "-v", f"{self.folder}:/host:ro", BUSYBOX, "sh", "-c", script, check=False)
        self.assertEqual(privileged.out, "x")
        self.assertEqual((self.folder / "below" / "file").read_text(), "x")
        self.assertEqual(sorted(path.name for path in self.folder.rglob("*")), ["below", "file"])

    def test_links_lead_nowhere_outside(self):
        secret = self.temporary_folder()
        (secret / "secret").write_text("of the host\n")
        inside = self.folder / "shared"
        inside.mkdir()
        (inside / "absolute").symlink_to(secret / "secret")
        (inside / "up").symlink_to(f"../../{secret.name}/secret")
        (self.folder / "outside").write_text("of the host\n")
        result = hull("run", "--rm", "--privileged", "-v", f"{inside}:/host", BUSYBOX, "sh", "-c",
                      "cat /host/absolute /host/up /host/../outside; mkdir /all; mount -t virtiofs hull /all; ls /all /all/0/..; "
                      f"ln -s {secret}/secret /host/mine; cat /all/0/mine /all/../outside", check=False)
        self.assertNotIn("of the host", result.out)
        self.assertNotIn("outside", result.out)
        # The source itself may be a link: the user named it.
        (self.folder / "link").symlink_to("shared")
        (inside / "file").write_text("found\n")
        self.assertEqual(self.bind("cat", "/host/file", source=self.folder / "link").out, "found\n")

    def test_a_socket_of_the_host_is_refused(self):
        import socket
        path = self.folder / "socket"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            refused = self.bind("true", source=path, check=False)
        self.assertIn("a socket of the host cannot be used in a container", refused.err)
        self.assertIn("host.docker.internal", refused.err)

    def test_a_volume_may_be_a_folder_of_the_host(self):
        (self.folder / "file").write_text("x\n")
        volume = self.volume("-o", "type=none", "-o", "o=bind", "-o", f"device={self.folder}")
        self.assertEqual(self.run_in("cat", "/data/file", options=["-v", f"{volume}:/data"]).out, "x\n")
        hull("volume", "rm", volume)
        self.assertEqual((self.folder / "file").read_text(), "x\n")


class Faults(PrivateEngineTest):
    """With an engine of their own."""

    def engine(self, **kwargs):
        engine = super().engine(**kwargs)
        engine.import_busybox()
        return engine

    def sharers(self, engine):
        """Process ids of what shares this engine's folders."""
        script = ("for p in /proc/[0-9]*; do case $(readlink $p/exe) in */virtiofsd) "
                  f"grep -aq {engine.root} $p/cmdline && echo ${{p#/proc/}};; esac; done; true")
        return engine_command("sh", "-c", script).out.split()

    def state(self, engine, name):
        return json.loads(engine.hull("inspect", name).out)[0]["State"]

    def test_volumes_work_on_when_the_engine_is_killed(self):
        engine = self.engine()
        engine.hull("run", "-d", "--name", "writer", "-v", "data:/data", BUSYBOX, "sh", "-c",
                    "i=0; while [ ! -e /data/stop ]; do i=$((i+1)); echo $i > /data/count; sleep 0.1; done; echo end > /data/end")
        sharers = self.sharers(engine)
        self.assertNotEqual(sharers, [])
        count = f"{engine.root}/volumes/data/_data/count"
        wait_for(lambda: engine_command("cat", count, check=False).out, "the first count")
        engine.kill()
        before = engine_command("cat", count).out
        wait_for(lambda: engine_command("cat", count).out != before, "more counts without an engine")
        engine.start()
        self.assertEqual(self.sharers(engine), sharers)
        self.assertIn("volume is in use", engine.hull("volume", "rm", "data", check=False).err)
        engine.hull("exec", "writer", "touch", "/data/stop")
        self.assertEqual(engine.hull("wait", "writer").out.strip(), "0")
        wait_for(lambda: self.sharers(engine) == [], "the end of what shared the volume")
        engine.hull("rm", "writer")
        self.assertEqual(engine.hull("run", "--rm", "-v", "data:/data", BUSYBOX, "cat", "/data/end").out, "end\n")

    def test_a_container_ends_with_what_shares_its_folders_and_no_other_does(self):
        engine = self.engine()
        for name in ("victim", "neighbour"):
            engine.hull("run", "-d", "--name", name, "-v", "data:/data", BUSYBOX, "sh", "-c", "while :; do date > /data/$HOSTNAME; sleep 0.2; done")
            if name == "victim":
                sharers = self.sharers(engine)
        engine_command("kill", "-9", *sharers, check=False)  # the second ends with the first
        self.assertEqual(engine.hull("wait", "victim").out.strip(), "137")
        self.assertIn("shared folders are gone", engine.log())
        self.assertTrue(self.state(engine, "neighbour")["Running"])
        engine.hull("exec", "neighbour", "sh", "-c", "echo fine > /data/fine")
        engine.hull("start", "victim")
        self.assertEqual(engine.hull("exec", "victim", "cat", "/data/fine").out, "fine\n")
        engine.hull("rm", "-f", "victim", "neighbour")
        self.assertEqual((engine.machines(), self.sharers(engine)), ([], []))

    def test_a_source_that_vanished_is_named_and_nothing_is_left(self):
        engine = self.engine()
        folder = engine_command("mktemp", "-d", "/tmp/hull-source-XXXXXX").out.strip()
        self.addCleanup(engine_command, "rm", "-rf", folder)
        engine.hull("create", "--name", "box", "--mount", f"type=bind,source={folder},target=/x", BUSYBOX, "true")
        engine_command("rmdir", folder)
        refused = engine.hull("start", "box", check=False)
        self.assertEqual(refused.status, 1)
        self.assertIn(f"bind source path does not exist: {folder}", refused.err)
        self.assertEqual((engine.machines(), self.sharers(engine)), ([], []))
        engine_command("mkdir", folder)
        engine.hull("start", "-a", "box")

    def test_a_full_disk_is_the_writers_error_only(self):
        engine = self.engine(megabytes=160)
        engine.hull("run", "-d", "--name", "neighbour", "-v", "other:/data", BUSYBOX, "sh", "-c", "echo up > /data/x; sleep 1000")
        # What is deleted is free when the guest's kernel has forgotten it, a moment later.
        again = "for i in $(seq 100); do echo after > /data/x && exit 0; sleep 0.1; done; exit 1"
        full = engine.hull("run", "--rm", "-v", "data:/data", BUSYBOX, "sh", "-c", f"dd if=/dev/zero of=/data/big bs=1M count=512; rm /data/big; {again}", check=False)
        self.assertIn("No space left on device", full.err)
        self.assertEqual(full.status, 0, full)
        self.assertEqual(engine.hull("exec", "neighbour", "cat", "/data/x").out, "up\n")


if __name__ == "__main__":
    unittest.main()
