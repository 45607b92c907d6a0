"""Another user of the machine: connects, looks into directories, reads the store; all refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gmpd
from tests import jobs_network as jobs
from tests.network_daemon import NetworkDaemon

#: "nobody", on every Linux.
OTHER_UID = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

#: As that user: what became of each attempt. It imports nothing before it changes its uid but what
#: the interpreter itself needs; ZeroMQ speaks by a socket's bytes.
ATTEMPTS = """
import json, os, socket, sys
uid, runtime, state = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.setgroups([]); os.setgid(uid); os.setuid(uid)
told = {}
def attempt(name, do):
    try:
        told[name] = repr(do())
    except OSError as error:
        told[name] = type(error).__name__
def speak(path):
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(20)
    link.connect(path)
    link.sendall(b"\\xff\\0\\0\\0\\0\\0\\0\\0\\x01\\x7f\\x03\\x01NULL".ljust(64, b"\\0"))
    ready = b"\\5READY\\x0bSocket-Type\\0\\0\\0\\6DEALER\\x08Identity\\0\\0\\0\\0"
    link.sendall(bytes([4, len(ready)]) + ready)
    got = b""
    while data := link.recv(4096):
        got += data
    return b"READY" in got
for name in ("client.sock", "worker.sock"):
    attempt(name, lambda: speak(f"{runtime}/{name}"))
attempt("list", lambda: os.listdir(runtime))
attempt("discovery", lambda: open(f"{runtime}/gmpd.json").read())
attempt("state", lambda: os.listdir(state))
attempt("store", lambda: open(f"{state}/jobs.sqlite", "rb").read(16))
attempt("keys", lambda: os.listdir(f"{state}/keys"))
attempt("server key", lambda: open(f"{state}/keys/server.key").read())
print(json.dumps(told))
"""


@pytest.fixture
def daemon(short_tmp: Path) -> Iterator[NetworkDaemon]:
    """Below a directory that every user may enter: its own mode protects it."""
    short_tmp.chmod(0o755)
    directory = short_tmp / "r"
    directory.mkdir(mode=0o700)
    made = NetworkDaemon(directory, "tests.jobs_network")
    try:
        made.wait_ready()
        with gmpd.Client(str(directory)) as client:
            client.job(client.enqueue(jobs.add, 1, 2)).result(60)
        yield made
    finally:
        directory.chmod(0o700)
        made.close()


def attempts(daemon: NetworkDaemon) -> dict[str, str]:
    told = subprocess.run(
        [sys.executable, "-I", "-c", ATTEMPTS, str(OTHER_UID), str(daemon.directory),
         str(daemon.directory / "state")], capture_output=True, text=True, timeout=100, cwd="/",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    answers: dict[str, str] = json.loads(told.stdout)
    return answers


def test_another_user_is_refused_everything(daemon: NetworkDaemon) -> None:
    assert set(attempts(daemon).values()) == {"PermissionError"}


def test_a_socket_that_another_user_reaches_does_not_speak_to_it(daemon: NetworkDaemon) -> None:
    """Its owner has opened the directory and the sockets to all: the kernel names the peer."""
    daemon.directory.chmod(0o755)
    for name in ("client.sock", "worker.sock"):
        (daemon.directory / name).chmod(0o777)
    told = attempts(daemon)
    assert told["client.sock"] == told["worker.sock"] == "False", "the handshake does not succeed"
    assert told["keys"] == told["server key"] == "PermissionError"
    with gmpd.Client(f"ipc://{daemon.directory}/client.sock") as client:
        assert client.call("status")["dropped"]["refused_peer"] == 2
