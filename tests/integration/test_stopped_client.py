"""A client that is stopped (Ctrl-Z, a debugger) with results outstanding: others do not notice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

import gmpd
from gmpd.netpoll import Dealer, Network, Router
from tests.rawclient import RawDaemon
from tests.support import go_on, stop, wait_until

LIMIT = 8 << 20
JOBS, SIZE = 1500, 100_000

HOG = f"""
import sys, gmpd
with gmpd.Client(sys.argv[1], name="hog") as client:
    futures = [client.submit(bytes, {SIZE}) for _ in range({JOBS})]
    print("submitted", flush=True)
    assert sum(len(future.result(60)) for future in futures) == {JOBS * SIZE}
    print("done", flush=True)
"""


SETTINGS: Any = {
    "limits.client_results": LIMIT,
    "limits.queue_bytes": LIMIT,
    "limits.client_grace": 0.5,
}


@pytest.fixture
def daemon(short_tmp: Path) -> Iterator[RawDaemon]:
    daemon = RawDaemon(short_tmp, **SETTINGS)
    yield daemon
    daemon.end()


@pytest.fixture
def hog(daemon: RawDaemon) -> Iterator[subprocess.Popen[str]]:
    """Stopped, when it has submitted."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOG, daemon.endpoint], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "submitted\n"
    stop(process.pid)
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def rss(pid: int) -> int:
    """Resident memory in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_it_shuts_nobody_out_and_gets_all_when_it_goes_on(
    daemon: RawDaemon, hog: subprocess.Popen[str]
) -> None:
    with gmpd.Client(daemon.endpoint) as client:
        wait_until(lambda: client.call("status")["results"]["full"] == ["hog"], "it takes nothing")
        wait_until(
            lambda: client.call("status")["ps"][0].get("started") == 0, "what began has ended"
        )
        status = client.call("status")
        assert status["results"]["held_back"] > JOBS // 2
        assert LIMIT < status["results"]["bytes"] < 8 * LIMIT
        assert rss(daemon.process.pid) < 60_000_000 + status["results"]["bytes"] * 2

        assert [client.submit(len, "x" * 10_000).result(20) for _ in range(50)] == [10_000] * 50
        assert sum(map(len, client.map(bytes, [50_000] * 400))) == 20_000_000
        assert client.call("status")["results"]["full"] == ["hog"]
        assert not client.call("status")["jobs"]["rejected"]

        go_on(hog.pid)
        assert hog.stdout is not None
        assert hog.stdout.readline() == "done\n"
        assert hog.wait(20) == 0
        empty = {"full": [], "full_clients": 0, "held_back": 0}
        wait_until(
            lambda: empty.items() <= client.call("status")["results"].items(),
            "its last confirmations have arrived",
        )


def test_a_client_that_dies_stopped_leaves_nothing(
    daemon: RawDaemon, hog: subprocess.Popen[str]
) -> None:
    with gmpd.Client(daemon.endpoint) as client:
        wait_until(lambda: client.call("status")["results"]["full"], "it takes nothing")
        hog.kill()
        wait_until(
            lambda: not client.call("status")["queue"]["unfinished"], "its grace", timeout=30
        )
        wait_until(lambda: client.call("status")["results"]["bytes"] < 1 << 20, "and results")
        assert client.submit(abs, -1).result(20) == 1


PARKED = """
import asyncio, os, sys, time, gmpd

async def later(n, mark):
    while not os.path.exists(mark):
        await asyncio.sleep(0.05)
    return bytes(n)

with gmpd.Client(sys.argv[1], name="hog") as client:
    marks = [sys.argv[2]] * 100 + [sys.argv[3]] * 300
    futures = [client.submit(later, 100_000, mark) for mark in marks]
    print("submitted", flush=True)
    while not all(future.running() or future.done() for future in futures): time.sleep(0.01)
    print("parked", flush=True)
    ends = [future.exception(60) for future in futures]
    print(*sorted({str(type(end).__name__) for end in ends}), flush=True)
"""


@pytest.mark.parametrize("kept", [256 << 20, 1 << 20])
def test_what_had_begun_is_kept_by_its_worker_or_refused_by_name(
    short_tmp: Path, kept: int
) -> None:
    """Coroutines that wake while their client is stopped: forty megabytes in two workers. Some
    first: what ends before a worker has been told is sent, and the daemon has it."""
    some, others = str(short_tmp / "some"), str(short_tmp / "others")
    daemon = RawDaemon(short_tmp, **{**SETTINGS, "limits.worker_results": kept})
    hog = subprocess.Popen(
        [sys.executable, "-c", PARKED, daemon.endpoint, some, others],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert hog.stdout is not None
        assert hog.stdout.readline() + hog.stdout.readline() == "submitted\nparked\n"
        stop(hog.pid)
        with gmpd.Client(daemon.endpoint) as client:
            Path(some).touch()
            wait_until(lambda: client.call("status")["results"]["full"], "it takes nothing")
            for job in [client.submit(time.sleep, 0.1) for _ in range(20)]:
                job.result(30)  # the workers have been told before these
            Path(others).touch()
            wait_until(
                lambda: not any(p.get("started", 0) for p in client.call("status")["ps"]),
                "all have ended",
            )
            status = client.call("status")
            assert status["results"]["bytes"] < 3 * LIMIT
            withheld = sum(p.get("withheld", 0) for p in status["ps"])
            assert 0 < withheld <= 2 * kept // 100_000
            assert [client.submit(abs, -i).result(20) for i in range(50)] == list(range(50))
            go_on(hog.pid)
            kinds = hog.stdout.readline().split()
            assert kinds == (["NoneType"] if kept > LIMIT else ["NoneType", "ResultRefused"])
            assert hog.wait(20) == 0
            wait_until(
                lambda: not client.call("status")["results"]["full"],
                "its last confirmations have arrived",
            )
            assert sum(p.get("withheld", 0) for p in client.call("status")["ps"]) == 0
    finally:
        hog.kill()
        hog.wait()
        if hog.stdout is not None:
            hog.stdout.close()
        daemon.end()


BURST = """
import asyncio, os, sys, time, gmpd

def items(n):
    for _ in range(n):
        yield bytes(1_000_000)

async def later(path):
    while not os.path.exists(path): await asyncio.sleep(0.05)
    return bytes(1_000_000)

with gmpd.Client(sys.argv[1], name="hog") as client:
    futures = [client.submit(later, sys.argv[2]) for _ in range(100)]
    while not all(future.running() for future in futures): time.sleep(0.01)
    streams = [client.stream(items, 66) for _ in range(2)]
    assert [len(next(stream)) for stream in streams] == [1_000_000] * 2  # they have begun
    print("parked", flush=True)
    assert [len(future.result(60)) for future in futures] == [1_000_000] * 100
    assert [sum(map(len, stream)) for stream in streams] == [65_000_000] * 2
    print("done", flush=True)
"""


def all_ready(client: gmpd.Client) -> Any:
    """The status of all Ps, once all have workers."""
    ps = client.call("status")["ps"]
    return ps if len(ps) == 2 and all(p["pid"] and p["state"] != "starting" for p in ps) else None


def test_megabytes_that_end_in_one_moment_and_streams_are_bounded_everywhere(
    short_tmp: Path,
) -> None:
    """100 MB of results before any worker is told to keep them, and 132 MB of items."""
    daemon = RawDaemon(short_tmp, **SETTINGS)
    now, hog = short_tmp / "now", None
    try:
        with gmpd.Client(daemon.endpoint) as client:
            pids = [p["pid"] for p in wait_until(lambda: all_ready(client), "all workers")]
            before = {pid: rss(pid) for pid in (daemon.process.pid, *pids)}
            hog = subprocess.Popen(
                [sys.executable, "-c", BURST, daemon.endpoint, str(now)],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert hog.stdout is not None
            assert hog.stdout.readline() == "parked\n"
            stop(hog.pid)
            now.touch()
            wait_until(
                lambda: sum(p.get("started", 9) for p in client.call("status")["ps"]) == 2,
                "all results are there, and the generators wait for their reader",
            )
            more = {pid: (rss(pid) - before[pid]) // 1_000_000 for pid in before}
            print(more)
            assert more[daemon.process.pid] < 120, more
            assert sum(more[pid] for pid in pids) < 100 + 60, more
            assert client.submit(abs, -1).result(20) == 1
            go_on(hog.pid)
            assert hog.stdout.readline() == "done\n"
            assert hog.wait(20) == 0
            assert sum(p["withheld"] for p in client.call("status")["ps"]) == 0
    finally:
        if hog is not None:
            hog.kill()
            hog.wait()
            assert hog.stdout is not None
            hog.stdout.close()
        daemon.end()


def test_messages_for_a_peer_that_never_reads_have_a_limit(short_tmp: Path) -> None:
    """However small they are. Another peer of the same socket gets all of its own."""
    network = Network()
    router = Router(network, f"ipc://{short_tmp}/r", messages_max=50)
    reader = Dealer(network, router.endpoint)
    deaf = network.context.socket(zmq.DEALER)
    try:
        deaf.set(zmq.RCVHWM, 1)
        deaf.connect(router.endpoint)
        deaf.send(b"deaf")
        reader.send([b"reader"])
        peers: dict[bytes, bytes] = {}
        while len(peers) < 2:
            if (received := wait_until(router.recv, "it says something")) is not None:
                peers[bytes(received[1][0])] = received[0]
        sent = 0
        while router.send(peers[b"deaf"], [bytes(50_000)]):
            sent += 1
            assert sent < 500, "fifty, and what the kernel takes"
        assert not router.send(peers[b"deaf"], [b"x"])
        for _ in range(30):
            assert router.send(peers[b"reader"], [b"x"])
        for _ in range(30):
            assert reader.wait(20_000)
            assert reader.recv() is not None
    finally:
        deaf.close(0)
        reader.close()
        router.close()
        network.close()
