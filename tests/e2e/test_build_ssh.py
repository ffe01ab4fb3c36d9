"""hull build --ssh: a step asks the client's ssh agent, and can do nothing else with it."""
import pathlib
import shutil
import socket
import struct
import subprocess
import threading

from harness import EngineTest, hull, program, unique, wait_for
from test_storage import import_image

PROBE_SOURCE = pathlib.Path(__file__).with_name("agent_probe.c")
LIST, IDENTITIES, SIGN, SIGNATURE, FAILURE = 11, 12, 13, 14, 5


class FakeAgent:
    """An agent that notes the type of every request."""

    def __init__(self, path):
        self.path, self.asked = str(path), []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        self.socket.listen(8)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            while len(size := stream.read(4)) == 4:
                request = stream.read(struct.unpack(">I", size)[0])
                self.asked.append(request[0])
                answer = bytes([IDENTITIES if request[0] == LIST else SIGNATURE]) + b"\0\0\0\0"
                connection.sendall(struct.pack(">I", len(answer)) + answer)

    def close(self):
        self.socket.close()


class BuildSsh(EngineTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if not shutil.which("gcc"):
            raise cls.skipTest(cls, "no compiler for the client of the agent")

    def setUp(self):
        folder = self.temporary_folder()
        probe = folder / "agent_probe"
        subprocess.run(["gcc", "-static", "-O1", "-o", str(probe), str(PROBE_SOURCE)], check=True)
        self.image = import_image(self, {"bin/agent_probe": program(probe)})
        self.agent = FakeAgent(folder / "agent")
        self.addCleanup(self.agent.close)

    def build(self, *lines, ssh=(), check=True, env=None):
        name = f"hull-test/{unique()}"
        self.addCleanup(hull, "rmi", "-f", name, check=False)
        folder = self.temporary_folder()
        (folder / "Dockerfile").write_text("\n".join((f"FROM {self.image}", *lines)) + "\n")
        options = [word for value in ssh for word in ("--ssh", value)]
        return name, hull("build", "--progress", "plain", "-t", name, *options, folder, check=check, env=env)

    def test_a_step_lists_and_signs_and_nothing_of_it_stays(self):
        name, result = self.build(
            f"RUN --mount=type=ssh agent_probe {LIST} {SIGN} && stat -c '%F %a' $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK",
            "RUN --mount=type=ssh,id=second,target=/a,uid=1000,mode=0666 stat -c '%n %u %a' $SSH_AUTH_SOCK && "
            f"agent_probe {LIST} && echo x > /made",
            ssh=("default", f"second={self.agent.path}"), env={"SSH_AUTH_SOCK": self.agent.path})
        for text in (f"answer {IDENTITIES} of 5", f"answer {SIGNATURE} of 5", "socket 600", "/run/buildkit/ssh_agent.0", "/a 1000 666"):
            self.assertIn(f" {text}\n", result.err)
        self.assertEqual(self.agent.asked, [LIST, SIGN, LIST])
        self.assertEqual(hull("run", "--rm", name, "sh", "-c", "ls -A /run/buildkit /a 2>/dev/null; cat /made").out, "x\n")
        for text in (hull("history", "--no-trunc", name).out, hull("inspect", name).out):
            self.assertNotIn("ssh_agent", text)
            self.assertNotIn("SSH_AUTH_SOCK=", text)

    def test_a_hostile_step_gets_refusals_and_harms_nobody(self):
        others = [n for n in range(1, 40) if n not in (LIST, SIGN)]
        _, result = self.build(f"RUN --mount=type=ssh agent_probe large many {' '.join(map(str, others))} {LIST}",
                               ssh=(f"default={self.agent.path}",))
        self.assertEqual(result.err.count(f" answer {FAILURE} of 1\n"), len(others))
        self.assertIn(" closed\n", result.err)
        self.assertIn(f" answer {IDENTITIES} of 5\n", result.err)
        self.assertEqual(self.agent.asked, [LIST])

    def test_without_an_agent(self):
        _, result = self.build("RUN --mount=type=ssh echo [$SSH_AUTH_SOCK]")
        self.assertIn(" []\n", result.err)
        _, result = self.build("RUN --mount=type=ssh,required true", check=False)
        self.assertIn("no ssh agent default is given (give one with --ssh default)", result.err)
        _, result = self.build("RUN true", ssh=("default",), env={"SSH_AUTH_SOCK": ""}, check=False)
        self.assertIn("SSH_AUTH_SOCK names no agent", result.err)

    def test_an_agent_that_goes_away_is_a_refusal(self):
        _, result = self.build(f"RUN --mount=type=ssh agent_probe {LIST}", ssh=(f"default={self.agent.path}",))
        self.agent.close()
        pathlib.Path(self.agent.path).unlink()
        missing = self.temporary_folder() / "none"
        _, result = self.build(f"RUN --mount=type=ssh agent_probe {LIST} # again", ssh=("default",), env={"SSH_AUTH_SOCK": str(missing)})
        self.assertIn(f" answer {FAILURE} of 1\n", result.err)

    def test_key_files(self):
        if not all(shutil.which(name) for name in ("ssh-agent", "ssh-add", "ssh-keygen")):
            self.skipTest("no OpenSSH client here")
        folder = self.temporary_folder()
        for name, passphrase in (("open", ""), ("closed", "secret")):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(folder / name)], check=True)
        _, result = self.build(f"RUN --mount=type=ssh agent_probe {LIST}", ssh=(f"default={folder / 'open'}",))
        self.assertRegex(result.err, rf" answer {IDENTITIES} of (?!5\n)")
        _, result = self.build("RUN true", ssh=(f"default={folder / 'closed'}",), check=False)
        self.assertIn("a key with a passphrase is lent by the agent that holds it", result.err)
        wait_for(lambda: "/hull-ssh" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout,
                 "the agents of key files end with their builds")
