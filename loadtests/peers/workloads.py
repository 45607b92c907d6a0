"""The workloads of the peers' table, each for any peer.

A workload takes as many jobs as the peer does in a bounded time, so that a slow peer gets fewer;
the number that it got is recorded with the figure.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from loadtests.peers import processes, tasks
from loadtests.peers.peer import Peer

#: A figure, and what belongs to it: the number of jobs, remarks.
Cell = dict[str, Any]

MB = 1_000_000
#: The work of a job that waits and computes (seconds).
MIXED_CPU_S = 0.0008
#: Jobs that block, and for how long each (seconds).
BLOCKING, BLOCKING_S = 100, 0.04
#: The longest that jobs may take of which a worker was killed (seconds).
KILLED_S = 6.0
#: Uneven jobs.
UNEVEN = 500
#: The heaviness of the tail of uneven jobs: heavier towards 1.
ALPHA = 1.3


@dataclass
class Bench:
    """One peer under measurement."""

    peer: Peer
    mark: str
    #: Rounds of ``tasks.burn`` in a second, with every core busy.
    burn_per_s: float
    #: The longest a cell may take (seconds).
    limit_s: float = 20.0
    #: A factor for the time and the number of jobs of each cell.
    scale: float = 1.0
    seed: int = 1
    _rate: float = field(default=0.0, init=False)

    @property
    def rate(self) -> float:
        """No-ops per second, roughly: the number of jobs for a given time follows from it."""
        if not self._rate:
            self.run(tasks.noop, list(range(16 * self.peer.procs)))
            n, took = 20, 0.0
            while took < 0.1 * self.scale + 0.05:
                n *= 2
                took = self.run(tasks.noop, list(range(n)))
            self._rate = n / took
        return self._rate

    def run(self, fn: Callable[..., Any], args: list[Any]) -> float:
        """Seconds for these jobs, each submitted by itself."""
        began = time.perf_counter()
        found = self.peer.run_all(fn, args, self.limit_s)
        took = time.perf_counter() - began
        if len(found) != len(args):
            raise RuntimeError(f"{len(found)} results of {len(args)} jobs")
        return took

    def fitting(self, seconds: float, most: int, least: int = 1, rate: float = 0.0) -> int:
        """How many jobs take these seconds, at this rate or that of no-ops."""
        n = (rate or self.rate) * seconds * self.scale
        return max(least, min(int(most * min(1.0, self.scale * 2)), int(n)))

    def warm(self, fn: Callable[..., Any], arg: Any) -> None:
        """Have what runs this function started, and the function known."""
        self.run(fn, [arg] * 2 * self.peer.procs)

    def rounds(self, seconds: float) -> int:
        """The number of rounds of ``tasks.burn`` that take the given time."""
        return max(1, int(seconds * self.burn_per_s))

    def pids(self) -> list[int]:
        """All processes of the peer, those of its client and its broker among them."""
        return processes.marked(self.mark)


def noop(bench: Bench) -> Cell:
    n = bench.fitting(0.8, 100_000, 20)
    return {"value": n / bench.run(tasks.noop, list(range(n))), "n": n}


def mapped(bench: Bench) -> Cell:
    bench.peer.map(tasks.noop, range(64))  # what it starts with the first call is not counted
    n, rate = min(1000, max(20, int(bench.rate / 4))), 0.0
    while True:
        began = time.perf_counter()
        found = bench.peer.map(tasks.noop, range(n))
        took = time.perf_counter() - began
        if len(found) != n:
            raise RuntimeError(f"{len(found)} results of {n} items")
        rate = n / took
        if took > max(0.15, 0.4 * bench.scale) or n >= 1_000_000:
            return {"value": rate, "n": n}
        n = min(1_000_000, int(n * min(8.0, max(1.5, 0.7 * bench.scale / took))))


def round_trip(bench: Bench) -> Cell:
    times: list[float] = []
    ends = time.perf_counter() + 0.7 * bench.scale
    while len(times) < 5 or (time.perf_counter() < ends and len(times) < 2000):
        times.append(bench.run(tasks.noop, [1]))
    return {"value": statistics.median(times) * 1e6, "n": len(times)}


def _naps(bench: Bench, seconds: float, most: int, budget_s: float) -> Cell:
    fn = tasks.nap if bench.peer.coroutines else tasks.block
    bench.warm(fn, 0.001)
    n, took = 2 * bench.peer.procs, 0.0
    while True:
        began = time.perf_counter()
        found = bench.peer.run_all(fn, [seconds] * n, bench.limit_s)
        took = time.perf_counter() - began
        if len(found) != n:
            raise RuntimeError(f"{len(found)} results of {n} jobs")
        left = max(0.6, budget_s * bench.scale)
        # The next one has eight times as many, if it can end in time.
        if n >= most * bench.scale or (took * min(8.0, most / n) > left and took > 1.5 * seconds):
            return {"value": n / took, "n": n}
        n = min(most, n * 8)


def naps_10ms(bench: Bench) -> Cell:
    return _naps(bench, 0.01, 10_000, 1.5)


def naps_1s(bench: Bench) -> Cell:
    """Not in steps: each would take a second."""
    fn = tasks.nap if bench.peer.coroutines else tasks.block
    seconds = 1.0
    bench.warm(fn, 0.001)
    some = 4 * bench.peer.procs
    took = bench.run(fn, [seconds / 10] * some)
    at_once = took < 1.8 * seconds / 10 + 5 * some / bench.rate
    n = bench.fitting(2.0, 5_000, 2 * some) if at_once else 2 * bench.peer.procs
    return {"value": n / bench.run(fn, [seconds] * n), "n": n}


def mixed(bench: Bench) -> Cell:
    fn = tasks.nap_and_burn if bench.peer.coroutines else tasks.block_and_burn
    rounds = bench.rounds(MIXED_CPU_S)
    bench.warm(fn, 1)
    some = 20 * bench.peer.procs
    rate = some / bench.run(fn, [rounds] * some)
    n = bench.fitting(0.7, 4_000, some, rate * (1.0 if rate < 150 * bench.peer.procs else 3.0))
    return {"value": n / bench.run(fn, [rounds] * n), "n": n}


def behind(bench: Bench) -> Cell:
    n = max(10, int(BLOCKING * min(1.0, bench.scale * 2)))
    return {"value": bench.peer.behind(n, BLOCKING_S, bench.limit_s) * 1e3, "n": n}


def uneven(seed: int, n: int, rounds: int) -> list[int]:
    """Rounds for each job: a heavy tail in random order, none more than a twentieth of all."""
    dice = random.Random(seed)
    sizes = [dice.paretovariate(ALPHA) for _ in range(n)]
    for _ in range(50):
        cap = sum(sizes) / 20
        sizes = [min(size, cap) for size in sizes]
    return [max(1, int(size * rounds / sum(sizes))) for size in sizes]


def _uneven(bench: Bench, run: Callable[[list[int]], object]) -> Cell:
    ideal = 1.0 * bench.scale
    n = bench.fitting(3.0 / max(0.3, bench.scale), UNEVEN, 4 * bench.peer.procs)
    ideal *= n / UNEVEN
    sizes = uneven(bench.seed, n, bench.rounds(ideal) * bench.peer.procs)
    began = time.perf_counter()
    run(sizes)
    return {"value": (time.perf_counter() - began) / ideal, "n": n}


def skew(bench: Bench) -> Cell:
    return _uneven(bench, lambda sizes: bench.peer.map(tasks.burn, sizes))


def skew_each(bench: Bench) -> Cell:
    return _uneven(bench, lambda sizes: bench.run(tasks.burn, sizes))


def metg(bench: Bench) -> Cell:
    """Halve the jobs, or double them, until half of the cores' time is lost; then interpolate."""
    procs = bench.peer.procs

    def efficiency(seconds: float) -> float:
        rounds = bench.rounds(seconds)
        n = bench.fitting(0.3, 20_000, 4 * procs, 1 / max(seconds / procs, 1 / bench.rate))
        return n * rounds / bench.burn_per_s / procs / bench.run(tasks.burn, [rounds] * n)

    ends = time.perf_counter() + 2.0 * max(0.3, bench.scale)
    at = min(0.2, max(2e-6, procs / bench.rate))
    seen = {at: efficiency(at)}
    while time.perf_counter() < ends:
        enough = [s for s in seen if seen[s] >= 0.5]
        few = [s for s in seen if seen[s] < 0.5]
        if enough and few:
            break
        at = min(enough) / 2 if enough else max(few) * 2
        if at < 1e-6 or at > 0.5:
            break
        seen[at] = efficiency(at)
    enough = [s for s in seen if seen[s] >= 0.5]
    few = [s for s in seen if seen[s] < 0.5]
    if not enough:
        return {"no": "50 % was not reached in the time of a cell"}
    if not few:
        return {"value": min(enough) * 1e6, "n": len(seen), "note": "or less"}
    low, high = max(few), min(enough)
    part = (0.5 - seen[low]) / max(1e-9, seen[high] - seen[low])
    return {"value": low * (high / low) ** min(1.0, max(0.0, part)) * 1e6, "n": len(seen)}


def _payload(bench: Bench, value: Any, size: int) -> Cell:
    one = min(bench.run(tasks.echo, [value]) for _ in range(2))
    n = max(4, min(64, int(0.5 * bench.scale / one)))
    values = [n * size / MB / bench.run(tasks.echo, [value] * n) for _ in range(3)]
    return {"value": statistics.median(values), "n": n, "repeats": values}


def bytes_1mb(bench: Bench) -> Cell:
    return _payload(bench, os.urandom(MB), MB)


def numpy_8mb(bench: Bench) -> Cell:
    import numpy

    return _payload(bench, numpy.arange(MB, dtype="float64"), 8 * MB)


def backlog(bench: Bench) -> Cell:
    """A million, if they end in 16 s; else as many as end in 4 s."""
    million = int(1_000_000 * bench.scale)
    n = million if bench.rate * 16 > 1_000_000 else bench.fitting(4.0, million, 50)
    bench.limit_s *= 2
    took = bench.run(tasks.noop, list(range(n)))
    return {"value": n / took, "n": n}


def memory(bench: Bench) -> Cell:
    """Jobs of a minute; the peer is stopped long before they end."""
    fn = tasks.nap if bench.peer.coroutines else tasks.block
    n = bench.fitting(2.0, 50_000, 200)
    args = [60.0] * n
    bench.warm(fn, 0.001)
    before = processes.resident(bench.pids())
    handles = bench.peer.begin(fn, args)
    seen = [processes.resident(bench.pids())]
    while len(seen) < 20:
        bench.peer.rest(0.25)
        seen.append(processes.resident(bench.pids()))
        if abs(seen[-1] - seen[-2]) < 0.01 * n and len(seen) > 4:
            break
    del handles
    return {"value": (seen[-1] - before) / n, "n": n}


def idle(bench: Bench) -> Cell:
    bench.peer.rest(0.5)
    pids = bench.pids()
    seconds = max(1.0, 2.0 * bench.scale)
    before = processes.cpu_s(pids)
    bench.peer.rest(seconds)
    after = processes.cpu_s(pids)
    spent = sum(after[pid] - before[pid] for pid in after if pid in before)
    return {"value": spent / seconds * 100, "n": len(pids)}


def killed(bench: Bench) -> Cell:
    """Jobs for a second; after half of it a worker is killed."""
    workers = [pid for pid in bench.peer.workers() if pid != os.getpid()]
    ideal = 1.0 * max(0.3, bench.scale)
    n = int(ideal * 100) * bench.peer.procs
    killer = threading.Timer(ideal / 2, os.kill, (workers[0], signal.SIGKILL))
    killer.daemon = True
    began = time.perf_counter()
    killer.start()
    found = bench.peer.outcomes(tasks.burn, [bench.rounds(0.01)] * n, KILLED_S)
    took = time.perf_counter() - began
    killer.cancel()
    cell: Cell = {"value": found["done"] / n * 100, "n": n, "seconds": took, "ideal_s": ideal}
    others = {name: count for name, count in found.items() if name != "done" and count}
    if others:
        cell["note"] = ", ".join(
            f"{name} of {count} of {n}" for name, count in sorted(others.items())
        )
    return cell


@dataclass(frozen=True)
class Workload:
    """A row of the table."""

    key: str
    title: str
    unit: str
    run: Callable[[Bench], Cell]
    #: More words for the reader.
    what: str
    needs: tuple[str, ...] = ("run_all",)
    more_is_better: bool = False
    mode: str = "cpu"
    #: Whether it is done once, not in each round.
    once: bool = False
    #: Whether it leaves the peer in no state for another.
    alone: bool = False


WORKLOADS = (
    Workload(
        "noop", "no-ops, each submitted", "jobs/s", noop,
        "submit jobs that do nothing, each by itself, and take the results", more_is_better=True,
    ),
    Workload(
        "mapped", "no-ops, mapped", "items/s", mapped,
        "the same through the peer's call for many, with the chunks that it recommends",
        ("map",), more_is_better=True,
    ),
    Workload(
        "round_trip", "round trip", "us", round_trip,
        "one job after the other, median from submit to result",
    ),
    Workload(
        "naps_10ms", "waits of 10 ms", "jobs/s", naps_10ms,
        "up to 10,000 jobs at once that wait for 10 ms", more_is_better=True, mode="io",
    ),
    Workload(
        "naps_1s", "waits of 1 s", "jobs/s", naps_1s,
        "up to 5,000 jobs at once that wait for 1 s", more_is_better=True, mode="io",
    ),
    Workload(
        "mixed", "waits and computes", "jobs/s", mixed,
        "up to 4,000 jobs at once that wait for 20 ms, then compute for 0.8 ms",
        more_is_better=True, mode="io",
    ),
    Workload(
        "behind", "behind 100 blocking", "ms", behind,
        "one no-op submitted after 100 jobs of `time.sleep(0.04)`: from submit to result",
        ("behind",),
    ),
    Workload(
        "skew", "uneven jobs, mapped", "x ideal", skew,
        "up to 500 jobs of Pareto-distributed lengths, 4 ms on average, through the call for many;"
        " by the time that the cores need at least", ("map",),
    ),
    Workload(
        "skew_each", "uneven jobs, each submitted", "x ideal", skew_each,
        "the same, each submitted by itself",
    ),
    Workload(
        "metg", "METG", "us", metg,
        "the smallest computing job, each submitted by itself, with which half of the cores' time"
        " goes into jobs",
    ),
    Workload(
        "bytes", "1 MB of bytes", "MB/s", bytes_1mb,
        "an argument of 1 MB that comes back as the result, up to 64 at once; the argument counts",
        more_is_better=True, mode="payload", once=True,
    ),
    Workload(
        "numpy", "8 MB of NumPy", "MB/s", numpy_8mb,
        "the same with an array", more_is_better=True, mode="payload", once=True,
    ),
    Workload(
        "backlog", "a backlog", "jobs/s", backlog,
        "a million no-ops, each submitted by itself before the first result is taken; those that"
        " would take more than 16 s get as many as end in 4 s", more_is_better=True, once=True,
    ),
    Workload(
        "idle", "idle", "% of a core", idle,
        "CPU time of all processes when there is nothing to do", ("rest",), once=True,
    ),
    Workload(
        "memory", "memory of a waiting job", "B", memory,
        "up to 50,000 jobs that wait for a minute: memory of all processes, shared pages once,"
        " divided by the jobs; asleep in a worker if it takes that many, else queued",
        ("begin", "rest"), mode="io", once=True, alone=True,
    ),
    Workload(
        "killed", "a worker killed", "% done", killed,
        "jobs of 10 ms for 1 s, and a worker killed at half time: those with a result within 6 s",
        ("outcomes", "workers"), more_is_better=True, mode="kill", once=True, alone=True,
    ),
)  # fmt: skip

#: Measured by ``one`` itself, when it starts a peer for the first time.
COLD = Workload(
    "cold", "cold start", "s", lambda _: {},
    "from the start of a fresh interpreter to the first result, workers included, Redis not",
)  # fmt: skip

ALL = {each.key: each for each in (*WORKLOADS, COLD)}
