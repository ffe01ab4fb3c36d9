"""Programs that people run, on networks, volumes and bind mounts: PostgreSQL, Redis, nginx, git, npm, compose.

Their images are made from Debian's packages on this host. Importing them and running them takes minutes where the CPU is emulated:
HULL_TEST_EXAMPLES=1 says that this is wanted."""
import contextlib
import hashlib
import http.client
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import unittest
import urllib.request

from harness import COMMAND_SECONDS, HULL, ROOT, EngineTest, hull, unique, wait_for

from private_engine import engine_command

SERVERS, TOOLS = "hull-test/servers", "hull-test/tools"
MAKE_SECONDS = 3600  # only ends a hang, as the next
READY_SECONDS = 2400
PASSWORD = "secret"
CLIENTS = 4
EMULATED = "machine" in os.environ.get("HULL_HOST", "")
TRANSACTIONS = 20 if EMULATED else 2000  # before the machine is killed
REQUESTS, LARGE_MIB = (10, 1) if EMULATED else (200, 64)
FILES = 60 if EMULATED else 600
PACKAGES, PACKAGE_FILES = (5, 10) if EMULATED else (40, 100)
FETCH = ROOT / "tests" / "interop" / "clients" / "fetch.sh"
COMPOSE_1 = ["docker-compose", *(f"python3-{name}" for name in (
    "docker", "dockerpty", "docopt", "jsonschema", "texttable", "websocket", "dotenv", "distro", "yaml", "pyrsistent", "attr", "requests",
    "urllib3", "six", "certifi", "chardet", "charset-normalizer", "idna"))]


def shell_library(*words):
    """A function of scripts/lib.sh, and what it prints."""
    done = subprocess.run(["bash", "-c", '. "$0"; "$@"', str(ROOT / "scripts" / "lib.sh"), *words], capture_output=True, text=True,
                          timeout=MAKE_SECONDS, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise unittest.SkipTest(f"{' '.join(words)}: {done.stderr[-500:]}")
    return done.stdout.strip()


@unittest.skipUnless(os.environ.get("HULL_TEST_EXAMPLES"), "makes and imports images for minutes; HULL_TEST_EXAMPLES=1 runs it")
class ProgramTest(EngineTest):
    IMAGE = SERVERS

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        shell_library("ensure_programs_image", HULL, cls.IMAGE)

    def network(self):
        name = unique("net")
        self.addCleanup(hull, "network", "rm", "-f", name, check=False)
        hull("network", "create", name)
        return name

    def volume(self, *options):
        name = unique("data")
        self.addCleanup(hull, "volume", "rm", "-f", name, check=False)
        hull("volume", "create", *options, name)
        return name

    def published(self, name, port):
        return int(hull("port", name, port).out.split()[0].rsplit(":", 1)[1])


class Databases(ProgramTest):
    """PostgreSQL under pgbench, which runs on another machine and knows what was confirmed: all of that is there after a restart and
    after the database's machine was killed."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.postgres = f"hull-test/{unique('postgres')}"
        cls.addClassCleanup(hull, "rmi", "-f", cls.postgres, check=False)
        # The example without its first step, whose packages are there already.
        text = (ROOT / "examples" / "postgres" / "Dockerfile").read_text()
        text = re.sub(r"FROM .*?\nENV", f"FROM {SERVERS}\nRUN install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data\nENV", text, flags=re.DOTALL)
        hull("build", "-t", cls.postgres, "-f", "-", ROOT / "examples" / "postgres", stdin=text)

    def database(self, network, volume):
        name = unique("db")
        self.addCleanup(hull, "rm", "-f", name, check=False)
        hull("run", "-d", "--name", name, "-m", "384m", "--network", network, "-e", f"POSTGRES_PASSWORD={PASSWORD}",
             "-v", f"{volume}:/var/lib/postgresql/data", self.postgres)
        self.await_database(name)
        return name

    def await_database(self, name):
        def ready():  # asked only when it has started once: asking takes time from making the database
            logged = hull("logs", name)
            return ("ready to accept connections" in logged.out + logged.err
                    # While the password is set nothing but the local socket answers.
                    and hull("exec", name, "pg_isready", "-q", "-h", "127.0.0.1", check=False).status == 0)
        wait_for(ready, "PostgreSQL answers", READY_SECONDS)

    def sql(self, name, text):
        return hull("exec", "-u", "postgres", name, "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", text).out.strip()

    def load(self, network, database):
        """pgbench without an end; it notices within seconds that the other machine is gone."""
        name = unique("load")
        self.addCleanup(hull, "rm", "-f", name, check=False)
        target = (f"host={database} user=postgres dbname=postgres tcp_user_timeout=15000 keepalives_idle=5 keepalives_interval=2 keepalives_count=5")
        hull("run", "-d", "--name", name, "--network", network, "-e", f"PGPASSWORD={PASSWORD}", SERVERS,
             "pgbench", "-n", "-c", CLIENTS, "-j", "1", "-T", "100000", target)
        return name

    def await_history(self, name, rows):
        wait_for(lambda: int(self.sql(name, "select count(*) from pgbench_history")) >= rows, f"{rows} transactions", READY_SECONDS)

    def check(self, name, confirmed):
        """The balance holds, as many transactions are there as were confirmed (or were about to be), and no page is damaged."""
        rows, *sums = self.sql(name, "select (select count(*) from pgbench_history), (select coalesce(sum(delta), 0) from pgbench_history), "
                               "(select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), "
                               "(select sum(tbalance) from pgbench_tellers)").split("|")
        self.assertEqual(len(set(sums)), 1, sums)
        self.assertGreaterEqual(int(rows), confirmed)
        self.assertLessEqual(int(rows), confirmed + CLIENTS)
        hull("exec", "-u", "postgres", name, "pg_amcheck", "--install-missing", "--heapallindexed", "-d", "postgres")
        return int(rows)

    def survives(self, *options):
        network, volume = self.network(), self.volume(*options)
        name = self.database(network, volume)
        hull("exec", "-u", "postgres", name, "pgbench", "-q", "-i", "-s", "1")
        load = self.load(network, name)
        self.await_history(name, TRANSACTIONS // 2)
        hull("restart", name)  # while it works: PostgreSQL's own orderly end
        self.await_database(name)
        first = self.check(name, self.confirmed(load))

        load = self.load(network, name)
        self.await_history(name, first + TRANSACTIONS)
        pid = hull("inspect", "-f", "{{.State.Pid}}", name).out.strip()
        engine_command("kill", "-9", pid)
        self.assertEqual(hull("wait", name).out.strip(), "137")
        confirmed = first + self.confirmed(load)
        hull("rm", name)
        name = self.database(network, volume)  # another container on the same volume
        self.check(name, confirmed)
        self.sql(name, "vacuum full pgbench_accounts; reindex table pgbench_accounts")

    def confirmed(self, load):
        """How many transactions a pgbench that has lost its database saw confirmed."""
        hull("wait", load)
        text = hull("logs", load)
        return int(re.search(r"number of transactions actually processed: (\d+)", text.out + text.err)[1])

    def test_on_a_named_volume(self):
        self.survives()

    def test_on_a_disk(self):
        self.survives("--driver", "disk", "-o", "size=2g")


APP = r"""use strict; use IO::Socket::INET; $| = 1;
my $web = IO::Socket::INET->new(LocalPort => 8000, Listen => 16, ReuseAddr => 1) or die "listen: $!";
while (my $client = $web->accept) {
  while (defined(my $line = <$client>)) { last if $line =~ /^\r?$/ }
  my $answer = "no cache";
  if (my $cache = IO::Socket::INET->new(PeerAddr => "cache", PeerPort => 6379, Timeout => 10)) {
    print $cache "INCR visits\r\n";
    ($answer) = (<$cache> // "") =~ /^:(\d+)/;
    $answer = "visit $answer";
  }
  print $client "HTTP/1.0 200 OK\r\nContent-Length: " . length($answer) . "\r\n\r\n$answer";
}
"""
COMPOSE_FILE = """services:
  cache:
    image: hull-test/servers
    command: redis-server --appendonly yes --appendfsync always --protected-mode no --dir /data
    volumes: ["kept:/data"]
  app:
    image: hull-test/servers
    command: perl /app/app.pl
    volumes: ["./app:/app:ro"]
    depends_on: [cache]
    ports: ["127.0.0.1::8000"]
volumes:
  kept: {}
"""


class Composed(ProgramTest):
    """An application and Redis, which find each other by name on the project's network."""

    def project(self):
        folder = self.temporary_folder()
        (folder / "app").mkdir()
        (folder / "app" / "app.pl").write_text(APP)
        (folder / "compose.yml").write_text(COMPOSE_FILE)
        (folder / "config" / "cli-plugins").mkdir(parents=True)
        return folder

    def fetch(self, *packages):
        done = subprocess.run([FETCH, *packages], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"{packages[1]} cannot be fetched: {done.stderr[-200:]}")
        return pathlib.Path(done.stdout.strip())

    def works(self, folder, command, **environment):
        env = {**os.environ, "DOCKER_HOST": os.environ["HULL_HOST"], "DOCKER_CONFIG": str(folder / "config"), "DOCKER_BUILDKIT": "0",
               "COMPOSE_PROJECT_NAME": unique("project"), "COMPOSE_HTTP_TIMEOUT": str(COMMAND_SECONDS), **environment}

        def compose(*words, check=True):
            done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=COMMAND_SECONDS, cwd=folder, env=env,
                                  stdin=subprocess.DEVNULL, check=False)
            if check and done.returncode != 0:
                raise AssertionError(f"compose {' '.join(words)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
            return done.stdout

        def visit():
            """The page's text; none while nobody answers."""
            address = compose("port", "app", "8000").strip()
            with contextlib.suppress(OSError, http.client.HTTPException):
                text = urllib.request.urlopen(f"http://{address}/", timeout=20).read().decode()
                return text if text.startswith("visit ") else None
            return None

        self.addCleanup(compose, "down", "-v", "-t", "2", check=False)
        compose("up", "-d")
        seen = [int(wait_for(visit, "a visit", COMMAND_SECONDS).split()[1]) for _ in range(3)]
        self.assertEqual(seen, sorted(set(seen)))
        compose("restart", "-t", "5", "cache")  # the name leads to it again, and what it counted is on the volume
        self.assertGreater(int(wait_for(visit, "a visit after the restart", COMMAND_SECONDS).split()[1]), seen[-1])
        self.assertRegex(compose("exec", "-T", "cache", "redis-cli", "-h", "cache", "get", "visits"), r"^\d+\n$")
        compose("down", "-v", "-t", "2")
        self.assertNotIn(env["COMPOSE_PROJECT_NAME"], hull("volume", "ls").out + hull("network", "ls").out + hull("ps", "-a").out)

    @unittest.skipUnless(sys.version_info[:2] == (3, 11), "Debian 12's compose needs Python 3.11")
    def test_with_compose_1(self):
        packages = self.fetch("bookworm", *COMPOSE_1)
        self.works(self.project(), [sys.executable, "-c", "from compose.cli.main import main; main()"],
                   PYTHONPATH=str(packages / "usr/lib/python3/dist-packages"))

    def test_with_compose_2(self):
        packages, folder = self.fetch("trixie", "docker-cli", "docker-compose"), self.project()
        (folder / "config" / "cli-plugins" / "docker-compose").symlink_to(packages / "usr/libexec/docker/cli-plugins/docker-compose")
        self.works(folder, [str(packages / "usr/bin/docker"), "compose"])


class WebServer(ProgramTest):
    def test_nginx_serves_a_folder_of_this_host_on_a_published_port(self):
        folder = self.temporary_folder()
        folder.chmod(0o755)
        large = os.urandom(LARGE_MIB << 20)
        (folder / "large").write_bytes(large)
        (folder / "index.html").write_text("first")
        name = self.container("-p", "127.0.0.1::80", "-v", f"{folder}:/var/www/html:ro", "--stop-signal", "SIGQUIT",
                              "--", "nginx", "-g", "daemon off; error_log stderr;", image=SERVERS)
        port = self.published(name, "80")

        def get(path, connection=None):
            connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

        def ready():
            with contextlib.suppress(OSError, http.client.HTTPException):
                return get("/")[0] == 200
            return False

        wait_for(ready, "nginx answers", COMMAND_SECONDS)
        self.assertEqual(get("/"), (200, b"first"))
        (folder / "index.html").write_text("changed on the host")
        self.assertEqual(get("/"), (200, b"changed on the host"))
        self.assertEqual(get("/none")[0], 404)
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(REQUESTS):
            self.assertEqual(get("/", kept)[1], b"changed on the host")
        status, content = get("/large", kept)
        self.assertEqual((status, hashlib.sha256(content).digest()), (200, hashlib.sha256(large).digest()))
        hull("stop", name)
        self.assertEqual(hull("inspect", "-f", "{{.State.ExitCode}}", name).out, "0\n")  # its orderly end


class Developers(ProgramTest):
    """git and npm on a folder of this host."""
    IMAGE = TOOLS

    def setUp(self):
        super().setUp()
        self.folder = self.temporary_folder()

    def in_tools(self, script, *options):
        git = ["-e", "GIT_CONFIG_COUNT=1", "-e", "GIT_CONFIG_KEY_0=safe.directory", "-e", "GIT_CONFIG_VALUE_0=*"]
        done = subprocess.run([HULL, "run", "--rm", "-m", "768m", "-v", f"{self.folder}:/work", "-w", "/work", *git, *options, TOOLS, "sh", "-ec", script],
                              capture_output=True, text=True, timeout=READY_SECONDS, stdin=subprocess.DEVNULL, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def git(self, *words, cwd=None):
        who = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "safe.directory=*"]
        return subprocess.run(["git", *who, *words], cwd=cwd or self.folder, capture_output=True, text=True, check=True).stdout

    def test_git_clones_commits_and_pushes(self):
        self.git("init", "-q", "-b", "main", "first")
        for number in range(FILES):
            path = self.folder / "first" / f"d{number // 10}" / f"file{number}"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{number}\n" * (number + 1))
        (self.folder / "first" / "run").symlink_to("d0/file0")
        self.git("add", ".", cwd=self.folder / "first")
        self.git("commit", "-q", "-m", "first", cwd=self.folder / "first")
        self.git("clone", "-q", "--bare", "first", "origin.git")
        shown = self.in_tools("""
            git clone -q --no-hardlinks /work/origin.git clone && cd clone
            git status --porcelain; git fsck --full 2>&1; git ls-files | wc -l
            echo more >>d1/file10; rm d2/file20; git mv d3/file30 moved; git status --porcelain
            git -c user.name=T -c user.email=t@example.org commit -q -a -m second
            git push -q origin main; git gc -q; git fsck --full; git status --porcelain""")
        first, *others = shown.split("\n")
        self.assertEqual(first, str(FILES + 1))
        self.assertEqual(others, [" M d1/file10", " D d2/file20", "R  d3/file30 -> moved", ""])
        # This host's git finds the same.
        self.assertEqual(self.git("status", "--porcelain", cwd=self.folder / "clone"), "")
        self.assertEqual(self.git("log", "--format=%s", "main", cwd=self.folder / "origin.git"), "second\nfirst\n")
        self.git("fsck", "--full", cwd=self.folder / "origin.git")

    def package(self, number):
        """A package's archive; each needs the one before."""
        name, out = f"part-{number}", io.BytesIO()
        description = {"name": name, "version": "1.0.0", "main": "index.js",
                       "dependencies": {f"part-{number - 1}": f"file:/work/packages/part-{number - 1}.tgz"} if number else {}}
        below = f"require('part-{number - 1}')" if number else "0"
        files = {"package.json": json.dumps(description), "index.js": f"module.exports = 1 + {below};\n",
                 **{f"lib/file-{i}.js": f"// {i}\n" * i for i in range(PACKAGE_FILES)}}
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            for path, text in files.items():
                member = tarfile.TarInfo(f"package/{path}")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
        (self.folder / "packages" / f"{name}.tgz").write_bytes(out.getvalue())
        return name

    def test_npm_installs_packages(self):
        npm = shell_library("npm_folder")
        (self.folder / "packages").mkdir()
        (self.folder / "app").mkdir()
        names = [self.package(number) for number in range(PACKAGES)]
        (self.folder / "app" / "package.json").write_text(json.dumps({
            "name": "app", "version": "1.0.0", "dependencies": {name: f"file:/work/packages/{name}.tgz" for name in names}}))
        shown = self.in_tools("""
            cd app; npm() { node /npm/bin/npm-cli.js --offline --no-audit --no-fund --no-update-notifier "$@"; }
            npm install >/dev/null; node -p "require('part-%d')"
            npm ls --parseable | wc -l; rm -r node_modules; npm ci >/dev/null; find node_modules -name '*.js' | wc -l""" % (PACKAGES - 1),
                              "-v", f"{npm}:/npm:ro")
        self.assertEqual(shown.split(), [str(PACKAGES), str(PACKAGES + 1), str(PACKAGES * (PACKAGE_FILES + 1))])
        self.assertEqual(len(list((self.folder / "app" / "node_modules").glob("part-*"))), PACKAGES)
