"""Children and tasks that have events in P's ring: whole lives, bounded, and nothing of it shows in
what users see."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

import gmpd
from gmpd.protocol import Outcome
from gmpd.runtime.followed import FollowedG, FollowedSyncG, FollowedTask, name_of
from gmpd.runtime.g import G
from gmpd.runtime.go import this_loop
from gmpd.runtime.p import P
from gmpd.runtime.ring import (
    CANCELLED,
    CHUNK,
    ERROR,
    FOLLOW_MAX,
    IDLE,
    NAME_SHIFT,
    OK,
    Event,
    Kind,
    Ring,
    rows_of,
)
from gmpd.runtime.stacks import count_gs, stacks
from gmpd.runtime.syncg import SyncG
from gmpd.runtime.task import Task

Main = Callable[[P], Coroutine[Any, Any, Any]]


def run(main: Main) -> Ring:
    """Run it on a P with a ring, from a moment on at which the P has polled."""
    ring = Ring()

    async def begin() -> None:
        p = this_loop("begin").p
        while not p.to_follow:
            await asyncio.sleep(0.0001)
        await main(p)

    loop = gmpd.new_event_loop()
    loop.p.ring = ring
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(begin())
    return ring


def lives(ring: Ring) -> dict[int, list[Event]]:
    """The events of each G, in order."""
    found: dict[int, list[Event]] = {}
    for event in rows_of(ring.dump(0, 1 << 24).events):
        if event[3] < 0:
            found.setdefault(~event[3], []).append(event)
    return found


def kinds(life: list[Event]) -> list[str]:
    return [Kind(what & 0xFF).name for what, *_ in life]


async def naps() -> int:
    await gmpd.sleep(0.0001)
    await asyncio.sleep(0.0001)
    return 7


def plain() -> int:
    return 8


async def fails() -> None:
    raise LookupError


def test_a_followed_g_has_events_from_its_making_to_its_end() -> None:
    seen: dict[str, int] = {}

    async def main(_p: P) -> None:
        child, call, task = gmpd.go(naps), gmpd.go(plain), asyncio.create_task(naps())
        assert [type(g) for g in (child, call, task)] == [FollowedG, FollowedSyncG, FollowedTask]
        assert repr(task).startswith("<Task pending")
        assert type(task).__module__ == Task.__module__
        seen.update(child=child.id, call=call.id, task=task.id)  # type: ignore[attr-defined]
        assert [await child, await call, await task] == [7, 8, 7]

    ring = run(main)
    found = lives(ring)
    coroutine = ["CHILD", "STEP", "WAKE", "STEP", "WAKE", "STEP"]
    assert [kinds(found[seen[each]]) for each in ("child", "task")] == [coroutine, coroutine]
    assert kinds(found[seen["call"]]) == ["CHILD", "STEP"]
    names = ring.dump(0, 0).children
    last = found[seen["child"]][-1][0] >> 8
    assert (last & (1 << NAME_SHIFT) - 1, names[last >> NAME_SHIFT]) == (0, "naps")
    makers = {found[each][0][2] for each in seen.values()}
    assert len(makers) == 1
    (maker,) = makers
    assert maker < 0, "the task of main, by its id"


def test_followed_ones_are_counted_and_shown_as_others() -> None:
    async def main(p: P) -> None:
        before = count_gs(p)
        child, task = gmpd.go(gmpd.sleep, 60), asyncio.create_task(asyncio.sleep(60))
        await gmpd.gosched()
        assert [type(g) for g in (child, task)] == [FollowedG, FollowedTask]
        assert count_gs(p) == before + 2
        shown, gs = stacks(p).text, [child, task]
        assert all(f"goroutine {g.id} [" in shown for g in gs)  # type: ignore[attr-defined]
        for g in (child, task):
            g.cancel()

    run(main)


def test_outcomes_of_children_are_told_in_the_numbers_of_the_protocol() -> None:
    assert (OK, ERROR, CANCELLED) == (Outcome.OK, Outcome.ERROR, Outcome.CANCELLED)

    async def main(_p: P) -> None:
        failed, task, cancelled = gmpd.go(fails), asyncio.create_task(fails()), gmpd.go(naps)
        await gmpd.gosched()
        cancelled.cancel()
        for g in (failed, task, cancelled):
            with pytest.raises((LookupError, asyncio.CancelledError)):
                await g

    told = [
        event[0] >> 8
        for life in lives(run(main)).values()
        for event in life
        if event[0] & 0xFF == Kind.FAILED
    ]
    assert sorted(told) == [ERROR, ERROR, CANCELLED]


def test_only_so_many_are_followed_between_two_polls() -> None:
    async def main(p: P) -> None:
        p.to_follow = FOLLOW_MAX
        children = [gmpd.go(naps) for _ in range(FOLLOW_MAX + 50)]
        assert sum(type(g) is FollowedG for g in children) == FOLLOW_MAX
        assert p.to_follow == 0
        for child in children:
            child.cancel()

    run(main)


def test_one_whose_events_come_too_fast_has_none_from_then_on() -> None:
    seen: dict[str, int] = {}

    async def main(p: P) -> None:
        ring = p.ring
        assert ring is not None
        child, task = gmpd.go(naps), asyncio.create_task(naps())
        await gmpd.gosched()
        for chunks in (1, 20):  # those of two seconds, at once
            for _ in range(chunks * CHUNK):
                ring.add((IDLE, 0, 0, 0))
            p.to_follow = ring.settle(time.monotonic_ns())
        assert p.to_follow == 0
        assert not ring.takes_steps
        await child
        await task
        assert (type(child), type(task)) == (G, Task)
        seen.update(child=child.id, task=task.id)  # type: ignore[attr-defined]

    found = lives(run(main))
    assert [kinds(found[each])[-1] for each in seen.values()] == ["LEFT", "LEFT"]


def test_a_callback_after_a_followed_step_has_no_current_task() -> None:
    async def main(p: P) -> None:
        current: list[Any] = []
        task = asyncio.create_task(naps())
        assert type(task) is FollowedTask
        p.loop.call_soon(lambda: current.append(asyncio.current_task()))
        await task
        assert current == [None]

    run(main)


def test_a_name_is_found_without_the_users_code() -> None:
    class Evil:
        def __getattr__(self, name: str) -> Any:
            raise SystemExit(name)

        def __call__(self) -> None:
            pass

    def named(fn: Any) -> str:
        g = G.__new__(G)
        g._fn = fn
        return name_of(g)

    assert named(Evil()) == "Evil"
    assert named(partial(partial(plain), 1)) == "plain"
    assert named([].append) == "list.append"
    assert named(Ring().settle) == "Ring.settle"


def test_a_child_that_gives_a_coroutine_is_followed_until_then() -> None:
    async def main(_p: P) -> None:
        child = gmpd.go(lambda: naps())
        assert type(child) is FollowedSyncG
        assert await child == 7
        assert type(child) is SyncG

    (life,) = [life for life in lives(run(main)).values() if "LEFT" in kinds(life)]
    assert kinds(life) == ["CHILD", "LEFT"]
