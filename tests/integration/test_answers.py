"""Values that come from the worker itself: counted, and safe from deaths, stops and cancels."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gmpd
from tests import jobs_answers as jobs
from tests.rawclient import RawDaemon
from tests.support import go_on, stop, wait_until

DEADLINE_S = 60.0
#: Jobs until one is answered by its worker, on a machine that is busy with other work.
TRIES = 30


@pytest.fixture
def daemon(short_tmp: Path) -> Iterator[RawDaemon]:
    daemon = RawDaemon(short_tmp)
    yield daemon
    daemon.end()


@pytest.fixture
def client(daemon: RawDaemon) -> Iterator[gmpd.Client]:
    with gmpd.Client(daemon.endpoint) as client:
        yield client


def told(client: Any) -> list[int]:
    """Jobs whose values come from workers, from now on."""
    core: Any = client._core
    seqs: list[int] = []
    take = core._told

    def noted(message: Any) -> None:
        seqs.append(message.job)
        take(message)

    core._told = noted
    return seqs


def finished(client: gmpd.Client) -> dict[str, int]:
    counts: dict[str, int] = client.call("status")["jobs"]["finished"]
    return counts


def is_even(client: Any) -> bool:
    """Whether the client's count of outcomes is the coordinator's."""
    core = client._core
    return bool(core._sent == core._received and not core._resend_buffer._sent)


def warm(client: gmpd.Client, n: int = 20) -> None:
    """All workers have the lane."""
    for _ in range(n):
        [f.result(DEADLINE_S) for f in [client.submit(math.sqrt, 4.0) for _ in range(4)]]


def test_values_come_from_workers_and_a_question_knows_them(client: gmpd.Client) -> None:
    seqs = told(client)
    for n in range(200):
        assert client.submit(math.sqrt, 4.0).result(DEADLINE_S) == 2.0
        assert finished(client) == {"ok": n + 1}
    assert len(seqs) > 150
    assert is_even(client)


def test_so_they_do_to_coroutines_of_an_async_client(daemon: RawDaemon) -> None:
    async def main() -> int:
        async with gmpd.AsyncClient(daemon.endpoint) as client:
            seqs = told(client)
            for n in range(100):
                assert await client.submit(math.sqrt, 4.0) == 2.0
                assert (await client.call("status"))["jobs"]["finished"]["ok"] == n + 1
            return len(seqs)

    assert asyncio.run(main()) > 70


@pytest.mark.parametrize("case", ["options", "many", "large", "error"])
def test_others_come_through_the_coordinator(client: gmpd.Client, case: str) -> None:
    warm(client, 3)
    seqs = told(client)
    match case:
        case "options":
            assert client.options(retries=1).submit(abs, -1).result(DEADLINE_S) == 1
        case "many":
            futures = [client.submit(time.sleep, 0.3) for _ in range(12)]
            assert [future.result(DEADLINE_S) for future in futures] == [None] * 12
            assert len(seqs) <= 8, "the first and last four at most"
            seqs.clear()
        case "large":
            assert len(client.submit(bytes, 5000).result(DEADLINE_S)) == 5000
        case _:
            with pytest.raises(ZeroDivisionError):
                client.submit(divmod, 1, 0).result(DEADLINE_S)
    assert not seqs


@pytest.mark.parametrize("before", [True, False])
def test_a_worker_that_dies_at_its_answer_has_answered(client: gmpd.Client, before: bool) -> None:
    warm(client)
    n, pids = finished(client)["ok"], pids_of(client)
    for _ in range(TRIES):  # one that is slow is taken for one that stands still, and not answered
        n += 1
        assert client.submit(jobs.at_answer, before, dies=True).result(DEADLINE_S) in pids
        assert finished(client) == {"ok": n}
        if not all(map(lives, pids)):
            break
    assert not all(map(lives, pids))
    assert client.submit(math.sqrt, 4.0).result(DEADLINE_S) == 2.0
    wait_until(lambda: is_even(client), "even counts")


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("force", [True, False])
def test_a_worker_that_stops_at_its_answer_has_answered(
    client: gmpd.Client, before: bool, force: bool
) -> None:
    """Its outcome is found where it stored it. A cancel by force comes too late for it."""
    warm(client)
    n, pids = finished(client)["ok"], pids_of(client)
    for _ in range(TRIES):
        n += 1
        future = client.submit(jobs.at_answer, before, dies=False)
        wait_until(partial(is_seen, future, pids), "its end")
        if force:
            assert not future.cancel(force=True)
        assert future.result(DEADLINE_S) in pids
        assert finished(client) == {"ok": n}
        if any(map(is_stopped, pids)):
            break
    assert any(map(is_stopped, pids))
    warm(client, 2)
    for pid in pids:
        go_on(pid)
    wait_until(lambda: is_even(client), "even counts")
    assert finished(client) == {"ok": n + 8}


def is_seen(future: Any, pids: list[int]) -> bool:
    return future.done() or any(map(is_stopped, pids))


def pids_of(client: gmpd.Client) -> list[int]:
    return [p["pid"] for p in client.call("status")["ps"]]


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def test_cancels_by_force_that_race_with_answers_end_each_job_once(client: gmpd.Client) -> None:
    warm(client)
    before = finished(client)
    ends = {"ok": 0, "cancelled": 0}
    for n in range(30):
        future = client.submit(time.sleep, 0.02)
        timer = threading.Timer(0.001 * n, lambda future=future: future.cancel(force=True))
        timer.start()
        try:
            future.result(DEADLINE_S)
            ends["ok"] += 1
        except CancelledError:
            ends["cancelled"] += 1
        timer.join()
    after = finished(client)
    assert {end: after.get(end, 0) - before.get(end, 0) for end in ends} == ends
    wait_until(lambda: is_even(client), "even counts")


STOPPED = """
import sys, time, gmpd
with gmpd.Client(sys.argv[1]) as client:
    for _ in range(20):
        client.submit(abs, -1).result()
    futures = [client.submit(time.sleep, 0.8) for _ in range(4)]
    client.call("status")  # behind the jobs: they have been sent
    print("submitted", flush=True)
    print([future.result(60) for future in futures], client.call("status")["jobs"]["finished"])
"""


def test_a_stopped_client_finds_its_values_when_it_goes_on(
    daemon: RawDaemon, client: gmpd.Client
) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", STOPPED, daemon.endpoint], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "submitted\n"
        stop(other.pid)
        wait_until(lambda: finished(client).get("ok") == 24, "the ends")
        go_on(other.pid)
        assert other.stdout.readline() == "[None, None, None, None] {'ok': 24}\n"
        assert other.wait(DEADLINE_S) == 0
    finally:
        other.kill()
        other.wait()
        assert other.stdout is not None
        other.stdout.close()


def test_a_client_that_has_forked_or_died_costs_no_descriptors(
    daemon: RawDaemon, client: gmpd.Client
) -> None:
    wait_until(lambda: all_serve(client), "each worker has its descriptors")
    warm(client)
    before = sum(descriptors(client))
    for n in range(20):
        other = gmpd.Client(daemon.endpoint)
        warm(other, 2)
        if n % 2:
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
            assert other.submit(abs, -1).result(DEADLINE_S) == 1
        other.close()
    wait_until(lambda: sum(descriptors(client)) <= before, "its lanes are closed")


def all_serve(client: gmpd.Client) -> bool:
    futures = [client.submit(jobs.pid_after, 0.05) for _ in range(8)]
    return {future.result(DEADLINE_S) for future in futures} == {*pids_of(client)}


def descriptors(client: gmpd.Client) -> list[int]:
    pids = pids_of(client)
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]


def test_clients_beyond_the_lanes_of_a_worker_are_served_as_ever(daemon: RawDaemon) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(gmpd.Client(daemon.endpoint)) for _ in range(36)]
        seqs = []
        for each in clients:
            seqs.append(told(each))
            warm(each, 3)
        assert seqs[0]
        assert not all(seqs), "two workers have the lanes of 16 each"
        assert all(map(is_even, clients))


def test_a_job_that_closes_the_lanes_of_its_worker_is_answered(client: gmpd.Client) -> None:
    warm(client)
    for _ in range(3):
        assert client.submit(jobs.close_lanes).result(DEADLINE_S) >= 0
    warm(client)
    wait_until(lambda: is_even(client), "even counts")
