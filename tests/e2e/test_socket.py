"""The engine's socket in a container: -v /var/run/docker.sock:…, a client of the engine like any other."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from harness import BUSYBOX, EngineTest, hull, unique, wait_for
from private_engine import PrivateEngineTest
from test_storage import import_image, rootfs_with

PROBE_SOURCE = pathlib.Path(__file__).with_name("engine_probe.c")
SOCKET = "/var/run/docker.sock"
MOST_CONNECTIONS = 128  # kMaxEngineConnections
BIND = ("-v", f"{SOCKET}:{SOCKET}")


def probe_entries():
    if not shutil.which("gcc"):
        raise unittest.SkipTest("no compiler for the client in the container")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["gcc", "-static", "-O1", "-o", f"{folder}/probe", str(PROBE_SOURCE)], check=True)
        data = pathlib.Path(folder, "probe").read_bytes()

    def apply(info):
        info.mode = 0o755
        return data
    return {"bin/engine_probe": apply}


class Socket(EngineTest):
    def setUp(self):
        self.image = import_image(self, probe_entries())

    def box(self, *options):
        return self.container(*options, "--", "sleep", "1000", image=self.image)

    def ask(self, box, method, path, body="", at=SOCKET):
        """The status, and what came behind the header."""
        status, _, rest = hull("exec", box, "engine_probe", at, "ask", method, path, body).out.partition("\n")
        return int(status), rest

    def test_a_container_sees_starts_and_talks_to_others(self):
        box, other = self.box(*BIND), unique()
        self.addCleanup(hull, "rm", "-f", other, check=False)
        self.assertEqual(hull("exec", box, "stat", "-c", "%F %u %g %a", SOCKET).out, "socket 0 0 660\n")
        status, listing = self.ask(box, "GET", "/containers/json")
        self.assertEqual(status, 200)
        self.assertIn(f'"/{box}"', listing)

        body = {"Image": BUSYBOX, "Cmd": ["sh", "-c", "cat; echo end"], "OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
        self.assertEqual(self.ask(box, "POST", f"/v1.44/containers/create?name={other}", json.dumps(body))[0], 201)
        # Attached before it starts: what is typed, its end, and the output go through the upgraded connection.
        attach = f"/containers/{other}/attach?stream=1&stdin=1&stdout=1"
        script = f"(sleep 3; engine_probe {SOCKET} ask POST /containers/{other}/start >/dev/null) & echo typed | engine_probe {SOCKET} attach '{attach}'"
        out = hull("exec", box, "sh", "-c", script).out
        self.assertTrue(out.startswith("101\n"), out)
        self.assertIn("typed\n", out)
        self.assertIn("end\n", out)
        self.assertEqual(hull("wait", other).out, "0\n")
        status, followed = self.ask(box, "GET", f"/containers/{other}/logs?stdout=1&follow=1")
        self.assertEqual(status, 200)
        self.assertIn("typed\n", followed)
        self.assertEqual(self.ask(box, "DELETE", f"/containers/{other}")[0], 204)
        self.assertEqual(hull("inspect", other, check=False).status, 1)
        self.assertEqual(self.ask(box, "GET", "/no/such/thing")[0], 404)

        shown = json.loads(hull("inspect", box).out)[0]
        self.assertEqual(shown["HostConfig"]["Binds"], [f"{SOCKET}:{SOCKET}"])
        mount = shown["Mounts"][0]
        self.assertEqual((mount["Type"], mount["Source"], mount["Destination"], mount["RW"]), ("bind", SOCKET, SOCKET, True))
        self.assertNotIn("docker.sock", hull("diff", box).out)

    def test_it_is_the_same_by_other_names_and_read_only(self):
        # What the client uses to reach the engine is the engine's socket, too, also through hull machine.
        own = os.environ["HULL_HOST"].removeprefix("unix://")
        box = self.box("--read-only", "--mount", f"type=bind,source={own},target=/run/engine,readonly", "-v", "/run/docker.sock:/new/place/s:ro")
        for at in ("/run/engine", "/new/place/s"):
            self.assertEqual(self.ask(box, "GET", "/_ping", at=at), (200, "OK"))
        result = self.run_in("engine_probe", "/run/engine", "ask", "GET", "/_ping", image=self.image, options=["--volumes-from", box])
        self.assertEqual(result.out, "200\nOK")

    def test_it_is_roots_and_nobodys_unasked(self):
        user = ["-u", "1000", *BIND]
        denied = self.run_in("engine_probe", SOCKET, "ask", "GET", "/_ping", image=self.image, options=user, check=False)
        self.assertIn("Permission denied", denied.err)
        allowed = self.run_in("engine_probe", SOCKET, "ask", "GET", "/_ping", image=self.image, options=[*user, "--group-add", "0"])
        self.assertEqual(allowed.out, "200\nOK")
        script = f"ls {SOCKET} /run/hull; engine_probe {SOCKET} ask GET /_ping"
        without = self.run_in("sh", "-c", script, image=self.image, options=["--privileged"], check=False)
        self.assertNotIn("200", without.out)
        self.assertIn("connect: No such file or directory", without.err)

    def test_many_at_a_time_each_get_their_answer(self):
        box = self.box(*BIND)
        script = f"for i in $(seq 60); do engine_probe {SOCKET} ask GET /containers/{box}/json > /tmp/$i & done; wait; cat /tmp/*"
        out = hull("exec", box, "sh", "-c", script).out
        self.assertEqual(out.count("200\n"), 60)
        self.assertEqual(out.count(f'"Name":"/{box}"'), 60)

    def test_a_slow_reader_holds_nobody_else_up(self):
        box = self.box(*BIND)
        chatty = self.container("--", "sh", "-c", "head -c 4000000 /dev/zero | tr '\\0' x | fold -w 1000; echo; echo done; sleep 1000")
        wait_for(lambda: hull("logs", "-n", "1", chatty).out == "done\n", "all of its output", seconds=200)
        logs = f"/containers/{chatty}/logs?stdout=1&follow=1"
        hull("exec", "-d", box, "sh", "-c", f"engine_probe {SOCKET} ask GET '{logs}' | sleep 1000")
        out = hull("exec", box, "sh", "-c", f"engine_probe {SOCKET} ask GET '/containers/{chatty}/logs?stdout=1&tail=all' | wc -c").out
        self.assertGreater(int(out), 4_000_000)
        self.assertEqual(self.ask(box, "GET", "/_ping"), (200, "OK"))

    def test_thousands_of_connections_are_refused_and_harm_nobody(self):
        box = self.box(*BIND)
        flood = self.container(*BIND, "--", "engine_probe", SOCKET, "hold", "2000", image=self.image)
        counted = wait_for(lambda: hull("logs", flood).out, "they are refused", seconds=300).split()
        self.assertGreater(int(counted[1]), 1000)
        self.assertLessEqual(int(counted[1]), 2000 - MOST_CONNECTIONS)
        # The flood's own container has no place left; others and the host's clients do.
        self.assertEqual(self.ask(flood, "GET", "/_ping")[0], 503)
        self.assertEqual(self.ask(box, "GET", "/_ping"), (200, "OK"))
        self.assertIn(flood, hull("ps", "--format", "{{.Names}}").out)
        hull("rm", "-f", flood)


class Faults(PrivateEngineTest):
    """With an engine of their own."""

    def test_the_next_engine_serves_it_when_one_is_killed(self):
        engine = self.engine()
        engine.hull("import", "--change", "ENV PATH=/bin:/usr/bin", "-", BUSYBOX, stdin=rootfs_with(probe_entries()))
        script = "n=0; while :; do n=$((n+1)); echo $n $(engine_probe /s ask GET /_ping); sleep 0.2; done"
        engine.hull("run", "-d", "--name", "box", "-v", f"{engine.socket}:/s", BUSYBOX, "sh", "-c", script)
        answers = lambda: engine.logs("box").count(" 200 OK")
        wait_for(lambda: answers() > 1, "answers")
        for _ in range(2):
            engine.restart()
            before = answers()
            wait_for(lambda: answers() > before + 2, "answers of the next engine")
        self.assertLessEqual(engine.logs("box").count(" closed"), 2, "only what was under way is cut off")
        engine.hull("exec", "box", "engine_probe", "/s", "ask", "DELETE", "/containers/box?force=1", check=False)
        wait_for(lambda: engine.hull("ps", "-aq").out == "", "a container can remove itself")
