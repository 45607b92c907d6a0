"""A daemon without room: clients that wait, clients that want to know, and those that ignore it."""

from __future__ import annotations

import asyncio
import functools
import operator
import time
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd.client.futures import JobFuture
from gmpd.errors import QueueFull
from gmpd.protocol import Outcome
from tests.rawclient import RawClient, RawDaemon
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_daemon")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Private daemons hold 20 jobs."""
    monkeypatch.setenv("GMPD_LIMITS__QUEUE_JOBS", "20")


@pytest.mark.usefixtures("small")
def test_a_client_that_waits_gets_all_its_jobs_done() -> None:
    """Batches larger than the queue, another client's jobs in it, and a map."""
    with gmpd.Client() as client, gmpd.Client(client.endpoint) as other:
        blocked = [other.submit(time.sleep, 0.2) for _ in range(20)]
        wait_until(lambda: other._core.in_flight == 20, "the queue is full")
        futures = [client.submit(operator.neg, i) for i in range(200)]
        assert len(wait([*futures, *blocked], 60).done) == 220
        assert [future.result() for future in futures] == [-i for i in range(200)]
        assert client.call("status")["jobs"]["rejected"]["queue_jobs"] > 0
        assert client._core.retry_s == 0.0 or wait_until(
            lambda: client._core.retry_s == 0.0, "nothing is waited for any more"
        )


@pytest.mark.usefixtures("small")
def test_an_async_client_too() -> None:
    async def main() -> None:
        async with gmpd.AsyncClient() as c:
            assert await asyncio.gather(*[c.submit(abs, -i) for i in range(200)]) == list(
                range(200)
            )

    asyncio.run(main())


@pytest.mark.usefixtures("small")
def test_a_client_that_wants_to_know_is_told_room_and_time() -> None:
    with gmpd.Client(on_full="raise") as client:
        sleeping = [client.submit(time.sleep, 0.3) for _ in range(15)]
        wait_until(lambda: client._core.unsent == 0, "they are sent")
        more = [client.submit(abs, -1) for _ in range(40)]
        wait([*sleeping, *more], 30)
        errors = [e for future in more if isinstance(e := future.exception(), QueueFull)]
        assert errors
        assert errors[0].retry_after > 0
        assert 0 <= errors[0].room <= 5
        assert "limits.queue_jobs = 20" in str(errors[0])


def test_a_draining_daemon_is_not_asked_for_ever() -> None:
    with gmpd.Client() as client:
        running = client.submit(time.sleep, 1.0)
        wait_until(running.running, "it runs")
        client.call("drain")
        with pytest.raises(QueueFull, match="draining"):
            client.submit(abs, -1).result(20)


SMALL_WINDOW: Any = {"limits.client_window": 10}


def test_who_ignores_the_window_is_refused(short_tmp: Path) -> None:
    """Jobs beyond it without an acknowledged outcome: each is refused, nothing is dropped."""
    daemon = RawDaemon(short_tmp, **SMALL_WINDOW)
    try:
        client = RawClient(daemon.endpoint)
        try:
            held = client.submit("time:sleep", *[(0.3,)] * 10)
            beyond = client.outcomes(client.submit("math:sqrt", *[(4.0,)] * 500))
            assert {outcome for outcome, _, _ in beyond} == {Outcome.REJECTED}
            assert {details["reason"] for _, _, details in beyond} == {"window"}
            assert {outcome for outcome, _, _ in client.outcomes(held)} == {Outcome.OK}
        finally:
            client.close()
    finally:
        daemon.end()


def test_ever_new_functions_make_neither_side_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmpd.client.core.FUNCTIONS_MAX", 8)
    monkeypatch.setenv("GMPD_DAEMON__PROCS", "1")
    with gmpd.Client() as client:

        def known() -> int:
            return int(client.submit(len, [1]).result(20))

        for i in range(100):
            assert client.submit(eval(f"lambda x: x + {i}"), 1).result(20) == i + 1
            assert known() == 1
        assert len(client._core._functions._fids) == 8
        assert client.submit(_functions_of_worker).result(20) <= 12


def _functions_of_worker() -> int:
    import sys

    for frame in list(sys._current_frames().values()):
        at = frame
        while at is not None:
            if at.f_code.co_name == "main" and "worker" in at.f_locals:
                return len(at.f_locals["worker"].functions)
            at = at.f_back  # type: ignore[assignment]
    raise LookupError("no thread is in the worker's main()")


@pytest.mark.parametrize("limit", ["1", "2"])
def test_who_waits_is_served_as_soon_as_there_is_room(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Several clients, each of which always wants more. Who asked every 0.1 s would take 45 s."""
    monkeypatch.setenv("GMPD_LIMITS__QUEUE_JOBS", limit)
    with gmpd.Client() as one, gmpd.Client(one.endpoint) as two:
        ends: list[str] = []
        futures: list[JobFuture] = []

        def note(name: str, _: object) -> None:
            ends.append(name)

        began = time.monotonic()
        for client, name in ((one, "one"), (two, "two")):
            for i in range(225):
                futures.append(client.submit(operator.neg, i))
                futures[-1].add_done_callback(functools.partial(note, name))
        assert [f.result(40) for f in futures] == [-i for i in range(225)] * 2
        assert time.monotonic() - began < 20
        first = ends[:225]
        assert min(first.count("one"), first.count("two")) > 25, "neither had to wait for the other"
        assert one.call("status")["jobs"]["rejected"]["queue_jobs"] < 2000


def test_waiting_streams_maps_and_cancelled_jobs_all_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMPD_LIMITS__QUEUE_JOBS", "1")
    with gmpd.Client() as one, gmpd.Client(one.endpoint) as two:
        futures = [one.submit(time.sleep, 0.001) for _ in range(200)]
        mapped = two.map(operator.neg, range(50), chunksize=1)
        for future in futures[::2]:
            future.cancel()
        assert list(mapped) == [-i for i in range(50)]
        assert len(wait(futures, 30).done) == 200
        assert sum(sum(1 for _ in one.stream(range, 20)) for _ in range(5)) == 100
