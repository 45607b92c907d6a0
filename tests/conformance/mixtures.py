"""Random programs of everything at once, whose every result is known beforehand: tasks, Gs of all
kinds, channels, locks, timers, cancels, threads, executors, subprocesses, signals, loops in loops.

    python tests/conformance/mixtures.py            # 200 programs
    python tests/conformance/mixtures.py 500 600    # those

A wrong result, a hang, an unexpected error, or a task that is destroyed while it waits
is a bug of the run loop. The clock is real: what comes first differs from run to run, what comes
out does not.
"""

from __future__ import annotations

import asyncio
import contextvars
import faulthandler
import gc
import os
import random
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gmpd
from gmpd.runtime.loop import Loop
from gmpd.runtime.timers import after, after_func

#: Seconds after which a program hangs.
HANG_S = 30.0
#: How deep parts may contain others.
DEPTH_MAX = 3

VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE")


class Err(Exception):
    """The error that parts raise."""


class Mixture:
    """One program. Each part is a coroutine function that returns 1 if all was as it must be."""

    def __init__(self, seed: int):
        self.dice = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.loud: list[str] = []
        self.signals = 0

    def run(self) -> Counter[str]:
        """How often each part did what it must; AssertionError if one did not, TimeoutError if one
        hangs.
        """
        loops: list[Loop] = []

        def make() -> Loop:
            loop = Loop(max_ms=self.dice.choice([30, 1000]))
            loop.set_exception_handler(self.hear)
            loops.append(loop)
            return loop

        debug = self.dice.random() < 0.1
        gc.freeze()  # the pass below looks at the program alone
        with asyncio.Runner(loop_factory=make, debug=debug) as runner:
            runner.run(asyncio.wait_for(self.main(), HANG_S))
            (loop,) = loops
            assert not loop.p.gs, loop.p.gs
            gc.collect()
        gc.unfreeze()
        assert self.loud == []
        return self.done

    def hear(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.loud.append(f"{context['message']} {context.get('exception')!r}")

    async def main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self.count_signal)
        try:
            parts = [self.part(0) for _ in range(self.dice.randint(3, 12))]
            gs = [
                gmpd.go(part) if n % 2 else loop.create_task(part()) for n, part in enumerate(parts)
            ]
            for g in gs:
                assert await g == 1
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)

    def part(self, depth: int) -> Callable[[], Coroutine[Any, Any, int]]:
        kinds = FLAT if depth >= DEPTH_MAX else FLAT + NESTED
        kind = self.dice.choice(kinds)
        seconds = self.dice.choice([0.0, 0.0, 0.0001, 0.002, 0.02]) * self.dice.random()
        number = self.dice.randint(1, 20)
        inner = [self.part(depth + 1) for _ in range(number % 4 + 1)] if kind in NESTED else []

        async def part() -> int:
            result = await getattr(self, kind)(number, seconds, inner)
            assert result == 1, (kind, result)
            self.done[kind] += 1
            return 1

        part.__qualname__ = kind
        return part

    # ---- parts -----------------------------------------------------------------------------------

    async def yields(self, number: int, _seconds: float, _inner: Any) -> Any:
        for n in range(number):
            await (gmpd.gosched() if n % 2 else asyncio.sleep(0))
        return 1

    async def sleeps(self, number: int, seconds: float, _inner: Any) -> Any:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await (gmpd.sleep if number % 2 else asyncio.sleep)(seconds)
        return loop.time() - began >= seconds - 1e-6

    async def children(self, number: int, seconds: float, _inner: Any) -> Any:
        """Async and sync ones, of which some block and some compute."""

        async def child(n: int) -> int:
            await asyncio.sleep(seconds * (n % 3))
            return n

        def blocks(n: int) -> int:
            time.sleep(seconds * (n % 3))
            return n

        def computes(n: int) -> int:
            end = time.perf_counter() + seconds * (n % 2)
            while time.perf_counter() < end:
                pass
            return n

        gs = [gmpd.go((child, blocks, computes)[n % 3], n) for n in range(number)]
        return [await g for g in gs] == list(range(number))

    async def errors(self, number: int, seconds: float, _inner: Any) -> Any:
        async def fails() -> None:
            await gmpd.sleep(seconds)
            raise Err(number)

        def fails_too() -> None:
            time.sleep(seconds)
            raise Err(number)

        gs: list[Any] = [gmpd.go(fails), gmpd.go(fails_too), asyncio.ensure_future(fails())]
        for g in gs:
            try:
                await g
            except Err as error:
                if error.args == (number,):
                    continue
            return 0
        return 1

    async def pipeline(self, number: int, seconds: float, _inner: Any) -> Any:
        """Producers and consumers, async and sync, on one channel."""
        ch = gmpd.Chan[int](number % 5)
        wg = gmpd.WaitGroup()

        async def produce(first: int) -> None:
            for n in range(first, first + number):
                await ch.send(n)

        def produce_sync(first: int) -> None:
            for n in range(first, first + number):
                ch.sync.send(n)
                if seconds:
                    time.sleep(seconds / number)

        async def consume() -> list[int]:
            return [value async for value in ch]

        def consume_sync() -> list[int]:
            return list(ch.sync)

        consumers = [gmpd.go(consume), gmpd.go(consume_sync), gmpd.go(consume)]
        wg.go(produce, 0)
        wg.go(produce_sync, 1000)
        wg.go(produce, 2000)
        await wg.wait()
        ch.close()
        got = [value for g in consumers for value in await g]
        return sorted(got) == [first + n for first in (0, 1000, 2000) for n in range(number)]

    async def locks(self, number: int, seconds: float, _inner: Any) -> Any:
        mutex, once, total = gmpd.Mutex(), gmpd.Once(), [0]

        async def add() -> None:
            async with mutex:
                before = total[0]
                await asyncio.sleep(seconds / number)
                total[0] = before + 1

        def add_sync() -> None:
            with mutex.sync:
                before = total[0]
                time.sleep(seconds / number)
                total[0] = before + 1

        def first() -> None:
            total[0] += 100

        gs = [gmpd.go(add if n % 2 else add_sync) for n in range(number)]
        impatient = [gmpd.go(add) for _ in range(3)]
        await asyncio.sleep(seconds / 2)
        for g in impatient:
            g.cancel()
        for g in gs:
            await g
        ended = await asyncio.gather(*impatient, return_exceptions=True)
        await asyncio.gather(once.do(first), once.do(first))
        return total[0] == 100 + number + ended.count(None) and mutex.try_lock()

    async def selects(self, number: int, seconds: float, _inner: Any) -> Any:
        a, b, timer = gmpd.Chan[int](), gmpd.Chan[int](1), gmpd.Timer(30)
        got = []

        async def give(ch: gmpd.Chan[int]) -> None:
            for n in range(number):
                await gmpd.sleep(seconds / number)
                await ch.send(n)

        gs = [gmpd.go(give, a), gmpd.go(give, b)]
        for _ in range(2 * number):
            case, value, ok = await gmpd.select(gmpd.recv(a), gmpd.recv(b), gmpd.recv(timer.c))
            assert ok
            got.append((case, value))
        for g in gs:
            await g
        timer.stop()
        return sorted(got) == [(case, n) for case in (0, 1) for n in range(number)]

    async def cancels(self, number: int, seconds: float, _inner: Any) -> Any:
        """Waits of every kind are cancelled, at any moment of theirs."""
        ch, mutex, event = gmpd.Chan[int](), gmpd.Mutex(), asyncio.Event()
        await mutex.lock()

        def blocks() -> None:
            time.sleep(seconds)

        waits: list[Any] = [
            ch.recv, lambda: ch.send(1), mutex.lock, event.wait, lambda: asyncio.sleep(60),
            lambda: gmpd.sleep(60), lambda: gmpd.select(gmpd.recv(ch)), lambda: gmpd.go(ch.recv),
            lambda: gmpd.blocking(blocks), lambda: asyncio.to_thread(blocks),
        ]  # fmt: skip

        async def wait(n: int) -> str:
            try:
                while True:
                    await waits[n % len(waits)]()
            except asyncio.CancelledError:
                return "cancelled"

        gs: list[Any] = [
            gmpd.go(wait, n) if n % 3 else asyncio.ensure_future(wait(n)) for n in range(number)
        ]
        if number % 2:
            await asyncio.sleep(seconds)
        for _ in range(number % 3):
            await gmpd.gosched()
        for g in gs:
            g.cancel()
        for g in gs:
            try:
                assert await g == "cancelled"
            except asyncio.CancelledError:
                pass  # before it began
        return 1

    async def threads(self, number: int, seconds: float, _inner: Any) -> Any:
        """Foreign threads call in; a future and a channel of theirs come back."""
        loop = asyncio.get_running_loop()
        came, over = [], asyncio.Event()
        ch = gmpd.Chan[int](2)

        def arrive(n: int) -> None:
            came.append(n)
            if len(came) == number:
                over.set()

        async def answer(n: int) -> int:
            await asyncio.sleep(seconds)
            return n

        def thread() -> None:
            for n in range(number):
                loop.call_soon_threadsafe(arrive, n)
            future = asyncio.run_coroutine_threadsafe(answer(number), loop)
            ch.sync.send(future.result(HANG_S))

        started = threading.Thread(target=thread)
        started.start()
        await over.wait()
        answered = await ch.recv()
        await asyncio.to_thread(started.join)
        return came == list(range(number)) and answered == number

    async def executors(self, number: int, seconds: float, _inner: Any) -> Any:
        loop: Any = asyncio.get_running_loop()
        token = VARIABLE.set(number)

        def work(n: int) -> int:
            time.sleep(seconds)
            return n * n

        with ThreadPoolExecutor(2) as pool:
            ways: list[Any] = [
                lambda n: loop.run_in_executor(None, work, n),
                lambda n: loop.run_in_executor(pool, work, n),
                lambda n: asyncio.to_thread(lambda: work(n) * VARIABLE.get() // number),
                lambda n: gmpd.blocking(lambda: work(n) * VARIABLE.get() // number),
                lambda n: loop.call_sync(lambda: work(n)),
            ]
            got = await asyncio.gather(*[ways[n % 5](n) for n in range(number)])
        VARIABLE.reset(token)
        return list(got) == [n * n for n in range(number)]

    async def subprocesses(self, number: int, _seconds: float, _inner: Any) -> Any:
        if number % 4:  # each takes some milliseconds
            return 1
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
        said, _ = await process.communicate(b"x" * number)
        other = await asyncio.create_subprocess_shell(f"exit {number}")
        return said == b"x" * number and await other.wait() == number

    def count_signal(self) -> None:
        self.signals += 1

    async def raises_signal(self, _number: int, seconds: float, _inner: Any) -> Any:
        """Also while the main thread waits, or P is with another one."""
        before = self.signals
        if seconds:
            await gmpd.go(lambda: os.kill(os.getpid(), signal.SIGUSR1))
        else:
            os.kill(os.getpid(), signal.SIGUSR1)
        while self.signals == before:
            await asyncio.sleep(0.001)
        return 1

    async def streams(self, number: int, seconds: float, _inner: Any) -> Any:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)

        def echo() -> None:
            with theirs:
                while data := theirs.recv(100):
                    time.sleep(seconds / number)
                    theirs.sendall(data)

        g = gmpd.go(echo)
        for n in range(number):
            writer.write(bytes([n]) * 50)
            await writer.drain()
            assert await reader.readexactly(50) == bytes([n]) * 50
        writer.close()
        await writer.wait_closed()
        await g
        return 1

    async def timers(self, number: int, seconds: float, _inner: Any) -> Any:
        loop = asyncio.get_running_loop()
        fired: list[int] = []
        handles = [loop.call_later(seconds * n / number, fired.append, n) for n in range(number)]
        handles[0].cancel()
        func = after_func(seconds, fired.append, -1)
        ticker = gmpd.Ticker(0.001)
        await ticker.c.recv()
        ticker.stop()
        await after(2 * seconds).recv()
        while len(fired) < number:
            await asyncio.sleep(0.001)
        func.stop()
        return sorted(fired) == [-1, *range(1, number)]

    async def nested_loops(self, number: int, seconds: float, _inner: Any) -> Any:
        """A sync G runs loops of its own: asyncio's, and gmpd's."""

        async def inside(n: int) -> int:
            await asyncio.sleep(seconds)
            return await asyncio.to_thread(lambda: n)

        async def inside_gmpd(n: int) -> int:
            ch = gmpd.Chan[int]()
            gmpd.go(ch.send, n)
            doubled: int = await ch.recv() + await gmpd.go(lambda: n)
            return doubled

        def job(n: int) -> Any:
            return gmpd.run(inside_gmpd(n)) if n % 2 else asyncio.run(inside(n)) * 2

        gs = [gmpd.go(job, n) for n in range(number % 4)]
        return [await g for g in gs] == [2 * n for n in range(number % 4)]

    async def sync_waits(self, number: int, seconds: float, _inner: Any) -> Any:
        """Sync Gs that wait for others."""

        async def child(n: int) -> int:
            await asyncio.sleep(seconds)
            return n

        def parent() -> int:
            gs = [gmpd.go(child, n) for n in range(number)]
            return sum(g.result(HANG_S) for g in gs)

        return await gmpd.go(parent) == sum(range(number))

    async def gives_up(self, number: int, seconds: float, _inner: Any) -> Any:
        """The waiter of a sync G is cancelled; the G itself ends in its time."""
        release, ended = threading.Event(), []

        def work() -> None:
            release.wait(HANG_S)
            ended.append(number)

        g = gmpd.go(work)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(g)
        except TimeoutError:
            pass
        release.set()
        await g
        return ended == [number]

    # ---- parts that have others ------------------------------------------------------------------

    async def gathers(self, _number: int, _seconds: float, inner: Any) -> Any:
        return sum(await asyncio.gather(*[part() for part in inner])) == len(inner)

    async def groups(self, number: int, _seconds: float, inner: Any) -> Any:
        if number % 2:
            async with asyncio.TaskGroup() as tasks:
                done = [tasks.create_task(part()) for part in inner]
            return sum(task.result() for task in done) == len(inner)
        async with gmpd.Group() as group:
            for part in inner:
                group.go(part)
        return 1

    async def gs(self, _number: int, _seconds: float, inner: Any) -> Any:
        return sum([await g for g in [gmpd.go(part) for part in inner]]) == len(inner)

    async def at_last(self, _number: int, _seconds: float, inner: Any) -> Any:
        async with asyncio.timeout(HANG_S):
            return await asyncio.wait_for(asyncio.shield(inner[0]()), HANG_S)


FLAT = (
    "yields", "sleeps", "children", "errors", "pipeline", "locks", "selects", "cancels", "threads",
    "executors", "subprocesses", "raises_signal", "streams", "timers", "nested_loops", "sync_waits",
    "gives_up",
)  # fmt: skip
NESTED = ("gathers", "groups", "gs", "at_last")


def main() -> int:
    bounds = [int(word) for word in sys.argv[1:3]] or [0, 200]
    total: Counter[str] = Counter()
    for seed in range(*bounds):
        faulthandler.dump_traceback_later(2 * HANG_S, exit=True)
        try:
            total += Mixture(seed).run()
        except BaseException:
            print("seed", seed)
            raise
    faulthandler.cancel_dump_traceback_later()
    print(dict(total))
    return 0


if __name__ == "__main__":
    sys.exit(main())
