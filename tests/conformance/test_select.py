"""select: Go's rules (row 52 of the table), after the stories of Go's chan_test.go."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from typing import Any

import pytest

from gmpd.errors import Panic
from gmpd.runtime.chan import Chan
from gmpd.runtime.loop import Loop
from gmpd.runtime.select import Case, recv, select, select_sync, send
from tests.on_loops import DEADLINE_S, Run, parked, spawn


def test_default_is_chosen_only_when_nothing_is_ready(run: Run) -> None:
    async def main() -> None:
        a: Chan[int] = Chan(1)
        b: Chan[int] = Chan(1)
        assert await select(recv(a), recv(b), default=True) == (-1, None, False)
        await b.send(5)
        assert await select(recv(a), recv(b), default=True) == (1, 5, True)
        assert await select(send(a, 6), default=True) == (0, None, True)
        assert await a.recv() == 6
        assert await select(default=True) == (-1, None, False)

    run(main())


def test_usual_mistakes_are_answered_with_what_was_meant(run: Run) -> None:
    async def main() -> None:
        ch: Any = Chan(1)
        cases: list[Any] = [recv(ch), send(ch, 1)]
        for case, meant in zip(cases, ("await ch.recv()", "await ch.send(v)"), strict=True):
            with pytest.raises(TypeError, match=re.escape(meant)):
                await case
            with pytest.raises(TypeError, match=re.escape(meant)):
                _value, _ok = case
        with pytest.raises(TypeError, match=r"for v in ch\.sync"):
            list(ch)
        assert (len(ch), await select(recv(ch), default=True)) == (0, (-1, None, False))

    run(main())


def test_a_case_that_becomes_ready_ends_the_wait(run: Run) -> None:
    async def main() -> None:
        a: Chan[str] = Chan()
        b: Chan[str] = Chan()
        chooser = spawn(select(recv(a), send(b, "out"), recv(None)))
        await parked(chooser)
        assert await b.recv() == "out"
        assert await chooser == (1, None, True)
        chooser = spawn(select(recv(a), send(b, "out")))
        await parked(chooser)
        await a.send("in")
        assert await chooser == (0, "in", True)

    run(main())


def test_the_losing_cases_leave_their_queues(run: Run) -> None:
    async def main() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()
        chooser = spawn(select(recv(a), recv(b), send(b, 1)))
        await parked(chooser)
        await a.send(1)
        assert not b._recv_ready()
        assert not b._send_ready()
        assert await chooser == (0, 1, True)

    run(main())


def test_one_winner_when_all_cases_become_ready_at_once(run: Run) -> None:
    """Both senders find the select waiting; the first is served, the second is not."""

    async def main() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()
        chooser = spawn(select(recv(a), recv(b)))
        await parked(chooser)
        assert await select(send(a, 1), default=True) == (0, None, True)
        assert await select(send(b, 2), default=True) == (-1, None, False)
        assert await chooser == (0, 1, True)

    run(main())


def test_nil_channels_are_never_ready(run: Run) -> None:
    async def main() -> None:
        ready: Chan[int] = Chan(1)
        nil: Chan[int] | None = None
        assert await select(recv(nil), send(nil, 1), default=True) == (-1, None, False)
        await ready.send(1)
        assert await select(recv(nil), recv(ready), send(nil, 1)) == (1, 1, True)

    run(main())


@pytest.mark.parametrize(
    ("cases", "words"),
    [((), "[select (no cases)]"), ((recv(None), send(None, 1)), "[select]")],
    ids=["no-cases", "nil-only"],
)
def test_a_select_that_can_never_proceed_waits_for_ever(
    run: Run, cases: tuple[Case, ...], words: str
) -> None:
    async def main() -> None:
        chooser = spawn(select(*cases))
        await parked(chooser)
        assert words in repr(chooser)
        chooser.cancel()
        with pytest.raises(asyncio.CancelledError):
            await chooser

    run(main())


def test_close_wakes_a_waiting_select(run: Run) -> None:
    async def main() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()
        receiver, sender = spawn(select(recv(a))), spawn(select(send(b, 1)))
        await parked(receiver, sender)
        a.close()
        b.close()
        assert await receiver == (0, None, False)
        with pytest.raises(Panic, match="send on closed channel"):
            await sender

    run(main())


def test_a_closed_channel_is_always_ready(run: Run) -> None:
    async def main() -> None:
        ch: Chan[int] = Chan(1)
        await ch.send(1)
        ch.close()
        assert await select(recv(ch)) == (0, 1, True)
        assert await select(recv(ch)) == (0, None, False)
        with pytest.raises(Panic, match="send on closed channel"):
            await select(send(ch, 1))

    run(main())


def test_ready_cases_are_chosen_uniformly(run: Run) -> None:
    """Go's TestSelectFairness: 10,000 draws from two ready channels, within ten standard
    deviations.
    """
    trials = 10_000

    async def main() -> None:
        a: Chan[int] = Chan(trials + 1)
        b: Chan[int] = Chan(trials + 1)
        never: Chan[int] = Chan()
        for value in range(trials + 1):
            await a.send(value)
            await b.send(value)
        counts = Counter(
            [(await select(recv(never), recv(a), recv(None), recv(b)))[0] for _ in range(trials)]
        )
        assert set(counts) == {1, 3}
        deviation = (trials * 0.25) ** 0.5
        assert abs(counts[1] - trials / 2) < 10 * deviation, counts

    run(main())


def test_the_choice_comes_from_the_loops_own_dice() -> None:
    """The same seed gives the same choices, another seed others."""

    class Seeded(Loop):
        rng: random.Random

    def choices(seed: int) -> list[int]:
        def factory() -> Seeded:
            loop = Seeded()
            loop.rng = random.Random(seed)
            return loop

        async def main() -> list[int]:
            channels = [Chan[int](100) for _ in range(3)]
            for ch in channels:
                for value in range(100):
                    await ch.send(value)
            return [(await select(*map(recv, channels)))[0] for _ in range(100)]

        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)


def test_a_receive_that_is_ready_is_never_missed_for_the_default(run: Run) -> None:
    """Go's TestNonblockSelectRace: at any time one of the two channels has a value."""

    async def main() -> None:
        for _ in range(2_000):
            a: Chan[int] = Chan(1)
            b: Chan[int] = Chan(1)
            await a.send(1)
            missed: list[bool] = []

            async def look(a: Chan[int], b: Chan[int], missed: list[bool]) -> None:
                index, _, _ = await select(recv(a), recv(b), default=True)
                missed.append(index == -1)

            task = spawn(look(a, b, missed))
            await b.send(1)
            await select(recv(a), default=True)
            await task
            assert missed == [False]

    run(main())


def test_a_select_does_not_meet_itself(run: Run) -> None:
    """Go's TestSelfSelect: two Gs that both offer to send and to receive on one channel get only
    each other's.
    """

    async def main(cap: int) -> None:
        ch: Chan[int] = Chan(cap)
        met = []

        async def both(me: int) -> None:
            for step in range(200):
                index, value, _ = await select(send(ch, me), recv(ch))
                if index == 1:
                    met.append((me, value))
                    if cap == 0:
                        assert value != me, f"a select received what it sent, step {step}"

        pair = [spawn(both(me)) for me in range(2)]
        if cap == 0:
            _, pending = await asyncio.wait(pair, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                while not task.done():
                    await select(send(ch, 9), recv(ch), default=True)
                    await asyncio.sleep(0)
        await asyncio.gather(*pair)
        assert met

    for cap in (0, 10):
        run(main(cap))


def test_the_same_channel_twice_in_one_select(run: Run) -> None:
    """Go's TestSelectDuplicateChannel: the dead twin of the winner must not swallow a value."""

    async def main() -> None:
        ch: Chan[int] = Chan()
        quiet: Chan[int] = Chan()
        first = spawn(select(recv(ch), recv(ch), recv(quiet)))
        await parked(first)
        second = spawn(ch.recv())
        await parked(second)
        await ch.send(1)
        await ch.send(2)
        assert (await first)[1:] == (1, True)
        assert await second == 2

    run(main())


def test_many_selects_shuffle_values_through_many_channels(run: Run) -> None:
    """Go's TestSelectStress, small: whatever is sent, by select or plainly, is received once."""

    async def main() -> None:
        channels = [Chan[int]() for _ in range(4)]
        each = 150
        got: Counter[int] = Counter()

        async def plain_sender(ch: Chan[int]) -> None:
            for value in range(each):
                await ch.send(value)

        async def select_sender() -> None:
            left = {index: iter(range(each)) for index in range(4)}
            pending: dict[int, int] = {index: next(it) for index, it in left.items()}
            while pending:
                cases = [
                    send(ch if index in pending else None, pending.get(index, -1))
                    for index, ch in enumerate(channels)
                ]
                index, _, _ = await select(*cases)
                following = next(left[index], None)
                if following is None:
                    del pending[index]
                else:
                    pending[index] = following

        async def plain_receiver(ch: Chan[int]) -> None:
            for _ in range(each):
                got[await ch.recv()] += 1

        async def select_receiver() -> None:
            left = [each] * 4
            while any(left):
                cases = [recv(ch if n else None) for ch, n in zip(channels, left, strict=True)]
                index, value, ok = await select(*cases)
                assert ok
                left[index] -= 1
                got[value] += 1

        await asyncio.gather(
            *map(plain_sender, channels),
            select_sender(),
            *map(plain_receiver, channels),
            select_receiver(),
        )
        assert got == dict.fromkeys(range(each), 8)

    run(main())


def test_a_cancelled_select_leaves_all_queues(run: Run) -> None:
    async def main() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()
        chooser = spawn(select(recv(a), send(b, 1)))
        await parked(chooser)
        chooser.cancel()
        assert not a._send_ready()
        assert not b._recv_ready()
        with pytest.raises(asyncio.CancelledError):
            await chooser

    run(main())


def test_a_value_handed_to_a_select_that_is_cancelled_is_not_lost(run: Run) -> None:
    async def main() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()
        chooser, next_one = spawn(select(recv(a), recv(b))), spawn(a.recv())
        await parked(chooser, next_one)
        await a.send(1)
        chooser.cancel()
        assert await next_one == 1
        with pytest.raises(asyncio.CancelledError):
            await chooser

    run(main())


def test_selects_in_a_loop_do_not_pile_up_in_a_quiet_channel(run: Run) -> None:
    async def main() -> None:
        quiet: Chan[int] = Chan()
        busy: Chan[int] = Chan()
        watchers = [spawn(quiet.recv()) for _ in range(2)]
        await parked(*watchers)

        async def work() -> int:
            total = 0
            while True:
                _, value, ok = await select(recv(quiet), recv(busy))
                if not ok:
                    return total
                total += value

        worker = spawn(work())
        for _ in range(300):
            await busy.send(1)
        assert len(quiet._recvq) < 100
        busy.close()
        assert await worker == 300
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    run(main())


def test_sync_gs_select() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        work: Chan[int] = Chan()
        stop: Chan[None] = Chan()
        assert await loop.call_sync(lambda: select_sync(recv(work), default=True)) == (
            -1,
            None,
            False,
        )

        def worker() -> list[int]:
            got: list[int] = []
            while True:
                index, value, _ = select_sync(recv(work), recv(stop), send(None, 1))
                if index == 1:
                    return got
                got.append(value)

        ended = loop.call_sync(worker)
        for value in range(30):
            await work.send(value)
        stop.close()
        assert await ended == list(range(30))

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(asyncio.wait_for(main(), DEADLINE_S))


def test_channels_of_two_loops_in_one_select_are_refused() -> None:
    async def make() -> Chan[int]:
        return Chan()

    theirs = asyncio.run(make())

    async def main() -> None:
        with pytest.raises(RuntimeError, match="different event loops"):
            await select(recv(theirs), recv(Chan()))

    asyncio.run(main())
