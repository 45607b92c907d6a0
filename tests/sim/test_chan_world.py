"""Channels and select in a world of its own: a seeded program on a seeded schedule, step by step
against a reference model.

Senders, receivers, selects, closes and cancels on a few channels; the next G is drawn from all
that are ready, so every order occurs. The model is Go's rules with plain lists, plus the rule for
a cancel: a cancelled receive has received nothing. Each result of each operation must be the
model's; hence FIFO and the single winner. And the books must balance: no value lost, none twice.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

import gmpd.runtime.select as select_module
from gmpd.errors import ChanClosed, Panic
from gmpd.runtime.chan import Chan
from gmpd.runtime.select import recv, select, send
from gmpd.runtime.sudog import Sudog

SEEDS = 150
GS = 12
OPS_PER_G = 25

CANCELLED = "cancelled"
PANIC = "panic"


# ---- the reference model


@dataclass(eq=False)
class ModelChan:
    cap: int
    #: (value, serial): serial is None for a value that was never received.
    buf: list[tuple[int, int | None]] = field(default_factory=list)
    receivers: list[tuple[Wait, int]] = field(default_factory=list)
    senders: list[tuple[Wait, int]] = field(default_factory=list)
    closed: bool = False
    serial: int = 0
    given_back: int = 0

    def can_receive(self) -> bool:
        return bool(self.buf or self.senders or self.closed)

    def can_send(self) -> bool:
        return bool(self.closed or self.receivers or len(self.buf) < self.cap)

    def send(self, value: int) -> Any:
        if self.closed:
            return PANIC
        if self.receivers:
            self.serial += 1
            self.hand(value, self.serial)
        else:
            assert len(self.buf) < self.cap
            self.buf.append((value, None))
        return None, True

    def receive(self) -> Any:
        if self.buf:
            value, _ = self.buf.pop(0)
            if self.senders and len(self.buf) < self.cap:
                self.buf.append((self.take_sender(), None))
            return value, True
        return (self.take_sender(), True) if self.senders else (None, False)

    def hand(self, value: int, serial: int) -> None:
        wait, index = self.receivers[0]
        wait.serve(index, (value, True), serial)

    def take_sender(self) -> int:
        wait, index = self.senders[0]
        case = wait.cases[index]
        assert case is not None
        wait.serve(index, (None, True))
        return case.value

    def give_back(self, value: int, serial: int) -> None:
        self.given_back += 1
        if self.receivers:
            self.hand(value, serial)
            return
        at = 0
        while at < len(self.buf) and (self.buf[at][1] or serial) < serial:
            at += 1
        self.buf.insert(at, (value, serial))

    def close(self) -> Any:
        if self.closed:
            return PANIC
        self.closed = True
        while self.receivers:
            wait, index = self.receivers[0]
            wait.serve(index, (None, False))
        while self.senders:
            wait, index = self.senders[0]
            wait.serve(index, PANIC)
        return None


@dataclass(eq=False)
class ModelCase:
    chan: ModelChan
    sends: bool
    value: int = -1

    def is_ready(self) -> bool:
        return self.chan.can_send() if self.sends else self.chan.can_receive()

    def queue(self) -> list[tuple[Wait, int]]:
        return self.chan.senders if self.sends else self.chan.receivers

    def do(self) -> Any:
        return self.chan.send(self.value) if self.sends else self.chan.receive()


@dataclass(eq=False)
class Wait:
    """One operation that waits: a plain one is a select with one case."""

    cases: list[ModelCase | None]
    index: int = -1
    outcome: Any = None
    serial: int = 0

    def begin(self) -> None:
        for index, case in enumerate(self.cases):
            if case is not None:
                case.queue().append((self, index))

    def leave(self) -> None:
        for case in self.cases:
            if case is not None:
                queue = case.queue()
                queue[:] = [entry for entry in queue if entry[0] is not self]

    def serve(self, index: int, outcome: Any, serial: int = 0) -> None:
        assert self.outcome is None, "served twice"
        self.leave()
        self.index, self.outcome, self.serial = index, outcome, serial

    def cancel(self) -> None:
        self.leave()
        outcome, self.outcome = self.outcome, CANCELLED
        case = self.cases[self.index] if self.index >= 0 else None
        if case is not None and not case.sends and outcome != CANCELLED and outcome[1]:
            case.chan.give_back(outcome[0], self.serial)


# ---- the world: Gs and a schedule


class WorldG:
    """A G as the runtime's contract wants it (see ``gmpd.runtime.sudog``)."""

    def __init__(self, world: World, number: int, coro: Coroutine[Any, Any, None]):
        self.world = world
        self.number = number
        self.coro = coro
        self.waiter: Sudog | None = None
        #: The model of the operation that it is in.
        self.wait: Wait | None = None
        self.done = False
        world.runnable.append(self)

    def ready(self, _sg: Sudog, /) -> None:
        assert self not in self.world.runnable, "made ready twice"
        self.world.runnable.append(self)

    def step(self) -> None:
        self.waiter = None
        try:
            sg = self.coro.send(None)
        except StopIteration:
            self.done = True
        else:
            if sg is None:
                self.world.runnable.append(self)
            else:
                assert isinstance(sg, Sudog)
                sg.g = self
                self.waiter = sg

    def cancel(self) -> None:
        """Cancel the operation that it waits in, or that was served but has not returned."""
        assert self.wait is not None
        assert self.waiter is not None
        self.wait.cancel()
        self.waiter.cancel()


class Yield:
    def __await__(self) -> Any:
        yield None


@pytest.fixture(autouse=True)
def _cases_queue_up_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model knows no dice. Two cases on one channel are tested elsewhere."""
    monkeypatch.setattr(select_module, "_order", lambda cases: range(len(cases)))


class World:
    """Stands in for the event loop: home of the channels, dice, schedule."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.runnable: list[WorldG] = []
        self.steps = 0
        self.values = 0
        self.sent: Counter[int] = Counter()
        self.perhaps_sent: set[int] = set()
        self.received: Counter[int] = Counter()
        self.done = Counter[str]()
        asyncio._set_running_loop(self)  # type: ignore[arg-type]
        caps = [0, 0, 1, 3]
        self.chans: list[tuple[Chan[int], ModelChan]] = [(Chan(c), ModelChan(c)) for c in caps]
        self.gs = [WorldG(self, number, self.program(number)) for number in range(GS)]

    def run(self, *, to_the_end: bool) -> None:
        """Until nothing can run; to the end, cancels break every deadlock."""
        while self.runnable or (to_the_end and self.cancel_one()):
            at = self.rng.randrange(len(self.runnable))
            self.steps += 1
            self.runnable.pop(at).step()
            if self.rng.random() < 0.1:
                self.cancel_one()

    def cancel_one(self) -> bool:
        candidates = [g for g in self.gs if g.waiter is not None and g.wait is not None]
        candidates = [g for g in candidates if g.wait and g.wait.outcome != CANCELLED]
        if candidates:
            self.rng.choice(candidates).cancel()
        return bool(candidates)

    # ---- what Gs do -------------------------------------------------------------------------

    async def program(self, number: int) -> None:
        for _ in range(OPS_PER_G):
            dice = self.rng.random()
            if dice < 0.25:
                await Yield()
            elif dice < 0.26:
                self.close()
            elif dice < 0.5:
                await self.plain(self.gs[number], self.case(sends=True))
            elif dice < 0.75:
                await self.plain(self.gs[number], self.case(sends=False))
            else:
                await self.select(self.gs[number])

    def close(self) -> None:
        chan, model = self.rng.choice(self.chans)
        expected = model.close()
        try:
            chan.close()
        except Panic:
            assert expected == PANIC
        else:
            assert expected is None

    def case(self, *, sends: bool) -> tuple[Chan[int], ModelCase]:
        chan, model = self.rng.choice(self.chans)
        self.values += sends
        return chan, ModelCase(model, sends, self.values if sends else -1)

    async def plain(self, g: WorldG, pair: tuple[Chan[int], ModelCase]) -> None:
        chan, case = pair
        kind = self.rng.randrange(3)

        async def operation() -> tuple[int, Any, bool]:
            if case.sends:
                await chan.send(case.value)
                return 0, None, True
            if kind == 0:
                return (0, *(await chan.recv_ok()))
            try:
                return 0, await (chan.recv() if kind == 1 else chan.__anext__()), True
            except (ChanClosed, StopAsyncIteration):
                return 0, None, False

        await self.check(g, [case], operation(), default=False)

    async def select(self, g: WorldG) -> None:
        pairs: list[tuple[Chan[int], ModelCase] | None] = [
            self.case(sends=self.rng.random() < 0.5) if self.rng.random() < 0.9 else None
            for _ in range(self.rng.randrange(1, 5))
        ]
        cases = [
            recv(None) if p is None else send(p[0], p[1].value) if p[1].sends else recv(p[0])
            for p in pairs
        ]
        models = [p[1] if p is not None else None for p in pairs]
        default = self.rng.random() < 0.3 or not any(models)
        await self.check(g, models, select(*cases, default=default), default)

    async def check(
        self,
        g: WorldG,
        cases: list[ModelCase | None],
        operation: Coroutine[Any, Any, tuple[int, Any, bool]],
        default: bool,
    ) -> None:
        """Do the operation, and hold what comes of it to what the model says."""
        ready = [i for i, case in enumerate(cases) if case is not None and case.is_ready()]
        waits = not ready and not default
        wait = g.wait = Wait(cases)
        if waits:
            wait.begin()
        before = self.steps
        outcome: Any
        try:
            index, *rest = await operation
            outcome = tuple(rest)
        except Panic:
            index, outcome = -2, PANIC
        except asyncio.CancelledError:
            index, outcome = -2, CANCELLED
        g.wait = None
        if waits:
            assert self.steps > before
            assert outcome == wait.outcome, (outcome, wait.outcome)
            assert index in (-2, wait.index)
            index = wait.index
        else:
            assert self.steps == before, "it had to wait though it was ready"
            if not ready:
                assert (index, outcome) == (-1, (None, False))
                return
            if index == -2:  # a panic: which of the closed channels it was does not show
                assert any(c is not None and c.sends and c.chan.closed for c in cases)
                self.done[PANIC] += 1
                return
            assert index in ready
            case = cases[index]
            assert case is not None
            assert outcome == case.do()
        self.enter(cases, index, outcome)

    def enter(self, cases: list[ModelCase | None], index: int, outcome: Any) -> None:
        """Into the books."""
        self.done[
            "cancelled" if outcome == CANCELLED else "panic" if outcome == PANIC else "ok"
        ] += 1
        case = cases[index] if index >= 0 else None
        if outcome == CANCELLED:
            if case is not None and case.sends:
                self.perhaps_sent.add(case.value)
        elif case is not None and outcome != PANIC:
            if case.sends:
                self.sent[case.value] += 1
            elif outcome[1]:
                self.received[outcome[0]] += 1


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_random_program_does_what_the_model_says_and_loses_nothing(seed: int) -> None:
    try:
        world = World(seed)
        to_the_end = seed % 2 == 0
        world.run(to_the_end=to_the_end)
        for g in world.gs:
            if not g.done:
                assert not to_the_end
                assert g.waiter is not None
                assert g.waiter.reason in ("chan send", "chan receive", "select")
                g.coro.close()
                if g.wait is not None:
                    g.wait.cancel()
        left: Counter[int] = Counter()
        for chan, model in world.chans:
            assert list(chan._buf) == [value for value, _ in model.buf]
            assert not chan._recvq or not chan._recvq.live(), "a closed coroutine waits still"
            left.update(chan._buf)
    finally:
        asyncio._set_running_loop(None)
    came = world.received + left
    assert max(came.values(), default=0) <= 1, "a value came twice"
    assert not world.sent - came, "a value that was sent is lost"
    assert set(came - world.sent) <= world.perhaps_sent, "a value came that nobody sent"


def test_the_programs_are_worth_their_while() -> None:
    """Cancels, panics and successes all occur, and values do come back from cancelled receivers."""
    done: Counter[str] = Counter()
    returned = 0
    try:
        for seed in range(10):
            world = World(seed)
            world.run(to_the_end=True)
            done += world.done
            returned += sum(model.given_back for _, model in world.chans)
    finally:
        asyncio._set_running_loop(None)
    assert done["ok"] > 500
    assert done["cancelled"] > 50
    assert done["panic"] > 20
    assert returned > 20
