"""The timeline of a P: each job in exactly one window, and a bounded number of rows."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from gmpd.protocol import Outcome
from gmpd.runtime import ring as ring_module
from gmpd.runtime.ring import IDLE, STEP, Kind, Ring
from gmpd.runtime.timeline import SEVERAL, Move, Row, Timeline, What, name, read

MS = 1_000_000


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Adds jobs (token, began, us, function) to a ring as of a time."""
    clock = SimpleNamespace(monotonic_ns=lambda: 0)
    monkeypatch.setattr(ring_module, "time", clock)

    def add(ring: Ring, at: int, *jobs: tuple[int, int, int, int]) -> None:
        clock.monotonic_ns = lambda: at
        tokens, began, ran_us, functions = map(list, zip(*jobs, strict=True))
        ring.add_jobs(tokens, began, ran_us, functions)

    return add


def totals(*timelines: Timeline) -> dict[int, tuple[int, int]]:
    """Jobs and their time by function."""
    found: dict[int, tuple[int, int]] = {}
    for timeline in timelines:
        for row in timeline.rows:
            jobs, us = found.get(row.function, (0, 0))
            found[row.function] = jobs + row.jobs, us + row.busy_us
    return found


def test_few_jobs_have_a_row_each(add: Callable[..., None]) -> None:
    ring = Ring()
    add(ring, 50 * MS, (2, 20 * MS, 5000, 7), (1, 10 * MS, 3000, 8))
    ring.name(7, "m:f")
    told = name(read(ring, 0, 100 * MS, 100), ring)
    assert told.rows == [
        Row(What.RAN, 10 * MS, 13 * MS, 8, 1, 3000, 1),
        Row(What.RAN, 20 * MS, 25 * MS, 7, 1, 5000, 2),
    ]
    assert told.names == {7: "m:f", 8: "function 8"}
    assert told.jobs == 2


def test_many_jobs_are_merged_and_none_is_lost(add: Callable[..., None]) -> None:
    ring, at = Ring(), 0
    for batch in range(200):
        at = batch * MS
        one = batch % 2  # batches of one function, and of three
        add(ring, at, *[(batch * 20 + n, at + n * 50_000, 40, one or n % 3) for n in range(20)])
    add(ring, at + 1, (9999, 5 * MS, 150_000, 4))
    told = read(ring, -1, at + 1, 100)
    assert len(told.rows) <= 400
    assert told.jobs == 4001
    assert sum(jobs for jobs, _ in totals(told).values()) == 4001
    assert sum(us for _, us in totals(told).values()) == 4000 * 40 + 150_000
    assert totals(told)[1] > (2600, 104_000), "the busiest function of each span has a row"
    assert Row(What.RAN, 5 * MS, 155 * MS, 4, 1, 150_000, 9999) in told.rows, "long: its own row"
    spans = {(row.began, row.ended) for row in told.rows if row.jobs > 1}
    assert max(ended - began for began, ended in spans) < 10 * MS


def test_many_functions_in_one_span_become_one_row(add: Callable[..., None]) -> None:
    ring = Ring()
    add(ring, 1, *[(n, n, 1, n % 40) for n in range(400)])
    told = read(ring, 0, 100 * MS, 10)
    assert sum(row.jobs for row in told.rows) == 400
    assert [row.function for row in told.rows].count(SEVERAL) == 1


def test_each_job_is_in_one_of_the_windows_that_adjoin(add: Callable[..., None]) -> None:
    dice, ring, at = random.Random(4), Ring(), 0
    edges, told, total = [0], [], 0
    for _ in range(60):
        at += dice.randrange(1, 4) * MS
        n = dice.randrange(1, 30)
        add(ring, at, *[(total + i, at - dice.randrange(1000) * 1000, 30, 5) for i in range(n)])
        total += n
        if dice.random() < 0.3:
            told.append(read(ring, edges[-1], at, dice.choice([20, 1000])))
            edges.append(at)
    told.append(read(ring, edges[-1], at, 100))
    assert totals(*told)[5] == (total, 30 * total)
    assert sum(each.jobs for each in told) == total


def test_steps_have_the_function_of_their_job(add: Callable[..., None]) -> None:
    ring = Ring()
    for n in range(5):  # job 1 ended in the window, 2 after it, 3 runs, 4 is not known
        ring.add((STEP, n * MS, n * MS + 5000, min(n, 4)))
    add(ring, 10 * MS, (1, 0, 3000, ~7))
    add(ring, 99 * MS, (2, 0, 60_000, ~8))
    told = Timeline()
    for rows_max in (100, 3):
        told = read(ring, 0, 20 * MS, rows_max, {3: 9}.get)
        by_function = {
            row.function: row.jobs
            for row in told.rows
            if row.what == What.STEP and row.function > 0
        }
        assert by_function == {7: 1, 8: 1, 9: 1}
        assert sum(row.jobs for row in told.rows if row.function == SEVERAL) == 2
    assert [row.token for row in told.rows if row.what == What.ASYNC] == [], "its step says it"


def test_short_async_jobs_without_steps_are_merged_as_jobs(add: Callable[..., None]) -> None:
    ring = Ring()
    add(ring, MS, *[(n, n, 20, ~3) for n in range(50)])
    (row,) = read(ring, 0, 100 * MS, 10).rows
    assert (row.what, row.function, row.jobs, row.busy_us) == (What.ASYNC, 3, 50, 0)


def test_moves_sleeps_and_failures_are_told(add: Callable[..., None]) -> None:
    ring = Ring()
    add(ring, 30 * MS, (6, 2 * MS, 9000, 1))
    ring.add((Kind.FAILED | Outcome.ERROR << 8, 11 * MS, 0, 6))
    ring.add((Kind.FAILED | Outcome.ERROR << 8, 11 * MS, 0, 1234))
    ring.add((IDLE, 12 * MS, 19 * MS, 0))
    ring.add((IDLE, 19 * MS, 19 * MS + 10, 0))
    ring.add((Kind.HANDOFF | (5 | 1 << 24) << 8, 2 * MS, 4 * MS, 6))
    ring.add((Kind.BACK | 5 << 8, 8 * MS, 0, 6))
    told = read(ring, 0, 40 * MS, 100)
    assert told.moves == [Move(4 * MS, 6, "blocked", 2 * MS), Move(8 * MS, 6, "", 0)]
    assert told.idle == [(12 * MS, 19 * MS)]
    assert told.idle_ns == 7 * MS + 10
    assert told.failed == {6: Outcome.ERROR}
    later = read(ring, 40 * MS, 80 * MS, 100)
    assert (later.rows, later.moves, later.idle) == ([], [], [])


def lose_p(ring: Ring, began: int, at: int, token: int) -> None:
    """A job that is known to block has lost P."""
    ring.add((Kind.HANDOFF | (5 | 1 << 24) << 8, began, at, token))


def test_short_jobs_that_block_are_merged_beside_p(add: Callable[..., None]) -> None:
    ring = Ring()
    for n in range(1, 101):
        lose_p(ring, n * 50_000, n * 50_000 + 10_000, n)
    add(ring, 20 * MS, *[(n, n * 50_000, 9000, 3) for n in range(1, 101)])
    told = read(ring, 0, 100 * MS, 10)
    by_kind = {row.what: (row.jobs, row.busy_us, row.token) for row in told.rows}
    assert by_kind == {What.RAN: (100, 100 * 10, 0), What.BESIDE: (100, 100 * 8990, 0)}
    assert told.jobs == 100
    assert {(move.token, move.why) for move in told.moves} == {(0, "blocked")}, "only marks"


def test_a_short_job_that_lost_p_in_the_window_before_has_a_row(add: Callable[..., None]) -> None:
    ring = Ring()
    lose_p(ring, 97 * MS, 98 * MS, 1)
    add(ring, 104 * MS, (1, 97 * MS, 6000, 3), *[(n, 100 * MS, 5, 3) for n in range(2, 50)])
    assert [move.token for move in read(ring, 0, 100 * MS, 10).moves] == [1], "it is needed later"
    told = read(ring, 100 * MS, 200 * MS, 10)
    assert Row(What.RAN, 97 * MS, 103 * MS, 3, 1, 6000, 1) in told.rows
    assert told.moves == []


def test_jobs_with_a_row_are_told_with_their_moves_however_many(add: Callable[..., None]) -> None:
    ring = Ring()
    for n in range(1, 1001):
        lose_p(ring, n, n + 1, n)
    add(ring, 90 * MS, *[(n, n, 50_000 + n, 2) for n in range(1, 1001)])
    told = read(ring, 0, 100 * MS, 300)
    rows = {row.token for row in told.rows}
    assert (len(rows), told.left_out) == (600, 400)
    assert {move.token for move in told.moves} == rows | {0}
    assert len(told.moves) == 1000


def test_of_long_jobs_that_overlap_the_longest_are_kept(add: Callable[..., None]) -> None:
    ring = Ring()
    add(ring, 90 * MS, *[(n, 0, 50_000 + n, ~2) for n in range(100)])
    told = read(ring, 0, 100 * MS, 10)
    assert (len(told.rows), told.left_out) == (20, 80)
    assert {row.token for row in told.rows} == set(range(80, 100))


def test_children_are_no_jobs_of_a_timeline(add: Callable[..., None]) -> None:
    ring = Ring()
    ring.add((STEP, 10 * MS, 11 * MS, ~4))
    ring.add((Kind.HANDOFF, 10 * MS, 20 * MS, ~5))
    ring.add((Kind.FAILED | Outcome.ERROR << 8, 20 * MS, 0, ~5))
    add(ring, 30 * MS, (1, 25 * MS, 3000, 8))
    told = read(ring, 0, 100 * MS, 100)
    assert [row.token for row in told.rows] == [1]
    assert (told.moves, told.failed) == ([], {})
