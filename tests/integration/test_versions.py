"""Daemons and programs of different versions: refused where unsafe, and stopped in any case."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgpack
import pytest

import gmpd
from gmpd import protocol, rundir, versions
from gmpd.errors import ProtocolError
from gmpd.netpoll import Dealer, Network
from gmpd.protocol import Outcome
from tests.rawclient import Boot, RawClient
from tests.support import wait_until

OTHER: dict[str, Any] = {"python": "3.2.1", "gmpd": gmpd.__version__, "cloudpickle": "3.1.0"}


def test_a_program_of_another_python_is_told_both_and_what_to_do(
    boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its functions by value would crash the worker, as bytecode is of a minor version."""
    daemon, client = boot(**{"daemon.procs": 1})
    own = versions.python()
    monkeypatch.setattr(versions, "python", lambda: "3.2.1")
    with pytest.raises(ProtocolError, match=r"3\.2\.1, this daemon Python .* gmpd\.cli up") as told:
        gmpd.Client(daemon.endpoint)
    assert f"Python {own}" in str(told.value)
    assert client.call("status")["dropped"]["version"] == 1
    assert client.outcomes(client.submit("math:sqrt", (4.0,)))[0][:2] == (Outcome.OK, 2.0)


def test_plain_data_goes_between_any_versions(boot: Boot) -> None:
    daemon, _ = boot(**{"daemon.procs": 1})
    hello = protocol.hello("client", os.urandom(16), {**OTHER, "plain": True})
    plain = RawClient(daemon.endpoint, hello=hello)
    assert isinstance(plain.greeted, protocol.Welcome)
    assert plain.greeted.info.python == versions.python()
    options = {"plain": True}
    done = plain.outcomes(plain.submit("math:sqrt", (4.0,), options=options))
    assert done[0][:2] == (Outcome.OK, 2.0)
    plain.close()


def test_one_that_only_asks_is_answered_whatever_its_version(boot: Boot) -> None:
    """And is not let do more than that."""
    daemon, client = boot(**{"daemon.procs": 1})
    for least, most in ((1, 1), (90, 99)):
        hello = protocol.Hello("gmpd", least, most, protocol.ADMIN, b"s", protocol.Info(**OTHER))
        other = RawClient(daemon.endpoint, hello=hello)
        assert isinstance(other.greeted, protocol.Welcome)
        assert other.greeted.version <= most
        assert other.call("status")["state"] == "running"
        other.send(protocol.Define(1, "name", "m:f", b""))
        refused = other.receive()
        assert refused.code is protocol.Refusal.MALFORMED
        other.close()
    assert client.call("status")["dropped"]["bad_client_message"] == 2


#: As gmpd sent them when it spoke version 1 alone: a client's Hello; a daemon's Welcome, and its
#: Reply to the call whose number follows, with an empty map.
HELLO_1 = (
    b"\x97\x01\xa4gmpd\x01\x01\xa6client\xc4\x10" + bytes(range(16))
    + b"\x83\xa3pid\x07\xa4name\xa3old\xa6python\xa63.11.7"
)  # fmt: skip
WELCOME_1 = (
    b"\x97\x02\x01\xcf\x00\x00\x01\xa2$[\x08\xa7\xce\x00\x01\x00\x00\xcd\x10\x00"
    b"\xce \x00\x00\x00\x83\xa5procs\x01\xa3pid\xcd#\x05\xa7version\xa50.1.0"
)
REPLY_1, EMPTY = b"\x94\x0b", b"\xc3\x80"


def test_a_program_of_version_1_reads_why_it_is_refused(boot: Boot) -> None:
    daemon, _ = boot(**{"daemon.procs": 1})
    network = Network()
    try:
        link = Dealer(network, daemon.endpoint)
        link.send([HELLO_1])
        assert link.wait(20)
        (frame,) = link.recv() or [b""]
        # Read as it did: by hand, and with exactly these fields.
        kind, least, most, reason = msgpack.unpackb(bytes(frame))
        assert (kind, least, most) == (3, protocol.VERSION_MIN, protocol.VERSION)
        assert "versions 1 to 1" in reason
    finally:
        network.close()


def test_a_daemon_of_version_1_is_asked_to_drain(short_tmp: Path) -> None:
    """It knows Hello and Call of today, and nothing of the role to ask only."""
    directory = short_tmp / "d"
    answers = f"{WELCOME_1!r}", f"{REPLY_1!r}", f"{EMPTY!r}"
    foreign = subprocess.Popen(
        [sys.executable, "-c", FOREIGN.replace("REFUSES = True", "REFUSES = False"),
         str(directory), *answers],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert foreign.stdout is not None
        assert foreign.stdout.readline() == "up\n"
        done = gmpd_command(directory, "down")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "gmpd is down\n")
        assert foreign.wait(20) == 0
    finally:
        foreign.kill()
        foreign.wait()
        if foreign.stdout is not None:
            foreign.stdout.close()


#: A daemon of long ago, or of the future: it has the lock, refuses every Hello, and ends on TERM;
#: or it answers as it is told, and ends when it is asked to.
FOREIGN = """
REFUSES = True
import ast, json, os, signal, sys, time
import msgpack
from gmpd import rundir
from gmpd.netpoll import ZapHandler, Network, Poller, Router
directory = rundir.prepare(sys.argv[1])
ended = []
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
with rundir.Lock.acquire(directory) as lock:
    network = Network()
    gate = ZapHandler(network)
    endpoint = rundir.endpoint(directory, "client")
    router = Router(network, endpoint)
    record = rundir.Discovery.of_this_process(
        version="0.0.9", started_at=time.time(), endpoints={"client": endpoint}, http=None)
    rundir.write_discovery(directory, record)
    poller = Poller()
    poller.add("gate", gate)
    poller.add("router", router)
    print("up", flush=True)
    while not ended:
        poller.wait(0.05)
        gate.answer()
        while (got := router.recv()) is not None:
            peer, (frame,) = got
            if REFUSES:
                router.send(peer, [msgpack.packb([3, 77, 78, "another version"])])
                continue
            welcome, reply, empty = map(ast.literal_eval, sys.argv[2:])
            kind, *fields = msgpack.unpackb(frame)
            if kind == 1:
                router.send(peer, [welcome])
            elif kind == 10:
                router.send(peer, [reply + msgpack.packb(fields[0]) + empty])
                ended += [1] * (fields[1] == "drain")
    time.sleep(0.2)  # the last answer leaves
"""


def gmpd_command(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gmpd.cli", "--runtime-dir", str(directory), *words],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("words", [["down"], ["down", "--now"], ["drain"]], ids=" ".join)
def test_a_daemon_of_any_version_can_be_stopped(short_tmp: Path, words: list[str]) -> None:
    directory = short_tmp / "d"
    foreign = subprocess.Popen(
        [sys.executable, "-c", FOREIGN, str(directory)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert foreign.stdout is not None
        assert foreign.stdout.readline() == "up\n"
        asked = gmpd_command(directory, "status")
        assert asked.returncode != 0
        assert "77 to 78" in asked.stderr, "both versions are named"
        done = gmpd_command(directory, *words)
        assert done.returncode == 0, done.stderr
        assert "SIGTERM" in done.stderr + done.stdout
        wait_until(lambda: foreign.poll() is not None, "it ends")
        assert rundir.find_holder(directory) is None
    finally:
        foreign.send_signal(signal.SIGKILL)
        foreign.wait()
        if foreign.stdout is not None:
            foreign.stdout.close()
