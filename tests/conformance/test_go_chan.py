"""Programs after Go's own ``runtime/chan_test.go``, under their Go names, by ``gmpd.go`` on one P.

Contracts of single operations are in ``test_chan`` and ``test_select``, on asyncio's loop too.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

import pytest

import gmpd
from gmpd.errors import ChanClosed, Panic
from gmpd.runtime.run import run


@pytest.mark.parametrize("cap", [0, 1, 7, 200])
@pytest.mark.parametrize("plain", [False, True])
def test_TestChan(cap: int, plain: bool) -> None:
    """Several senders and receivers: each value comes once, then all see the end."""

    async def main() -> Counter[int]:
        ch, got = gmpd.Chan[int](cap), gmpd.Chan[int](1000)
        senders, each = 4, 50

        def send_sync(first: int) -> None:
            for value in range(first, first + each):
                ch.sync.send(value)

        async def send(first: int) -> None:
            for value in range(first, first + each):
                await ch.send(value)

        def receive_sync() -> None:
            for value in ch.sync:
                got.sync.send(value)

        async def receive() -> None:
            async for value in ch:
                await got.send(value)

        sending = [gmpd.go(send_sync if plain else send, n * each) for n in range(senders)]
        receiving = [gmpd.go(receive_sync if plain else receive) for _ in range(3)]
        for g in sending:
            await g
        ch.close()
        for g in receiving:
            await g
        got.close()
        return Counter([value async for value in got])

    assert run(main()) == Counter(range(200))


def test_TestNonblockRecvRace() -> None:
    """A value that is there is never missed by a receive with default."""

    async def main() -> int:
        missed = 0
        for _ in range(300):
            ch = gmpd.Chan[int](1)
            await ch.send(1)

            async def receive(ch: gmpd.Chan[int] = ch) -> int:
                return (await gmpd.select(gmpd.recv(ch), default=True))[0]

            g = gmpd.go(receive)
            ch.close()
            await ch.recv()
            missed += await g == -1
        return missed

    assert run(main()) == 0


@pytest.mark.parametrize("closes", [False, True])
def test_TestNonblockSelectRace(closes: bool) -> None:
    """Of two channels one has something, at every moment: a select with default finds it."""

    async def main() -> int:
        missed = 0
        for _ in range(300):
            one, two = gmpd.Chan[int](1), gmpd.Chan[int](1)
            await one.send(1)

            async def look(one: Any = one, two: Any = two) -> int:
                cases = gmpd.recv(one), gmpd.recv(two)
                return (await gmpd.select(*cases, default=True))[0]

            g = gmpd.go(look)
            if closes:
                two.close()
            else:
                await two.send(1)
            await gmpd.select(gmpd.recv(one), default=True)
            missed += await g == -1
        return missed

    assert run(main()) == 0


@pytest.mark.parametrize("cap", [0, 10])
def test_TestSelfSelect(cap: int) -> None:
    """Both send and receive on one channel in one select: no G gets its own value."""

    async def main() -> None:
        ch = gmpd.Chan[int](cap)

        async def both(me: int) -> None:
            for _ in range(200):
                cases: list[Any] = [gmpd.recv(ch), gmpd.send(ch, me)]
                random.shuffle(cases)
                index, value, _ = await gmpd.select(*cases)
                if isinstance(cases[index], type(gmpd.recv(ch))) and not cap:
                    assert value != me
            spent.append(me)

        spent: list[int] = []
        gs = [gmpd.go(both, me) for me in (0, 1)]
        while not spent:
            await gmpd.gosched()
        other = 1 - spent[0]
        while len(spent) < 2:  # its partner may lack one
            await gmpd.select(gmpd.recv(ch), gmpd.send(ch, 1 - other), default=True)
            await gmpd.gosched()
        for g in gs:
            await g

    run(main())


def test_TestSelectStress() -> None:
    """Four channels; some Gs use them one by one, others by select over all: nothing is lost."""

    async def main() -> list[int]:
        n = 100
        chans = [gmpd.Chan[int](cap) for cap in (0, 0, 2, 3)]

        async def sends(ch: gmpd.Chan[int]) -> None:
            for value in range(n):
                await ch.send(value)

        async def receives(ch: gmpd.Chan[int]) -> int:
            return sum([await ch.recv() for _ in range(n)])

        async def selects(send: bool) -> int:
            left, total = [n] * 4, 0
            while any(left):
                cases: list[Any] = []
                for at, ch in enumerate(chans):
                    on = ch if left[at] else None
                    cases.append(gmpd.send(on, n - left[at]) if send else gmpd.recv(on))
                index, value, _ = await gmpd.select(*cases)
                left[index] -= 1
                total += value or 0
            return total

        sending = [*[gmpd.go(sends, ch) for ch in chans], gmpd.go(selects, True)]
        receiving = [*[gmpd.go(receives, ch) for ch in chans], gmpd.go(selects, False)]
        for g in sending:
            await g
        return [await g for g in receiving]

    assert sum(run(main())) == 2 * 4 * sum(range(100))


def test_TestSelectFairness() -> None:
    """Of two that are always ready each is taken about as often."""

    async def main() -> Counter[int]:
        one, two = gmpd.Chan[int](), gmpd.Chan[int]()
        over = gmpd.Chan[int]()

        async def feeds(ch: gmpd.Chan[int]) -> None:
            while (await gmpd.select(gmpd.send(ch, 0), gmpd.recv(over)))[0] == 0:
                pass

        gs = [gmpd.go(feeds, one), gmpd.go(feeds, two)]
        seen: Counter[int] = Counter()
        for _ in range(1000):
            await gmpd.gosched()  # both are waiting
            seen[(await gmpd.select(gmpd.recv(one), gmpd.recv(two)))[0]] += 1
        over.close()
        for g in gs:
            await g
        return seen

    assert min(run(main()).values()) > 340


def test_TestPseudoRandomSend() -> None:
    """Two sends on one channel: the receiver sees both values, neither hardly ever."""

    async def main() -> Counter[int]:
        ch = gmpd.Chan[int]()

        async def sends() -> None:
            for _ in range(300):
                await gmpd.select(gmpd.send(ch, 0), gmpd.send(ch, 1))
            ch.close()

        gmpd.go(sends)
        return Counter([value async for value in ch])

    seen = run(main())
    assert seen.total() == 300
    assert min(seen[0], seen[1]) > 300 // 4


def test_TestMultiConsumer() -> None:
    async def main() -> int:
        todo, done = gmpd.Chan[int](12), gmpd.Chan[int](12)
        group = gmpd.WaitGroup()

        async def worker() -> None:
            async for value in todo:
                if not value % 3:
                    await gmpd.gosched()
                await done.send(value)

        for _ in range(23):
            group.go(worker)

        async def feeds() -> None:
            for value in range(500):
                await todo.send(value)
            todo.close()
            await group.wait()
            done.close()

        gmpd.go(feeds)
        return sum([value async for value in done])

    assert run(main()) == sum(range(500))


def test_TestSelectDuplicateChannel() -> None:
    """A select with one channel twice is woken once, and the waiters behind it stay."""

    async def main() -> list[str]:
        one, two, order = gmpd.Chan[int](), gmpd.Chan[int](), []

        async def selects() -> None:
            await gmpd.select(gmpd.recv(one), gmpd.recv(one), gmpd.recv(two))
            order.append("select")

        async def receives() -> None:
            await one.recv()
            order.append("recv")

        gs = [gmpd.go(selects)]
        await gmpd.gosched()
        gs.append(gmpd.go(receives))
        await gmpd.gosched()
        await two.send(0)  # takes it out of ``one`` twice
        await gs[0]
        await one.send(0)
        await gs[1]
        return order

    assert run(main()) == ["select", "recv"]


def test_TestChanSendInterface() -> None:
    async def main() -> None:
        ch = gmpd.Chan[object](1)
        await ch.send("a value")
        assert (await gmpd.select(gmpd.send(ch, "another"), default=True))[0] == -1
        assert (await gmpd.select(gmpd.send(ch, "b"), gmpd.send(ch, "c"), default=True))[0] == -1

    run(main())


@pytest.mark.parametrize("plain", [False, True])
def test_TestSelectStackAdjust_a_closed_channel_ends_each_kind_of_wait(plain: bool) -> None:
    async def main() -> list[str]:
        ch, said = gmpd.Chan[int](), []

        def sends() -> None:
            try:
                ch.sync.send(1)
            except Panic as panic:
                said.append(str(panic))

        async def asends() -> None:
            try:
                await gmpd.select(gmpd.send(ch, 1))
            except Panic as panic:
                said.append(str(panic))

        g = gmpd.go(sends if plain else asends)
        await gmpd.sleep(0.02)
        ch.close()
        await g
        with pytest.raises(ChanClosed):
            await ch.recv()
        return said

    assert run(main()) == ["send on closed channel"]


def test_TestTimerFairness() -> None:
    """A G that does nothing but use a channel that is always ready does not hold a timer up."""

    async def main() -> float:
        ch = gmpd.Chan[int](1)
        start = time.monotonic()
        timer = gmpd.after(0.02)

        async def busy() -> None:
            while True:
                await ch.send(1)
                await ch.recv()
                await gmpd.gosched()

        gmpd.go(busy)
        while (await gmpd.select(gmpd.recv(timer), gmpd.recv(None), default=True))[0] == -1:
            await gmpd.gosched()
        return time.monotonic() - start

    assert 0.02 <= run(main()) < 10


def test_TestNumGoroutine() -> None:
    async def main() -> list[int]:
        gate = gmpd.Chan[int]()
        counts = [gmpd.num_g()]
        gs = [gmpd.go(gate.recv_ok) for _ in range(100)]
        counts.append(gmpd.num_g())
        gate.close()
        await asyncio.gather(*gs)
        return [*counts, gmpd.num_g()]

    before, during, after = run(main())
    assert (during - before, after) == (100, before)


def test_plain_gs_that_pass_values_wait_for_no_look_at_deadlocks() -> None:
    """Each of their operations wakes P, also while P looks whether the program is dead."""

    async def main() -> float:
        ch, got = gmpd.Chan[int](1), gmpd.Chan[int](1000)

        def send(first: int) -> None:
            for value in range(first, first + 50):
                ch.sync.send(value)

        def receive() -> None:
            for value in ch.sync:
                got.sync.send(value)

        began = time.monotonic()
        sending = [gmpd.go(send, n * 50) for n in range(4)]
        receiving = [gmpd.go(receive) for _ in range(3)]
        for g in sending:
            await g
        ch.close()
        for g in receiving:
            await g
        return time.monotonic() - began

    # 0.1 s alone; 1.4 s when each look delayed them by its 10 ms.
    assert min(run(main()) for _ in range(5)) < 0.7
