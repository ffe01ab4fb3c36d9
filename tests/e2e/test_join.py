"""Containers in another one's machine: `--network container:NAME`."""
import json

from harness import BUSYBOX, EngineTest, hull, tar_of, unique, wait_for
from private_engine import PrivateEngineTest

SERVE = "while :; do echo from-web | nc -l -p 80 >/dev/null; done"
ASK = "nc -w 5 127.0.0.1 80 </dev/null"


def inspect(name):
    return json.loads(hull("inspect", name).out)[0]


class Joined(EngineTest):
    def join(self, whom, *args, **kwargs):
        return self.container("--network", f"container:{whom}", *args, **kwargs)

    def running(self, name):
        return inspect(name)["State"]["Running"]

    def test_two_containers_talk_over_loopback_and_see_nothing_else_of_each_other(self):
        web = self.container("--hostname", "front", "--add-host", "db:10.9.8.7", "--", "sh", "-c", "echo mine > /here; " + SERVE)
        near = self.join(web, "--", "sh", "-c", "[ -e /here ] || echo other > /here; sleep 1000")
        wait_for(lambda: "from-web" in hull("exec", near, "sh", "-c", ASK, check=False).out, "an answer over loopback")
        self.assertEqual(inspect(near)["HostConfig"]["NetworkMode"], "container:" + inspect(web)["Id"])
        # File systems, processes and host names.
        self.assertEqual((hull("exec", web, "cat", "/here").out, hull("exec", near, "cat", "/here").out), ("mine\n", "other\n"))
        self.assertNotIn("sleep 1000", hull("exec", web, "ps").out)
        self.assertNotIn("nc -l", hull("exec", near, "ps").out)
        self.assertIn("sleep 1000", hull("top", near).out)
        self.assertNotIn("nc -l", hull("top", near).out)
        self.assertEqual(hull("exec", near, "hostname").out, "front\n")
        for command in (("cat", "/etc/hosts"), ("cat", "/etc/resolv.conf"), ("ip", "-o", "-4", "addr"), ("cat", "/etc/hostname")):
            self.assertEqual(hull("exec", near, *command).out, hull("exec", web, *command).out)
        self.assertIn("db", hull("exec", near, "cat", "/etc/hosts").out)
        # One machine: nothing but its end ends it.
        self.assertEqual(inspect(near)["State"]["Pid"], inspect(web)["State"]["Pid"])
        hull("stop", "-t", "0", near)
        self.assertTrue(self.running(web))
        self.assertEqual(hull("exec", web, "cat", "/here").out, "mine\n")
        # Started once more, it has what it wrote.
        hull("cp", f"{near}:/here", "-")  # in a machine of its own meanwhile
        hull("start", near)
        self.assertEqual(hull("exec", near, "cat", "/here").out, "other\n")

    def test_the_verbs_work_for_it(self):
        web = self.container("--", "sleep", "1000")
        done = hull("run", "--rm", "-i", "--network", f"container:{web}", BUSYBOX, "sh", "-c", "cat; echo err >&2; exit 5",
                    stdin="through\n", check=False)
        self.assertEqual((done.out, done.err, done.status), ("through\n", "err\n", 5))
        near = self.join(web, "-m", "64m", "--pids-limit", "50", "--tmpfs", "/scratch", "--", "sh", "-c", "echo up; sleep 1000")
        wait_for(lambda: hull("logs", near).out == "up\n", "its log")
        hull("cp", "-", f"{near}:/tmp", stdin=tar_of({"sent": b"bytes\n"}), text=False)
        self.assertEqual(hull("exec", near, "cat", "/tmp/sent").out, "bytes\n")
        self.assertIn(b"bytes", hull("cp", f"{near}:/tmp/sent", "-", text=False).out)
        self.assertIn("A /tmp/sent", hull("diff", near).out)
        self.assertIn("/scratch tmpfs", hull("exec", near, "cat", "/proc/mounts").out)
        self.assertEqual(hull("exec", near, "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max").out, f"{64 << 20}\n50\n")
        self.assertIn("64MiB", hull("stats", "--no-stream", near).out)
        hull("pause", near)
        self.assertEqual(hull("exec", web, "echo", "awake").out, "awake\n")
        hull("unpause", near)
        hull("kill", near)
        self.assertEqual(hull("wait", near).out, "137\n")
        self.assertEqual(hull("run", "--network", f"container:{web}", "--rm", BUSYBOX, "/no/such", check=False).status, 127)
        near = self.join(web, "--", "sleep", "1000")
        hull("rm", "-f", near)
        self.assertTrue(self.running(web))

    def test_it_ends_with_the_machine_and_cannot_start_without(self):
        web = self.container("--", "sleep", "1000")
        near = self.join(web, "--", "sleep", "1000")
        hull("stop", "-t", "0", web)
        self.assertEqual(hull("wait", near).out, "137\n")
        self.assertIn(f"cannot join network of a non running container: {inspect(web)['Id']}", hull("start", near, check=False).err)
        hull("start", web)
        hull("start", near)
        self.assertTrue(self.running(near))

    def test_its_restart_policy_waits_for_the_machine(self):
        web = self.container("--", "sleep", "1000")
        near = self.join(web, "--restart", "always", "--", "sh", "-c", "echo up; sleep 1000")
        wait_for(lambda: hull("logs", near).out == "up\n", "its first start")
        hull("restart", "-t", "0", web)
        wait_for(lambda: hull("logs", near).out == "up\nup\n" and self.running(near), "its second start", 240)

    def test_volumes_of_it_are_disks(self):
        web, volume = self.container("--", "sleep", "1000"), unique("volume")
        self.addCleanup(hull, "volume", "rm", "-f", volume, check=False)
        near = self.join(web, "-v", f"{volume}:/data", "-v", "/own", "--", "sh", "-c", "echo kept > /data/file; touch /own/x; sleep 1000")
        wait_for(lambda: hull("exec", near, "ls", "/own", check=False).out == "x\n", "it has written")
        hull("rm", "-f", near)
        self.assertEqual(hull("run", "--rm", "-v", f"{volume}:/data", BUSYBOX, "cat", "/data/file").out, "kept\n")
        refused = hull("create", "--network", f"container:{web}", "-v", "/tmp:/host", BUSYBOX, check=False)
        self.assertIn("shared folders are fixed", refused.err)

    def test_what_cannot_be_is_refused(self):
        web = self.container("--", "sleep", "1000")

        def refusal(*options, whom=web):
            done = hull("create", "--network", f"container:{whom}", *options, BUSYBOX, check=False)
            self.assertNotEqual(done.status, 0)
            return done.err

        self.assertIn("conflicting options: port publishing and the container type network mode", refusal("-p", "80:80"))
        self.assertIn("conflicting options: hostname and the network mode", refusal("--hostname", "x"))
        self.assertIn("conflicting options: custom host-to-IP mapping and the network mode", refusal("--add-host", "a:1.2.3.4"))
        self.assertIn("conflicting options: dns and the network mode", refusal("--dns", "1.1.1.1"))
        self.assertIn("conflicting options: port exposing and the container type network mode", refusal("--expose", "80"))
        self.assertIn("No such container: none-such", refusal(whom="none-such"))

    def test_the_image_is_read_only_to_whoever_owns_the_guest(self):
        web = self.container("--privileged", "--", "sleep", "1000")
        near = self.join(web, "--", "sleep", "1000")
        at = int(hull("exec", web, "cat", "/sys/block/loop0/loop/offset").out) // 512
        hull("exec", web, "mknod", "/dev/loop0", "b", "7", "0")  # which came after its devices
        for device, sector in (("/dev/loop0", 0), ("/dev/vdb", at), ("/dev/vdb", at - 1)):
            done = hull("exec", web, "dd", "if=/dev/zero", f"of={device}", "bs=512", f"seek={sector}", "count=8", "conv=fsync", check=False)
            self.assertNotEqual(done.status, 0, device)
        hull("exec", near, "true")
        self.assertEqual(hull("run", "--rm", "--network", f"container:{web}", BUSYBOX, "echo", "whole").out, "whole\n")


class KilledEngine(PrivateEngineTest):
    def test_the_next_engine_takes_both_over(self):
        engine = self.engine()
        engine.import_busybox()
        engine.hull("run", "-d", "--name", "web", BUSYBOX, "sh", "-c", SERVE)
        engine.hull("run", "-d", "--name", "near", "--network", "container:web", BUSYBOX, "sh", "-c", "echo up; while ! test -e /stop; do sleep 0.1; done; echo end; exit 6")
        [machine] = engine.machines()
        engine.restart()
        self.assertEqual(engine.machines(), [machine])
        wait_for(lambda: "from-web" in engine.hull("exec", "near", "sh", "-c", ASK, check=False).out, "an answer over loopback")
        engine.hull("exec", "near", "touch", "/stop")
        self.assertEqual(engine.hull("wait", "near").out.strip(), "6")
        self.assertEqual(engine.logs("near"), "up\nend\n")
        self.assertEqual(engine.hull("exec", "web", "echo", "on").out, "on\n")
        # Its place is free: it comes again, and goes with the machine while no engine runs.
        engine.hull("exec", "web", "true")
        engine.hull("run", "-d", "--name", "again", "--network", "container:web", BUSYBOX, "sleep", "1000")
        engine.kill()
        engine.kill(machine)
        engine.start()
        self.assertEqual(engine.hull("wait", "again").out.strip(), "137")
        self.assertEqual(engine.taps(), [])

