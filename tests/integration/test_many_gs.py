"""Very many Gs in one worker, and garbage beside them: the daemon answers meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gmpd.protocol import Outcome
from tests.rawclient import RawClient, RawDaemon
from tests.support import wait_until

#: A twentieth of what a worker is made for: a few seconds on a busy machine.
MANY = 50_000


ONE_P: Any = {"daemon.procs": 1}


@pytest.fixture
def client(short_tmp: Path) -> Iterator[RawClient]:
    """Of a daemon with one P."""
    daemon = RawDaemon(short_tmp, **ONE_P)
    client = RawClient(daemon.endpoint)
    yield client
    client.close()
    daemon.end()


def p_of(client: RawClient) -> Any:
    (p,) = client.call("status")["ps"]
    return p


def waiting(client: RawClient) -> int:
    """How many Gs wait, as the worker told last; nothing before its first word."""
    return int(p_of(client).get("gs", {}).get("waiting", 0))


def test_fifty_thousand_gs_park_on_one_p_and_all_wake(client: RawClient, tmp_path: Path) -> None:
    parked = tmp_path / "parked"
    client.outcomes(client.submit("math:sqrt", (4.0,)))
    before = p_of(client)["rss"]
    root = client.submit("jobs_for_tests:park_many", (MANY, str(parked)))
    client.until(parked.exists)
    wait_until(lambda: waiting(client) >= MANY, "all are counted as waiting")
    assert (p_of(client)["rss"] - before) / MANY < 1000, "0.8 kB and the frame of a function"
    times = []
    for _ in range(100):
        began = time.monotonic()
        client.outcomes(client.submit("math:sqrt", (4.0,)))
        times.append(time.monotonic() - began)
    assert sorted(times)[50] < 0.1, "the same P answers while they are parked"
    parked.unlink()
    assert client.outcomes(root)[0][:2] == (Outcome.OK, MANY)
    pauses = client.call("status")["hist"]["gc_pause"]
    assert pauses["count"] == sum(pauses["buckets"]) > 0


def test_cycles_that_outlive_their_tenure_are_collected_in_the_end(client: RawClient) -> None:
    """3 million cycles of 400 bytes pass through a window of 100,000: 1.2 GB in all.

    One job after the other: jobs that compute beside each other have a window each, and a busy
    machine runs more of them so.
    """
    top = 0
    for _ in range(10):
        jobs = client.submit("jobs_for_tests:leak_cycles", (300_000, 100_000))
        while not all(seq in client.done for seq in jobs):
            client.receive(0.2)
            top = max(top, p_of(client)["rss"])
        assert client.outcomes(jobs)[0][0] is Outcome.OK
    assert top < 500_000_000, "twice what is in use, and a pass that is late"
    wait_until(lambda: p_of(client)["gc"]["major"] > 0, "the passes were counted")
