"""The cost of the ring of events: the rates of one daemon, with it and without, in turns.

    python -m loadtests.ring_cost [ROUNDS [same]]

Jobs take the rings of all workers away and give them back, so both turns have the same processes.
With ``same`` both turns have rings: the error of the measurement.
The medians of the rounds' ratios are printed, above 1 where jobs were faster without rings: of the
time that they took, and of the CPU time of workers and coordinator, which other load of the machine
disturbs less.
"""

from __future__ import annotations

import asyncio
import operator
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gmpd
from gmpd.runtime.go import this_loop
from gmpd.status import read

Measure = Callable[[gmpd.Client], float]

#: The ring of this process while it is away.
_kept: list[Any] = []


def switch(on: bool) -> int:
    """A job: take its worker's ring away, or give it back. The worker's pid."""
    p = this_loop("switch").p
    worker: Any = p.on_poll.__self__  # type: ignore[union-attr]
    if not _kept:
        _kept.append(p.ring)
    worker._ring = p.ring = _kept[0] if on else None
    return os.getpid()


async def parks(n: int) -> int:
    """A coroutine that parks twice."""
    await gmpd.sleep(0.0001)
    await asyncio.sleep(0)
    return n


async def has_children(n: int) -> int:
    """A coroutine with 500 children, each of which parks once."""
    children = [gmpd.go(yields) for _ in range(500)]
    for child in children:
        await child
    return n


async def yields() -> None:
    """Let others run."""
    await gmpd.gosched()


async def passes(n: int) -> int:
    """Two tasks, which stay here, that hand a value to and fro 1,000 times."""
    there: gmpd.Chan[int] = gmpd.Chan()
    back: gmpd.Chan[int] = gmpd.Chan()
    tasks = [asyncio.create_task(echo(*each)) for each in ((there, back), (back, there))]
    await there.send(1000)
    await asyncio.gather(*tasks)
    return n


async def echo(source: gmpd.Chan[int], sink: gmpd.Chan[int]) -> None:
    """Receive numbers and send the next lower ones, to 0."""
    async for n in source:
        if not n:
            sink.close()
            return
        await sink.send(n - 1)


def plain(client: gmpd.Client, jobs: int = 6_000) -> float:
    """Seconds for no-ops by ``submit``."""
    return _all(client, operator.neg, jobs)


def coroutines(client: gmpd.Client, jobs: int = 2_000) -> float:
    """The same with coroutines that park."""
    return _all(client, parks, jobs)


def children(client: gmpd.Client, jobs: int = 100) -> float:
    """Jobs with 500 children each."""
    return _all(client, has_children, jobs)


def switches(client: gmpd.Client, jobs: int = 30) -> float:
    """Jobs with two tasks that switch 2,000 times."""
    return _all(client, passes, jobs)


def trips(client: gmpd.Client, jobs: int = 300) -> float:
    """One job at a time, so P falls asleep after each."""
    began = time.perf_counter()
    for n in range(jobs):
        client.submit(operator.neg, n).result()
    return time.perf_counter() - began


def _all(client: gmpd.Client, fn: Callable[[int], Any], jobs: int) -> float:
    began = time.perf_counter()
    futures = [client.submit(fn, n) for n in range(jobs)]
    for future in futures:
        future.result()
    return time.perf_counter() - began


def _switch_all(client: gmpd.Client, pids: set[int], *, on: bool) -> None:
    left = set(pids)
    while left:
        left -= {future.result() for future in [client.submit(switch, on) for _ in range(8)]}


def _cpu_s(pids: set[int]) -> float:
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def main(rounds: int = 40, *, same: bool = False) -> None:
    """Print a line per kind of work."""
    with gmpd.Client() as client:
        status = read(client.call("status"))
        workers = {p.pid for p in status.ps if p.pid}
        for measure in (plain, coroutines, children, switches, trips):
            measure(client)
            walls, cpus, used = [], [], []
            for n in range(rounds):
                took: dict[bool, tuple[float, float]] = {}
                for on in (True, False) if n % 2 else (False, True):
                    _switch_all(client, workers, on=on or same)
                    before = _cpu_s({status.pid, *workers})
                    wall = measure(client)
                    took[on] = wall, _cpu_s({status.pid, *workers}) - before
                walls.append(took[True][0] / took[False][0])
                cpus.append(took[True][1] / took[False][1])
                used.append(took[False][1])
            print(
                f"{measure.__name__:12} time {_told(walls)}  CPU {_told(cpus)}"
                f"  of {statistics.median(used) * 1e3:.1f} ms",
                flush=True,
            )


def _told(ratios: list[float]) -> str:
    low, mid, high = statistics.quantiles(ratios, n=4)
    return f"x{mid:.3f} (quartiles x{low:.3f} to x{high:.3f})"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), same="same" in sys.argv)
