"""A client's futures alone: how they are settled while others wait, and what they are made of."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Future, wait
from concurrent.futures._base import (  # type: ignore[attr-defined]
    _AcquireFutures,
    _create_and_install_waiters,
)
from typing import Any

import pytest

from gmpd.client.futures import JobFuture
from gmpd.codec import encode_error, encode_result
from gmpd.protocol import Outcome
from gmpd.submit.events import JobDone


def done(value: object = 1) -> JobDone:
    return JobDone(Outcome.OK, encode_result(value).data, (), 1, {})


def failed() -> JobDone:
    return JobDone(Outcome.ERROR, encode_error(ValueError("no")), (), 1, {})


def waiter_of(futures: list[JobFuture], return_when: str) -> Any:
    """The waiter that ``wait`` makes for these, and sleeps on."""
    with _AcquireFutures(futures):
        return _create_and_install_waiters(futures, return_when)


CANCELLED = JobDone(Outcome.CANCELLED, b"", (), 0, {})


@pytest.mark.parametrize("outcome", [done(), done([1]), failed()])
def test_a_future_needs_no_dictionary_although_a_thousand_were_pending_when_the_first_ended(
    outcome: JobDone,
) -> None:
    class Own(JobFuture):
        pass

    for kind in (JobFuture, Own):
        futures = [kind() for _ in range(1_000)]
        for number, future in enumerate(futures):
            future._fn_name, future._seq = "f", number
        wait(futures, timeout=0)
        for future in futures:
            future.ended(outcome)
            future.exception()
        assert not any(isinstance(part, dict) for part in gc.get_referents(futures[-1]))


def test_threads_that_are_first_together_get_one_condition_and_one_list_of_waiters() -> None:
    future = JobFuture()
    made = [JobFuture._condition._make(future) for _ in range(2)]  # type: ignore[attr-defined]
    assert made[0] is made[1] is future._condition
    made = [JobFuture._waiters._make(future) for _ in range(2)]  # type: ignore[attr-defined]
    assert made[0] is made[1] is future._waiters


def test_the_last_of_many_futures_wakes_who_waits_for_all() -> None:
    futures = [JobFuture() for _ in range(3)]
    waiter = waiter_of(futures, ALL_COMPLETED)
    outcomes = [done(), failed(), CANCELLED]
    for left, (future, outcome) in enumerate(zip(futures, outcomes, strict=True)):
        assert waiter.num_pending_calls == 3 - left
        assert not waiter.event.is_set()
        future.ended(outcome)
        assert future.done()
    assert waiter.event.is_set()
    assert waiter.num_pending_calls == 0
    assert set(waiter.finished_futures) == set(futures)


def test_the_first_error_wakes_who_waits_for_it_and_a_value_does_not() -> None:
    futures = [JobFuture() for _ in range(3)]
    waiter = waiter_of(futures, FIRST_EXCEPTION)
    futures[0].ended(done())
    assert not waiter.event.is_set()
    futures[1].ended(failed())
    assert waiter.event.is_set()


def test_the_first_end_wakes_who_waits_for_any() -> None:
    futures = [JobFuture() for _ in range(3)]
    waiter = waiter_of(futures, FIRST_COMPLETED)
    futures[1].ended(CANCELLED)
    assert waiter.event.is_set()
    assert waiter.finished_futures == [futures[1]]


def test_two_threads_that_wait_for_the_same_futures_are_both_woken() -> None:
    futures: list[Any] = [JobFuture() for _ in range(50)]
    others = [Future[Any](), Future[Any]()]
    ended: list[int] = []

    def await_all(own: Future[Any]) -> None:
        ended.append(len(wait([*futures, own], timeout=60).not_done))

    threads = [threading.Thread(target=await_all, args=(own,)) for own in others]
    for thread in threads:
        thread.start()
    for own in others:
        own.set_result(None)
    for future in futures:
        future.ended(done())
        while not future.done():  # a thread was inside of its condition
            future.settle(done())
    for thread in threads:
        thread.join(60)
    assert ended == [0, 0]


def test_callbacks_run_once_in_their_order_and_late_ones_at_once() -> None:
    future, called = JobFuture(), list[str]()
    future.add_done_callback(lambda _: called.append("first"))
    future.add_done_callback(lambda _: called.append("second"))
    future.ended(done())
    assert called == ["first", "second"]
    future.add_done_callback(lambda _: called.append("late"))
    future.run_callbacks()
    assert called == ["first", "second", "late"]
