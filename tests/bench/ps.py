#!/usr/bin/env python3
"""How long listing takes with 10,000 containers in the database: ps.py --fake HULLD-FAKE. Prints one JSON object.

One container is made by the engine; its row is copied, with other ids and names, while no engine runs.
"""
import argparse
import http.client
import json
import os
import pathlib
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import time

CONTAINERS = 10_000
ROUNDS = 20
TARGET_MS = 100


def request(path, method, target, body=None):
    connection = http.client.HTTPConnection("hull")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    began = time.monotonic()
    connection.request(method, target, json.dumps(body) if body else None, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    took = time.monotonic() - began
    connection.close()
    assert answer.status < 400, text
    return took, text


class Engine:
    def __init__(self, program, folder):
        self.socket = folder / "s"
        began = time.monotonic()
        self.process = subprocess.Popen([program, str(folder / "root"), str(self.socket)], stderr=subprocess.DEVNULL)
        while True:
            try:
                request(self.socket, "GET", "/_ping")
                break
            except OSError:
                time.sleep(0.02)
        self.start_seconds = time.monotonic() - began

    def close(self):
        self.process.terminate()
        self.process.wait(60)


def multiply(folder):
    database = sqlite3.connect(folder / "root" / "engine.db")
    created, document, state = database.execute("SELECT created_ns, document, state FROM containers").fetchone()
    for number in range(CONTAINERS - 1):
        identity = f"{number:064x}"
        database.execute("INSERT INTO containers (id, name, created_ns, document, state) VALUES (?,?,?,?,?)",
                         (identity, f"box{number}", created + number, document, state))
        (folder / "root" / "containers" / identity).mkdir()
    database.commit()
    database.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fake", required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hull-bench-") as name:
        folder = pathlib.Path(name)
        engine = Engine(options.fake, folder)
        body = {"Image": "debian", "Cmd": ["true"], "Labels": {"com.docker.compose.project": "p"}, "Env": [f"V{i}={i}" for i in range(20)]}
        request(engine.socket, "POST", "/containers/create?name=first", body)
        engine.close()
        multiply(folder)
        engine = Engine(options.fake, folder)
        results = [{"id": "engine-start-10000-ms", "unit": "ms", "better": "lower", "value": round(engine.start_seconds * 1000)}]
        for name, target in (("ps", "/containers/json"), ("ps-label", '/containers/json?all=1&filters={"label":["nosuch"]}'),
                             ("ps-last", "/containers/json?limit=10"), ("ps-all", "/containers/json?all=1")):
            samples = [request(engine.socket, "GET", target.replace('"', "%22"))[0] * 1000 for _ in range(ROUNDS)]
            results.append({"id": f"{name}-{CONTAINERS}-ms", "unit": "ms", "better": "lower", "value": round(statistics.median(samples), 1), "hull": samples, **({} if name == "ps-all" else {"target": TARGET_MS})})
        engine.close()
        host = {"cpus": os.cpu_count(), "kernel": os.uname().release, "load": os.getloadavg()[0]}
        print(json.dumps({"host": host, "results": results}))


if __name__ == "__main__":
    main()
