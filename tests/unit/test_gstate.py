"""The slots of a G in each phase hold the table's content, and the state follows from them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import gmpd
from gmpd.runtime.coro import SEND, send_other
from gmpd.runtime.g import Away, G, dropped, started
from gmpd.runtime.gstate import SLOTS, Phase, on_ms, phase_of, status_of
from gmpd.runtime.syncg import SyncG
from gmpd.runtime.task import Task
from gmpd.sched.g import GStatus

Check = Callable[[Any], bool]


def none(value: Any) -> bool:
    return value is None


def one_of(*kinds: Any) -> Check:
    return lambda value: any(value is each for each in kinds)


def kind(*kinds: type) -> Check:
    return lambda value: isinstance(value, kinds)


#: ``SLOTS`` as checks; of an ended G only the slots that are still read.
HOLDS: dict[Phase, dict[str, Check]] = {
    Phase.FRESH: {
        "_send": none,
        "_coro_or_args": kind(tuple),
        "_value": kind(dict, type(None)),
        "_fut_waiter": none,
        "_callbacks": kind(list, type(None)),
        "_must_cancel": lambda value: value is False or isinstance(value, asyncio.CancelledError),
    },
    Phase.AWAY: {
        "_send": one_of(started),
        "_coro_or_args": kind(tuple),
        "_value": kind(dict, type(None)),
        "_fut_waiter": kind(Away),
        "_callbacks": kind(list, type(None)),
        "_must_cancel": one_of(False),
    },
    Phase.COROUTINE: {
        "_send": one_of(SEND, send_other),
        "_coro_or_args": asyncio.iscoroutine,
        "_value": none,
        "_fut_waiter": lambda value: value is None or hasattr(value, "cancel"),
        "_callbacks": kind(list, type(None)),
        "_must_cancel": lambda value: value is False or isinstance(value, BaseException),
    },
    Phase.CALL: {
        "_send": one_of(started),
        "_coro_or_args": one_of(()),
        "_value": kind(tuple, BaseException, type(None)),
        "_fut_waiter": kind(asyncio.Task, type(None)),
        "_callbacks": kind(list, type(None)),
        "_must_cancel": one_of(False),
    },
    Phase.ENDED: {},
}


def look(g: Any, phase: Phase, status: GStatus) -> None:
    """It is in that phase and state, and its slots hold what the table says."""
    assert phase_of(g) is phase, g
    assert status_of(g, on_ms(g._p).get(g)) is status, g
    if isinstance(g, G):
        for slot, holds in HOLDS[phase].items():
            assert holds(getattr(g, slot)), (g, phase, slot, getattr(g, slot))


def test_the_table_is_complete() -> None:
    assert set(SLOTS) == set(HOLDS) == set(Phase)
    assert {frozenset(slots) for slots in SLOTS.values()} == {frozenset(HOLDS[Phase.FRESH])}
    assert set(HOLDS[Phase.FRESH]) <= set(G.__slots__)


async def wait_for(ch: gmpd.Chan[int]) -> int:
    return await ch.recv()


def test_a_coroutine_from_its_making_to_its_end() -> None:
    async def main() -> None:
        ch: gmpd.Chan[int] = gmpd.Chan()
        g = gmpd.go(wait_for, ch)
        look(g, Phase.FRESH, GStatus.RUNNABLE)
        look(asyncio.current_task(), Phase.COROUTINE, GStatus.RUNNING)
        await gmpd.gosched()
        look(g, Phase.COROUTINE, GStatus.WAITING)
        g.add_done_callback(lambda _: None)
        await ch.send(7)
        look(g, Phase.COROUTINE, GStatus.RUNNABLE)
        assert await g == 7
        look(g, Phase.ENDED, GStatus.DEAD)

    gmpd.run(main())


def test_one_that_runs_elsewhere_and_one_that_comes_back() -> None:
    async def main() -> None:
        g: Any = gmpd.go(wait_for, gmpd.Chan())
        other = gmpd.go(asyncio.sleep, 0)  # takes its place as the next one, which stays
        assert g._p.runq.grab_if(1, lambda each: each is g) == [g]
        g.leave(lambda _: None)
        look(g, Phase.AWAY, GStatus.WAITING)
        assert g.come_back()
        look(g, Phase.FRESH, GStatus.RUNNABLE)
        g.leave(lambda _: None)
        g.settle(7)
        look(g, Phase.ENDED, GStatus.DEAD)
        await other

    gmpd.run(main())


def test_a_plain_function_on_its_m_with_p_and_without() -> None:
    seen: list[tuple[Phase, GStatus]] = []

    def show(me: list[Any]) -> None:
        (g,) = me
        seen.append((phase_of(g), status_of(g, on_ms(g._p).get(g))))

    def call(me: list[Any], blocks: threading.Event) -> int:
        show(me)
        blocks.wait(60)
        return 7

    async def main() -> None:
        blocks = threading.Event()
        me: list[Any] = []
        g: Any = gmpd.go(call, me, blocks)
        me.append(g)
        assert isinstance(g, SyncG)
        look(g, Phase.FRESH, GStatus.RUNNABLE)
        while g._send is None:
            await gmpd.sleep(0.001)
        # This runs: so P has left the function, which blocks.
        look(g, Phase.CALL, GStatus.SYSCALL)
        blocks.set()
        assert await g == 7
        look(g, Phase.ENDED, GStatus.DEAD)

    gmpd.run(main())
    assert seen == [(Phase.CALL, GStatus.RUNNING)]


def test_a_plain_function_that_returns_a_coroutine_waits_in_it() -> None:
    async def main() -> None:
        ch: gmpd.Chan[int] = gmpd.Chan()
        g: Any = gmpd.go(lambda: wait_for(ch))
        while g._fut_waiter is None:
            await gmpd.sleep(0.001)
        look(g, Phase.CALL, GStatus.WAITING)
        look(g._fut_waiter, Phase.COROUTINE, status_of(g._fut_waiter))
        await ch.send(7)
        assert await g == 7

    gmpd.run(main())


@pytest.mark.parametrize("begun", [False, True])
def test_cancelled_failed_and_dropped_ones_are_dead(begun: bool) -> None:
    async def fail() -> None:
        raise ValueError

    left: list[Any] = []

    async def main() -> None:
        ch: gmpd.Chan[int] = gmpd.Chan()
        g, failing, outlives = gmpd.go(wait_for, ch), gmpd.go(fail), gmpd.go(wait_for, ch)
        left.append(outlives)
        if begun:
            await gmpd.gosched()
        g.cancel()
        if not begun:
            look(g, Phase.FRESH, GStatus.RUNNABLE)
        for each, error in ((g, asyncio.CancelledError), (failing, ValueError)):
            with pytest.raises(error):
                await each
            look(each, Phase.ENDED, GStatus.DEAD)

    gmpd.run(main())
    (outlives,) = left
    assert outlives._send is dropped
    look(outlives, Phase.ENDED, GStatus.DEAD)


def test_a_task_has_the_phases_of_a_coroutine() -> None:
    async def main() -> None:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def wait() -> int:
            return await future

        task = asyncio.ensure_future(wait())
        assert isinstance(task, Task)
        look(task, Phase.COROUTINE, GStatus.RUNNABLE)
        while task._fut_waiter is None:
            await gmpd.gosched()
        look(task, Phase.COROUTINE, GStatus.WAITING)
        future.set_result(7)
        assert await task == 7
        look(task, Phase.ENDED, GStatus.DEAD)

    gmpd.run(main())
