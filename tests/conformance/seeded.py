"""Random programs under ``gmpd.run(…, deterministic_seed=n)``: prints what each did, as a digest.

    python tests/conformance/seeded.py FIRST LAST [--trace]

Two processes must print the same, whatever their PYTHONHASHSEED and however busy the machine is.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import gmpd
from gmpd.errors import ChanClosed, Deadlock, Panic
from gmpd.runtime.go import this_loop
from gmpd.runtime.select import select_sync

#: Gs that a program may start beside its first ones.
SPAWNED_MAX = 60


class Program:
    """Gs that do what the seed says, and write down what they saw."""

    def __init__(self, seed: int):
        self.seed = seed
        self.dice = random.Random(seed)
        self.said: list[Any] = []
        self.spawned = 0

    def run(self) -> list[Any]:
        """Its trace, and the steps of its Gs."""
        try:
            gmpd.run(self.main(), deterministic_seed=self.seed)
        except Deadlock:
            self.said.append("deadlock")
        return self.said

    async def main(self) -> None:
        loop = self.loop = this_loop("the program")
        tracer = loop.start_trace()
        self.chans = [gmpd.Chan[int](n) for n in (0, 0, 1, 3)]
        self.mutex, self.rw, self.group = gmpd.Mutex(), gmpd.RWMutex(), gmpd.WaitGroup()
        self.gs: list[Any] = []
        for _ in range(self.dice.randint(3, 8)):
            self.spawn()
        await gmpd.sleep(self.dice.random() * 5)
        for g in self.gs[:]:
            g.cancel()
        for ch in self.chans:  # sync Gs cannot be cancelled
            ch.close()
        await gmpd.sleep(1)
        self.said += tracer.lines()

    def spawn(self) -> None:
        if self.spawned >= SPAWNED_MAX:
            return
        self.spawned += 1
        me = self.spawned
        ops = [
            (self.dice.choice(OPS), self.dice.randrange(4), self.dice.random())
            for _ in range(self.dice.randint(1, 8))
        ]
        kind = self.dice.random()
        if kind < 0.5:
            self.gs.append(gmpd.go(self.g, me, ops))
        elif kind < 0.7:
            self.gs.append(asyncio.get_running_loop().create_task(self.g(me, ops)))
        else:
            ops = [(self.dice.choice(SYNC_OPS), number, chance) for _, number, chance in ops]
            self.gs.append(gmpd.go(self.sync_g, me, ops))

    async def g(self, me: int, ops: list[Any]) -> int:
        for op, number, chance in ops:
            try:
                got = await getattr(self, op)(number, chance)
            except (ChanClosed, Panic) as error:
                got = type(error).__name__
            except asyncio.CancelledError:
                self.said.append((me, op, "cancelled", self.loop.time()))
                raise
            self.said.append((me, op, got, self.loop.time()))
        return me

    def sync_g(self, me: int, ops: list[Any]) -> int:
        for op, number, chance in ops:
            try:
                got = getattr(self, op)(number, chance)
            except (ChanClosed, Panic) as error:
                got = type(error).__name__
            self.said.append((me, op, got, self.loop.time()))
        return me

    # ---- what Gs do ------------------------------------------------------------------------------

    async def start(self, *_: Any) -> None:
        self.spawn()

    async def turn(self, number: int, _chance: float) -> None:
        for _ in range(number):
            await gmpd.gosched()

    async def sleep(self, _number: int, chance: float) -> None:
        await gmpd.sleep(round(chance, 1))

    async def aio_sleep(self, _number: int, chance: float) -> None:
        await asyncio.sleep(round(chance, 1))

    async def send(self, number: int, _chance: float) -> None:
        await self.chans[number].send(number)

    async def recv(self, number: int, _chance: float) -> Any:
        return await self.chans[number].recv()

    async def select(self, number: int, chance: float) -> Any:
        a, b, c, d = self.chans
        cases: list[Any] = [gmpd.recv(a), gmpd.send(b, number), gmpd.recv(c), gmpd.send(d, number)]
        timer = gmpd.Timer(round(chance, 1))
        cases.append(gmpd.recv(timer.c))
        return await gmpd.select(*cases, default=number == 3)

    async def lock(self, _number: int, chance: float) -> None:
        async with self.mutex:
            await gmpd.sleep(chance / 10)

    async def read(self, _number: int, chance: float) -> None:
        async with self.rw.rlocker():
            await gmpd.sleep(chance / 10)

    async def write(self, number: int, _chance: float) -> None:
        async with self.rw:
            await self.turn(number, 0)

    async def cancel(self, number: int, _chance: float) -> Any:
        return self.gs[-1 - number % len(self.gs)].cancel()

    async def wait_for(self, number: int, chance: float) -> Any:
        try:
            return await asyncio.wait_for(self.chans[number].recv(), round(chance, 1))
        except TimeoutError:
            return "late"

    async def child(self, number: int, _chance: float) -> Any:
        return await gmpd.go(self.compute, number, 0.0)

    async def many(self, number: int, _chance: float) -> Any:
        """More than the ring holds, and than a batch runs."""
        return len(
            await asyncio.gather(*[gmpd.go(self.compute, 0, 0.0) for _ in range(100 * number)])
        )

    async def tick(self, number: int, _chance: float) -> Any:
        ticker = gmpd.Ticker(0.1)
        got = [round(await ticker.c.recv(), 6) for _ in range(number)]
        ticker.stop()
        return got

    async def hashes(self, *_: Any) -> Any:
        """A set of texts: PYTHONHASHSEED decides its order, so only its size may matter."""
        return len({str(n) for n in range(10)})

    async def soon(self, number: int, _chance: float) -> None:
        self.loop.call_soon(self.said.append, ("called", number))

    # ---- what sync Gs do -------------------------------------------------------------------------

    def compute(self, number: int, _chance: float) -> int:
        return sum(range(1000 * number))

    def delay(self, _number: int, _chance: float) -> None:
        """Takes real time, and another one in each process."""
        time.sleep(0.003 * random.SystemRandom().random())

    def go_on(self, _number: int, _chance: float) -> None:
        self.spawn()

    def send_sync(self, number: int, _chance: float) -> None:
        self.chans[number].sync.send(number)

    def recv_sync(self, number: int, _chance: float) -> Any:
        return self.chans[number].sync.recv()

    def select_sync(self, number: int, _chance: float) -> Any:
        a, b, c, _ = self.chans
        return select_sync(gmpd.recv(a), gmpd.send(b, number), gmpd.recv(c), default=number == 3)

    def lock_sync(self, number: int, chance: float) -> None:
        with self.mutex.sync:
            self.compute(number, chance)

    def result_sync(self, number: int, chance: float) -> Any:
        return gmpd.go(self.compute, number, chance).result()


OPS = (
    "start", "start", "turn", "sleep", "sleep", "aio_sleep", "send", "recv", "send", "recv",
    "select", "select", "select", "lock", "read", "write", "cancel", "wait_for", "child", "many",
    "tick", "hashes", "soon",
)  # fmt: skip
SYNC_OPS = (
    "compute", "compute", "delay", "go_on", "send_sync", "recv_sync", "lock_sync", "result_sync",
    "select_sync",
)  # fmt: skip


def digest(said: list[Any]) -> str:
    return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def main() -> int:
    first, last = (int(word) for word in sys.argv[1:3])
    for seed in range(first, last):
        said = Program(seed).run()
        print(seed, len(said), digest(said))
        if "--trace" in sys.argv:
            print(*said, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
