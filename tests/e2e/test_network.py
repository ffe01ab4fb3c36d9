"""Networks of the user's own: names, isolation, connecting while a container runs, published ports."""
import hashlib
import json
import os
import socket
import threading

from harness import BUSYBOX, DEBIAN, EngineTest, hull, unique, wait_for

SERVE = "while :; do echo from-$HOSTNAME | nc -l -p 80 >/dev/null; done"


# Answers each datagram to its sender.
ECHO = ('socket(S, PF_INET, SOCK_DGRAM, 17); bind(S, sockaddr_in(53, INADDR_ANY)) or die; '
        'while (defined($from = recv(S, $bytes, 65535, 0))) { send(S, "re:$bytes", 0, $from) }')

# Sends back what comes, on every connection at a time.
ECHO_STREAMS = ('use IO::Select; socket(S, PF_INET, SOCK_STREAM, 6); bind(S, sockaddr_in(80, INADDR_ANY)) and listen(S, 1024) or die; '
                '$all = IO::Select->new(*S); while (1) { for $one ($all->can_read) { '
                'if ($one eq *S) { accept($new, S); $all->add($new); undef $new; next } '
                'if (!sysread($one, $bytes, 65536)) { $all->remove($one); close $one; next } '
                'for ($at = 0; $at < length $bytes;) { $put = syswrite($one, $bytes, length($bytes) - $at, $at); last if !$put; $at += $put } } }')
# Where the machine itself is emulated a gigabyte takes an hour, and a connection half a second.
EMULATED = "machine" in os.environ.get("HULL_HOST", "")
CONNECTIONS = 60 if EMULATED else 500
TRANSFER_MIB = 2 if EMULATED else 1024


class Networks(EngineTest):
    def network(self, *options):
        name = unique("net")
        hull("network", "create", *options, name)
        self.addCleanup(hull, "network", "rm", "-f", name, check=False)
        return name

    def asks(self, container, target):
        """Whether `container` gets an answer from `target`."""
        return "from-" in hull("exec", container, "sh", "-c", f"nc -w 5 {target} 80 </dev/null", check=False).out

    def test_members_find_each_other_by_name_and_others_do_not(self):
        app, other = self.network(), self.network("--internal")
        web = self.container("--network", app, "--network-alias", "www", "--", "sh", "-c", SERVE)
        near = self.container("--network", app, "--", "sleep", "1000")
        far = self.container("--network", other, "--", "sleep", "1000")
        address = json.loads(hull("inspect", web).out)[0]["NetworkSettings"]["Networks"][app]["IPAddress"]
        wait_for(lambda: self.asks(near, web), "the name is answered")
        wait_for(lambda: self.asks(near, "www"), "the alias is answered")
        self.assertFalse(self.asks(far, address), "isolated")
        self.assertNotEqual(hull("exec", far, "nslookup", web, check=False).status, 0)

        # Connected while it runs, it is a member; disconnected, it is none.
        hull("network", "connect", app, far)
        wait_for(lambda: self.asks(far, "www"), "a member from now on")
        self.assertIn("eth1", hull("exec", far, "ip", "addr").out)
        members = json.loads(hull("network", "inspect", app).out)[0]["Containers"]
        self.assertEqual(len(members), 3)
        self.assertNotEqual(hull("network", "rm", app, check=False).status, 0)
        hull("network", "disconnect", app, far)
        self.assertFalse(self.asks(far, address))

    def test_bad_requests_are_said_and_leave_nothing(self):
        name = self.network("--subnet", "10.213.0.0/24")
        self.assertIn("already exists", hull("network", "create", name, check=False).err)
        self.assertIn("overlaps", hull("network", "create", "--subnet", "10.213.0.128/25", unique(), check=False).err)
        self.assertIn("not found", hull("network", "rm", "none-such", check=False).err)
        self.assertIn("pre-defined", hull("network", "rm", "bridge", check=False).err)
        self.assertIn("no configured subnet", hull("run", "--rm", "--network", name, "--ip", "10.214.0.9", BUSYBOX, "true", check=False).err)
        self.assertEqual(hull("run", "--rm", "--network", name, "--ip", "10.213.0.9", BUSYBOX, "hostname", "-i").out.strip(), "10.213.0.9")
        self.assertEqual(hull("network", "prune", "-f").out.count(name), 1)

    def test_a_published_port_leads_to_a_network_of_ones_own(self):
        web = self.container("--network", self.network(), "-p", "127.0.0.1::80", "--", "sh", "-c", SERVE)
        port = int(hull("port", web, "80").out.rsplit(":", 1)[1])

        def answer():
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as client:
                    return client.recv(100)
            except OSError:
                return None

        wait_for(answer, "the port answers")

    def test_a_published_udp_port_answers_each_sender(self):
        server = self.container("-p", "127.0.0.1::53/udp", "--", "perl", "-MSocket", "-e", ECHO, image=DEBIAN)
        port = int(hull("port", server, "53/udp").out.rsplit(":", 1)[1])

        def client():
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.addCleanup(made.close)
            made.settimeout(5)
            made.connect(("127.0.0.1", port))
            return made

        def answer(sender, text):
            try:
                sender.send(text)
                return sender.recv(65535)
            except OSError:
                return None

        one, two = client(), client()
        wait_for(lambda: answer(one, b"one"), "the port answers")
        large = b"x" * 8000
        wait_for(lambda: answer(two, large) == b"re:" + large, "a large datagram comes back whole, to the one who sent it")
        hull("rm", "-f", server)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(("127.0.0.1", port))  # given back

    def test_many_connections_and_a_large_transfer_through_a_published_port(self):
        server = self.container("-p", "127.0.0.1::80", "--", "perl", "-MSocket", "-e", ECHO_STREAMS, image=DEBIAN)
        port = int(hull("port", server, "80").out.rsplit(":", 1)[1])

        def connect():
            client = socket.create_connection(("127.0.0.1", port), 60)
            self.addCleanup(client.close)
            client.settimeout(120)
            return client

        def echoes():
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as client:
                    client.settimeout(5)
                    client.sendall(b"?")
                    return client.recv(1) == b"?"
            except OSError:
                return False

        wait_for(echoes, "the port answers")
        clients = [connect() for _ in range(CONNECTIONS)]
        for number, client in enumerate(clients):
            client.sendall(b"%06d" % number)
        for number, client in enumerate(clients):
            self.assertEqual(client.recv(6, socket.MSG_WAITALL), b"%06d" % number)
        for client in clients:
            client.close()

        client, piece, sent, received, left = connect(), os.urandom(1 << 20), hashlib.sha256(), hashlib.sha256(), TRANSFER_MIB << 20

        def send():
            for _ in range(TRANSFER_MIB):
                sent.update(piece)
                client.sendall(piece)

        sender = threading.Thread(target=send)
        sender.start()
        while left > 0:
            got = client.recv(1 << 20)
            self.assertTrue(got, "the connection ended early")
            received.update(got)
            left -= len(got)
        sender.join()
        self.assertEqual(received.digest(), sent.digest())
