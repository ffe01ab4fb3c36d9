#!/usr/bin/env python3
"""Networks against docker's on the same host: iperf3 between two containers, from a container to the host, and from the host through
a published port; the latency of nginx through a published port.

Needs root. Both engines run the same image, made of this host's programs; both have their containers up all the time and are asked in
turn. Prints one JSON object.
"""
import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time

from common import BothEngines, Shell, host, image_of, result, say, wait_until

NGINX = """error_log stderr; pid /run/nginx.pid; user root;
events {}
http { access_log off; keepalive_requests 1000000; server { listen 80; root /site; } }
daemon off;
"""
HOST_PORT = 5299
PORTS = {"hull": (5301, 5311), "docker": (5302, 5312)}  # of iperf3 and nginx


def gbits(text):
    return json.loads(text[text.index("{"):text.rindex("}") + 1])["end"]["sum_received"]["bits_per_second"] / 1e9


class Contender:
    def __init__(self, engine):
        self.engine, self.samples = engine, {}
        self.iperf_port, self.web_port = PORTS[engine.name]
        server = engine.run("bench-server", "-p", f"127.0.0.1:{self.iperf_port}:5201", command=["iperf3", "-s"])
        engine.run("bench-client", command=["sleep", "1000000"])
        engine.run("bench-web", "-p", f"127.0.0.1:{self.web_port}:80", command=["nginx", "-c", "/etc/nginx.conf"])
        self.server = engine.address(server)
        self.gateway = engine("inspect", "-f", "{{.NetworkSettings.Gateway}}", server)
        self.shell = Shell(engine, "bench-client")
        wait_until(self.answers, f"nginx of {engine.name} answers")

    def answers(self):
        try:
            return self.get(http.client.HTTPConnection("127.0.0.1", self.web_port, timeout=5)) > 0
        except (OSError, http.client.HTTPException):
            return False

    @staticmethod
    def get(connection):
        began = time.monotonic()
        connection.request("GET", "/file")
        if len(connection.getresponse().read()) != 1024:
            raise SystemExit("nginx answers something else")
        return (time.monotonic() - began) * 1000

    def requests(self, count, keep):
        connection, took = http.client.HTTPConnection("127.0.0.1", self.web_port, timeout=60), []
        for _ in range(count):
            took.append(self.get(connection))
            if not keep:
                connection.close()
        return statistics.median(took)

    def once(self, options):
        client = f"iperf3 -t {options.seconds} -J"
        published = subprocess.run([*client.split(), "-c", "127.0.0.1", "-p", str(self.iperf_port)], capture_output=True, text=True, check=True)
        return {"net-c2c-vs-docker": gbits(self.shell(f"{client} -c {self.server}")[0]),
                "net-to-host-vs-docker": gbits(self.shell(f"{client} -c {self.gateway} -p {HOST_PORT}")[0]),
                "net-published-vs-docker": gbits(published.stdout),
                "nginx-latency-vs-docker": self.requests(options.requests, keep=True),
                "nginx-connect-latency-vs-docker": self.requests(options.requests // 3, keep=False)}

    def measure(self, options, keep):
        for name, value in self.once(options).items():
            say(f"  {self.engine.name:7} {name:32} {value:8.3f}")
            if keep:
                self.samples.setdefault(name, []).append(value)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of each iperf3 run")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--storage", help="folder for images; the default for temporary files otherwise")
    parser.add_argument("--bin", required=True)
    parser.add_argument("--bench-initrd", help="not used here")
    options = parser.parse_args()
    if options.storage:
        os.makedirs(options.storage, exist_ok=True)
    with tempfile.NamedTemporaryFile(suffix=".tar", dir=options.storage) as archive:
        image_of(archive.name, [shutil.which(p) for p in ("iperf3", "nginx")], texts={"etc/nginx.conf": NGINX, "site/file": "x" * 1024, "var/lib/nginx/keep": ""})
        both = BothEngines(options, archive.name, ["--open-host-port", f"{HOST_PORT}/tcp"])
    listener = subprocess.Popen(["iperf3", "-s", "-p", str(HOST_PORT)], stdout=subprocess.DEVNULL)
    try:
        contenders = [Contender(engine) for engine in both.all]
        for number in range(options.rounds + 1):  # the first is a warm-up
            say(f"round {number} of {options.rounds}" if number else "warming up")
            for contender in contenders if number % 2 else contenders[::-1]:
                contender.measure(options, keep=number > 0)
        for contender in contenders:
            contender.shell.close()
    finally:
        listener.kill()
        both.close()
    hull, docker = (contender.samples for contender in contenders)
    results = [result(name, hull[name], docker[name], *(("ms", "lower") if "latency" in name else ("Gbit/s", "higher"))) for name in hull]
    print(json.dumps({"host": host(), "results": results}))


if __name__ == "__main__":
    main()
