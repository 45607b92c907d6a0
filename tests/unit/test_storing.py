"""Durable jobs on their way to the daemon: which go together, how many at a time, which callers are
told."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from typing import Any

import pytest

from gmpd.client import storing
from gmpd.client.calls import Answer
from gmpd.client.stored import Storable, prepare_storable
from gmpd.client.storing import BATCH_BYTES, BATCH_JOBS, Gathering, StoreBatch, batches
from gmpd.errors import DaemonUnreachable, GmpdError
from gmpd.job_ids import parse_job_id
from gmpd.sched.stored import Verdict


def job(*args: Any, fn: Callable[..., Any] = operator.add, **options: Any) -> Storable:
    return prepare_storable(fn, options or None, args, {})


def sizes(*jobs: Storable) -> list[int]:
    return [len(batch) for batch in batches(jobs)]


def test_neighbours_that_are_alike_go_together() -> None:
    assert sizes() == []
    assert sizes(*[job(n, 1) for n in range(BATCH_JOBS + 3)]) == [BATCH_JOBS, 3]
    assert sizes(job(1, 2), job(1, 2, fn=operator.sub), job(3, 4), job(5, 6)) == [1, 1, 2]
    assert sizes(job(1, 2), job(1, 2, retries=3), job(3, 4, retries=3)) == [1, 2]
    assert sizes(job(1, 2), job(1, 2, keep=60), job(3, 4, once=True)) == [1, 1, 1]


def test_large_arguments_make_small_messages() -> None:
    large = b"x" * (BATCH_BYTES // 2)
    assert sizes(*[job(large, b"y") for _ in range(6)]) == [2, 2, 2]


def test_ids_are_in_the_order_of_the_jobs() -> None:
    made = [job(n, 1) for n in range(10)]
    (batch,) = batches(made)
    reply = {"verdicts": bytes([Verdict.NEW] * 10), "ids": [each.id for each in made]}
    assert batch.hex_ids(reply) == [each.id.hex() for each in made]
    assert [parse_job_id(each) for each in batch.hex_ids(reply)] == list(batch.ids(reply))


def test_options_are_those_of_each_call() -> None:
    """Options remembered of one call are used only for calls that are alike."""
    options = {"retries": 3}
    first = prepare_storable(operator.add, options, (1, 2), {})
    again = prepare_storable(operator.add, options, (1, 2), {})
    other = prepare_storable(operator.add, None, (1, 2), {})
    assert (first.options, first.stored) == (again.options, again.stored)
    assert first.options is not None
    assert first.options["retries"] == 3
    assert (other.options or {}).get("retries") is None
    assert first.id != again.id


class Future:
    def __init__(self) -> None:
        self.got: Any = None

    def done(self) -> bool:
        return self.got is not None

    def set_result(self, id_: bytes, /) -> None:
        self.got = id_

    def set_exception(self, error: Exception, /) -> None:
        self.got = error


class Daemon:
    """Answers when it is told to."""

    endpoint = "here"

    def __init__(self) -> None:
        self.asked: list[tuple[StoreBatch, Answer]] = []
        self.gathering = Gathering()

    def ask_to_store(self, batch: StoreBatch, told: Callable[[], object]) -> Answer:
        answer = Answer("enqueue", told)
        self.asked.append((batch, answer))
        return answer

    def put(self, n: int) -> list[Future]:
        futures = [Future() for _ in range(n)]
        for future in futures:
            self.gathering.add(job(1, 2), future)
        self.gathering.flush(self)
        return futures

    def answer(self, *conflicts: int) -> None:
        batch, answer = self.asked.pop(0)
        verdicts = [Verdict.CONFLICT if n in conflicts else Verdict.NEW for n in range(len(batch))]
        ids = [id_ for id_, _ in batch.jobs]
        answer.answered(True, {"verdicts": bytes(verdicts), "ids": ids})


def test_what_comes_together_is_one_message_and_each_gets_its_own_id() -> None:
    daemon = Daemon()
    futures = daemon.put(5)
    (batch, _) = daemon.asked[0]
    assert len(batch) == 5
    assert not any(future.done() for future in futures)
    daemon.answer()
    assert [future.got for future in futures] == [id_ for id_, _ in batch.jobs]


def test_the_window_holds_back_what_the_daemon_has_not_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storing, "WINDOW_JOBS", 5)
    daemon = Daemon()
    first = daemon.put(5)
    second = daemon.put(2)
    assert len(daemon.asked) == 1
    daemon.answer()
    assert all(future.done() for future in first)
    assert len(daemon.asked) == 1
    daemon.answer()
    assert all(future.done() for future in second)


def test_a_conflict_is_of_one_job_and_a_loss_of_all() -> None:
    daemon = Daemon()
    futures = daemon.put(3)
    daemon.answer(1)
    assert [isinstance(future.got, GmpdError) for future in futures] == [False, True, False]
    futures = daemon.put(2)
    lost = DaemonUnreachable("gone")
    daemon.asked.pop()[1].answered(False, lost)
    assert [future.got for future in futures] == [lost, lost]


def test_one_who_waits_no_more_is_passed_over() -> None:
    daemon = Daemon()
    futures = daemon.put(2)
    futures[0].got = "cancelled"
    daemon.answer()
    assert futures[0].got == "cancelled"
    assert isinstance(futures[1].got, bytes)


def test_a_message_that_cannot_be_sent_is_told_to_its_callers() -> None:
    class Closed(Daemon):
        def ask_to_store(self, batch: StoreBatch, told: Callable[[], object]) -> Answer:
            raise RuntimeError("closed")

    (future,) = Closed().put(1)
    assert isinstance(future.got, RuntimeError)


def test_callers_of_one_turn_of_the_loop_are_stored_together() -> None:
    daemon = Daemon()

    async def main() -> list[bytes]:
        waiting = asyncio.gather(*[daemon.gathering.store(daemon, job(n, 1)) for n in range(3)])
        while not daemon.asked:
            await asyncio.sleep(0)
        assert [len(batch) for batch, _ in daemon.asked] == [3]
        daemon.answer()
        return await waiting

    assert len(set(asyncio.run(main()))) == 3
