"""Records and instructions in a bug report: worth reading, bounded, and without users' values."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args

import pytest

from gmpd.protocol import Outcome, Output, Progress
from gmpd.sched import (
    counters,
    delays,
    functions,
    globq,
    histogram,
    isolated,
    per_function,
    records,
    suspects,
)
from gmpd.sched.instructions import Instruction, LeaseJobs
from gmpd.sched.isolated import IsolatedP, Isolation
from gmpd.sched.records import NO_BUFFERS, Failure, Outcomes, Overrun
from gmpd.sched.schedt import Sched
from tests.desk import Desk, only

SECRET = b"a user's value"
LONG = "n" * 5000
MODULES = (
    records, isolated, globq, delays, functions, suspects, counters, histogram, per_function,
)  # fmt: skip
#: Twice a record, beside numbers: an instruction names two at most.
MOST = 900


@pytest.fixture
def desk() -> Desk:
    """Every kind of record, each with much in it."""
    desk = Desk(credit_ns=10**9)
    p, client = desk.ready(0), desk.client(LONG)
    for _ in range(3):
        desk.submit(client, 300, LONG, retries=1)
        desk.take()
        desk.start(p, list(p.fresh)[:2])
        desk.finish(p, list(p.started)[:1], Outcome.ERROR, payload=SECRET)
    desk.submit(client, 3, "m:late", delay=1)
    desk.submit(client, 1, "m:own", isolate=True)
    desk.take()
    desk.cancel(client, list(client.jobs))
    return desk


def some_of_each(desk: Desk) -> Iterator[Any]:
    sched = desk.sched
    p, client = sched.ps[0], next(iter(sched.sessions.values()))
    job = next(iter(client.jobs.values()))
    outcomes = Outcomes()
    outcomes.seqs, outcomes.payloads = list(range(5000)), [SECRET] * 5000
    outcomes.specials = {1: (Outcome.ERROR, {"text": SECRET})}
    failure = Failure("id", LONG, LONG, Outcome.ERROR, 1, True, LONG, SECRET)
    yield from (p, client, job, job.fn, Overrun(job, 1), outcomes, failure, desk.policy)
    yield from (sched, sched.queue, sched.delays, sched.functions, sched.suspects)
    yield from (sched.isolated, IsolatedP(7, 0), sched.counters, sched.counters.functions)
    total = sched.counters.functions.total()
    yield from (total, total.wait)


def test_each_record_says_what_it_is(desk: Desk) -> None:
    seen = list(some_of_each(desk))
    kinds = {
        each
        for module in MODULES
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__ and not issubclass(each, Enum)
        if not getattr(each, "_is_protocol", False)
    }
    assert kinds | {Sched} == {type(each) for each in seen}
    for each in seen:
        text = repr(each)
        assert " object at 0x" not in text
        assert "user's" not in text
        assert len(text) < MOST / 2, text
    text = repr(desk.sched.ps[0])
    assert text.startswith("<P0 epoch 1 ready, fresh [")
    assert "in all]" in text


def test_each_instruction_can_be_shown(desk: Desk) -> None:
    """Made from its own annotations, with as much in it as it may hold."""
    p, client = desk.sched.ps[0], next(iter(desk.sched.sessions.values()))
    fn = next(iter(client.jobs.values())).fn
    outcomes = Outcomes()
    outcomes.payloads = [SECRET] * 5000
    values: dict[str, Any] = {
        "PRecord": p, "PRecord | None": p, "Function": fn, "Session": client, "Outcomes": outcomes,
        "list[int]": list(range(5000)), "list[int] | None": list(range(5000)),
        "list[bytes]": [SECRET] * 5000, "int": 1, "bool": True,
        "str": "x" * 50,
        "list[Buffers]": [NO_BUFFERS] * 5000, "Options | None": None,
        "Output": Output(list(range(5000)), [SECRET] * 5000, [0] * 5000),
        "Progress": Progress(list(range(5000)), [1] * 5000, [None] * 5000, [repr(SECRET)] * 5000),
    }  # fmt: skip
    kinds = get_args(Instruction)
    for kind in kinds:
        made = kind(*(values[each.__forward_arg__] for each in kind.__annotations__.values()))
        text = repr(made)
        assert text.startswith(kind.__name__)
        assert "user's" not in text
        assert len(text) < MOST, text
    assert only(desk.log, LeaseJobs)
    assert isinstance(desk.sched.isolated, Isolation)
