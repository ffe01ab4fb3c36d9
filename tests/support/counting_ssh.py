#!/usr/bin/env python3
"""Stands in for ssh(1): carries one connection of `hull -H ssh://…` to an engine's unix socket and notes what was asked and how
many bytes went there, as a line of JSON.

  COUNTING_SOCKET   the engine
  COUNTING_LOG      where the lines go
  COUNTING_REFUSE   a path that this engine does not know (an older one)
  COUNTING_BEFORE   a command to run before the first build is passed on, once
"""
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading

CHUNK = 1 << 16


def read_request(stdin):
    """The first bytes, up to the end of the header."""
    head = b""
    while b"\r\n\r\n" not in head:
        more = os.read(stdin, CHUNK)
        if not more:
            break
        head += more
    return head


def carry(engine, stdout):
    while data := engine.recv(CHUNK):
        os.write(stdout, data)
    os.close(stdout)


def run_before():
    command = os.environ.get("COUNTING_BEFORE")
    done = pathlib.Path(os.environ["COUNTING_LOG"] + ".before")
    if command and not done.exists():
        done.touch()
        subprocess.run(json.loads(command), check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def main():
    head = read_request(0)
    path = head.split(b" ")[1].split(b"?")[0].decode() if b" " in head else ""
    path = "/" + path.split("/", 2)[-1]  # without the version
    if path == os.environ.get("COUNTING_REFUSE"):
        os.write(1, b"HTTP/1.1 404 Not Found\r\nContent-Length: 29\r\nConnection: close\r\n\r\n{\"message\":\"page not found\"}\r\n"[:-1])
        return
    if path == "/build":
        run_before()
    engine = socket.socket(socket.AF_UNIX)
    engine.connect(os.environ["COUNTING_SOCKET"])
    answers = threading.Thread(target=carry, args=(engine, 1), daemon=True)
    answers.start()
    sent, data = 0, head
    try:
        while data:
            engine.sendall(data)
            sent += len(data)
            data = os.read(0, CHUNK)
        engine.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it has answered and closed
    with open(os.environ["COUNTING_LOG"], "a", encoding="utf-8") as log:
        log.write(json.dumps({"path": path, "sent": sent}) + "\n")
    answers.join(60)


if __name__ == "__main__":
    sys.exit(main())
