"""The ring of the last events: bounded, and told as it was written."""

from __future__ import annotations

import asyncio

import pytest

import gmpd
from gmpd.runtime.coro import GOSCHED
from gmpd.runtime.g import G
from gmpd.runtime.ring import (
    CHUNK,
    CODES_MAX,
    END,
    EVENTS_MAX,
    EVENTS_PER_S,
    IDLE,
    LONG_TURN_NS,
    NAMES_MAX,
    ROW_BYTES,
    STEP,
    TURN_EVERY_NS,
    Kind,
    Ring,
    rows_of,
    that_takes_steps,
)
from gmpd.runtime.sleepers import Sleeper

EVERYTHING = 1 << 30
#: From one event to the next, so that there are not too many in a second.
SLOW_NS = 10**9 // EVENTS_PER_S


def test_events_are_told_in_their_order_whether_settled_or_not() -> None:
    ring = Ring()
    for n in range(2 * CHUNK + 5):
        ring.add((STEP | 3 << 8, n, n + 1, 7))
        ring.settle((n + 1) * SLOW_NS)
    events = rows_of(ring.dump(0, EVERYTHING).events)
    assert events == [(STEP | 3 << 8, n, n + 1, 7) for n in range(2 * CHUNK + 5)]


def test_it_keeps_the_newest_and_says_how_many_it_lost() -> None:
    ring = Ring()
    total = EVENTS_MAX + 3 * CHUNK
    for n in range(total):
        ring.add((IDLE, n, n, 0))
        ring.settle((n + 1) * SLOW_NS)
    dump = ring.dump(0, EVERYTHING)
    kept = rows_of(dump.events)
    assert len(kept) <= EVENTS_MAX
    assert kept[-1][1] == total - 1
    assert dump.lost == total - len(kept)


def test_of_short_turns_one_in_a_while_is_taken_and_every_long_one() -> None:
    ring = Ring()
    turns = [(n * 50_000, n * 50_000 + 40_000) for n in range(100)]
    taken = [began for began, ended in turns if ring.takes_turn(began, ended)]
    assert len(taken) == pytest.approx(100 * 50_000 / TURN_EVERY_NS, abs=1)
    ended = turns[-1][1]
    long = [(ended + n * LONG_TURN_NS, ended + (n + 1) * LONG_TURN_NS) for n in range(5)]
    assert all(ring.takes_turn(*turn) for turn in long)


def test_jobs_come_in_columns_and_are_told_in_rows() -> None:
    ring = Ring()
    ring.add_jobs([1, 2], [10_000, 20_000], [5, 6], [3, ~4])
    ring.add_jobs([9], [30_000], [7], [3])
    assert rows_of(ring.dump(0, EVERYTHING).jobs) == [
        (1, 10_000, 5, 3), (2, 20_000, 6, ~4), (9, 30_000, 7, 3),
    ]  # fmt: skip


def test_jobs_are_bounded_however_they_come() -> None:
    ring = Ring()
    for n in range(EVENTS_MAX // 1000 + 2):
        ring.add_jobs([n] * 1000, [n] * 1000, [0] * 1000, [0] * 1000)
    dump = ring.dump(0, EVERYTHING)
    kept = len(dump.jobs) // ROW_BYTES
    assert kept <= EVENTS_MAX
    assert dump.lost + kept == (EVENTS_MAX // 1000 + 2) * 1000


def test_old_ones_are_left_out_and_so_is_what_does_not_fit() -> None:
    ring = Ring()
    for n in range(4 * CHUNK):
        ring.add((IDLE, n, n, 0))
        ring.settle((n + 1) * SLOW_NS)
    ring.add_jobs([1], [5], [0], [0])
    ring.add_jobs([2], [10**9], [0], [0])
    recent = ring.dump(3 * CHUNK, EVERYTHING)
    assert [event[1] for event in rows_of(recent.events)] == list(range(3 * CHUNK, 4 * CHUNK))
    assert [token for token, *_ in rows_of(recent.jobs)] == [2]
    few = ring.dump(0, 2 * ROW_BYTES * 10)
    assert len(few.events) + len(few.jobs) <= 2 * ROW_BYTES * 10


def test_reasons_are_gos() -> None:
    codes = Ring().codes

    def told(value: object) -> str:
        return codes.reasons[codes[value.__class__]]

    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    assert [told(END), told(None), told(GOSCHED), told(future)] == [
        "ended", "yield", "yield", "IO wait",
    ]  # fmt: skip
    assert codes.reasons[codes[G]] == "G wait"
    assert codes.reasons[codes[Sleeper]] == "sleep"


def test_tables_are_bounded() -> None:
    ring = Ring()
    for n in range(NAMES_MAX + 10):
        ring.name(n, f"f{n}")
    assert len(ring.names) == NAMES_MAX
    assert NAMES_MAX + 9 in ring.names
    for n in range(CODES_MAX + 10):
        assert ring.codes[type(f"T{n}", (), {})] == ring.codes[asyncio.Future]
    assert len(ring.codes) <= CODES_MAX


def filled(ring: Ring, began_ns: int, each_ns: int) -> int:
    """The time at which a chunk has been filled, with so much time for each event."""
    now = began_ns
    for _ in range(CHUNK):
        now += each_ns
        ring.add((IDLE, now, now, 0))
        ring.settle(now)
    return now


def test_jobs_record_no_steps_while_there_are_too_many_events() -> None:
    """Until the time has passed in which as many events may come."""
    ring = Ring()
    now = filled(ring, 0, SLOW_NS)
    assert that_takes_steps(ring) is ring
    began, now = now, filled(ring, now, SLOW_NS // 10)
    assert that_takes_steps(ring) is None
    paid = began + CHUNK * SLOW_NS
    ring.settle(paid - 1)
    assert that_takes_steps(ring) is None
    ring.settle(paid)
    assert that_takes_steps(ring) is ring
    assert that_takes_steps(None) is None
    filled(ring, paid, SLOW_NS)
    assert that_takes_steps(ring) is ring


def test_the_events_of_one_lease_are_found_the_newest_of_them() -> None:
    ring = Ring()
    for n in range(3 * CHUNK):
        ring.add((STEP, n, n + 1, 7 if n % 100 == 0 else 8))
        ring.add((int(Kind.LEASED), n, 0, 7))  # its last number is the first of several
        ring.settle((n + 1) * SLOW_NS)
    assert [began for _, began, _, _ in ring.of(7, 1000)] == list(range(0, 3 * CHUNK, 100))
    assert [began for _, began, _, _ in ring.of(7, 2)] == [3000, 2900][::-1]
    assert ring.of(9, 10) == []


def test_a_plain_function_that_gives_a_coroutine_waits_beside_a_ring() -> None:
    async def parks() -> int:
        await gmpd.sleep(0.0001)
        await asyncio.sleep(0.0001)
        return 5

    async def main() -> int:
        return int(await gmpd.go(lambda: parks()))

    loop = gmpd.new_event_loop()
    loop.p.ring = Ring()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        assert runner.run(main()) == 5
