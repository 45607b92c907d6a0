"""The cost of a switch between Gs, threads and processes, and the memory that each takes.

For `gmpd demo --walkthrough`: all are measured in one run, by the same means, on one core. Every
number is the median of some rounds and says how it was measured.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from _thread import allocate_lock
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from gmpd.errors import GmpdError
from gmpd.runtime.chan import Chan
from gmpd.runtime.go import go, gosched
from gmpd.runtime.loop import Loop

if TYPE_CHECKING:
    from gmpd.cli.app import App

#: Rounds of every timing; the median of few is steady enough for a table of orders of magnitude,
#: and takes a second in all.
ROUNDS = 15
#: Gs that take turns, and turns of each in a round.
GS, TURNS = 10, 2_000
#: Round trips between two threads, or two processes, in a round.
TRIPS = 1_000
#: Gs and threads that are parked to measure their memory.
PARKED_GS, PARKED_THREADS = 20_000, 200

ECHO = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
while byte := os.read(0, 1):
    os.write(1, byte)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """A median, in ``unit``, and how it was measured, in plain words.

    ``kernel_switches``: how often the kernel really switched for one of these, as it counts itself;
    None where that is meaningless.
    """

    what: str
    median: float
    unit: str
    rounds: int
    how: str
    kernel_switches: float | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """The two tables."""

    switches: list[Cost]
    memory: list[Cost]

    def with_worker(self, app: App) -> Costs:
        """Add the memory of a worker: of a private daemon with one P, started for this."""
        return replace(self, memory=[*self.memory, *worker_memory(app)])

    def lines(self) -> Iterator[str]:
        """The lines that people read, 80 columns wide; each row is compared with the first."""
        yield _heading("a switch from", "kernel switches")
        for row in self.switches:
            counted = row.kernel_switches
            yield _line(row, self.switches[0], "-" if counted is None else f"{counted:.2f}")
            yield click.style(f"  {row.how}", dim=True)
        yield _heading("memory of", "")
        for row in self.memory:
            yield _line(row, self.memory[0], "")
            yield click.style(f"  {row.how}", dim=True)


def _heading(what: str, last: str) -> str:
    return click.style(f"{what:<31}{'median':>11}{'':5}{'x first':>9}{last:>18}".rstrip(), dim=True)


def _line(row: Cost, first: Cost, last: str) -> str:
    ratio = row.median / first.median if first.median else 0
    numbers = f"{row.median:>11,.2f} {row.unit:<4}{ratio:>9,.1f}{last:>18}"
    return click.style(f"{row.what:<31}", bold=True) + numbers.rstrip()


def measure(core: int) -> Costs:
    """The costs inside this process, whose thread the caller has pinned to ``core``."""
    return Costs(
        switches=[g_switch(), thread_switch(), process_switch(core)],
        memory=[
            Cost("a parked G", g_memory_kb(), "kB", 1,
                 f"{PARKED_GS:,} wait on a channel: growth of resident memory, by Gs"),
            Cost("a parked thread", thread_memory_kb(), "kB", 1,
                 f"{PARKED_THREADS} wait for a lock: resident, page tables, kernel stack"),
        ],
    )  # fmt: skip


def _timed(what: str, how: str, once: Callable[[], float], switches: int) -> Cost:
    """``once`` makes this thread switch that many times, and returns the seconds of one switch."""
    once()  # warm
    before = _switches_of_thread()
    median = statistics.median(once() for _ in range(ROUNDS))
    counted = (_switches_of_thread() - before) / (ROUNDS * switches)
    return Cost(what, median * 1e6, "us", ROUNDS, how, round(counted, 4))


def _switches_of_thread() -> int:
    """Kernel switches away from this thread so far, asked for or not."""
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return used.ru_nvcsw + used.ru_nivcsw


def g_switch() -> Cost:
    """One `gosched` that hands P to another G."""

    async def turns() -> None:
        for _ in range(TURNS):
            await gosched()

    async def once() -> float:
        began = time.perf_counter()
        for g in [go(turns) for _ in range(GS)]:
            await g
        return (time.perf_counter() - began) / (GS * TURNS)

    how = f"{GS} Gs on one P take turns by gosched; time by turns"
    with asyncio.Runner(loop_factory=Loop) as runner:
        return _timed("G to G", how, lambda: runner.run(once()), GS * TURNS)


def thread_switch() -> Cost:
    """From one thread to the other, which includes handing over the interpreter lock."""
    mine, yours = allocate_lock(), allocate_lock()
    mine.acquire()
    yours.acquire()

    def partner() -> None:
        for _ in range(TRIPS):
            yours.acquire()
            mine.release()

    def once() -> float:
        thread = threading.Thread(target=partner)
        thread.start()
        began = time.perf_counter()
        for _ in range(TRIPS):
            yours.release()
            mine.acquire()
        took = time.perf_counter() - began
        thread.join()
        return took / (2 * TRIPS)

    how = "two threads, one core, two locks and the interpreter's; half a round trip"
    return _timed("thread to thread", how, once, TRIPS)


def process_switch(core: int) -> Cost:
    """From one process to the other, with one write and one read of a byte."""
    partner = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", ECHO, str(core)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert partner.stdin is not None
    assert partner.stdout is not None
    there, back = partner.stdin.fileno(), partner.stdout.fileno()

    def once() -> float:
        began = time.perf_counter()
        for _ in range(TRIPS):
            os.write(there, b".")
            if not os.read(back, 1):
                raise GmpdError("the partner process ended too early: was it killed? Try again")
        return (time.perf_counter() - began) / (2 * TRIPS)

    how = "two processes, one core, a byte through pipes; half a round trip"
    try:
        return _timed("process to process", how, once, TRIPS)
    finally:
        partner.communicate()  # its input ends, and so does it


def g_memory_kb() -> float:
    """Kilobytes (1000 bytes) of resident memory for one G that waits on a channel."""

    async def wait(ch: Chan[None]) -> None:
        await ch.recv_ok()

    async def weigh() -> float:
        ch = Chan[None]()
        gc.collect()
        before = resident_bytes()
        gs = [go(wait, ch) for _ in range(PARKED_GS)]
        while len(ch._recvq) < PARKED_GS:
            await gosched()
        grown = resident_bytes() - before
        ch.close()
        for g in gs:
            await g
        return grown / PARKED_GS / 1e3

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(weigh())


def thread_memory_kb() -> float:
    """Kilobytes for one Python thread that waits: the part of its stack and heap that it used,
    page tables, and its stack in the kernel.
    """
    stop, up = allocate_lock(), threading.Semaphore(0)

    def wait() -> None:
        up.release()
        with stop:
            pass

    threads = [threading.Thread(target=wait) for _ in range(PARKED_THREADS)]
    with stop:
        before = resident_bytes() + page_table_bytes()
        for thread in threads:
            thread.start()
        for _ in threads:
            up.acquire()
        grown = resident_bytes() + page_table_bytes() - before
    for thread in threads:
        thread.join()
    return (grown / PARKED_THREADS + kernel_stack_bytes()) / 1e3


def page_table_bytes() -> int:
    return 1024 * _field_kib("/proc/self/status", "VmPTE")


def kernel_stack_bytes() -> float:
    """Kernel stack of one thread: the machine's total divided by its number of threads, because
    the growth of the total would include other programs' threads. 0 where the kernel does not
    report it.
    """
    with open("/proc/loadavg") as loadavg:
        threads = int(loadavg.read().split()[3].partition("/")[2])
    return 1024 * _field_kib("/proc/meminfo", "KernelStack") / max(1, threads)


def resident_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _field_kib(path: str, name: str) -> int:
    with open(path) as file:
        for line in file:
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


def worker_memory(app: App) -> list[Cost]:
    """A worker that has run one small job, as the kernel accounts for it."""
    from gmpd.cli.private import private_client

    with private_client(app, 1) as client:
        pid = client.submit(os.getpid).result()
        rollup = f"/proc/{pid}/smaps_rollup"
        own, all_of_it = (_field_kib(rollup, name) * 1.024 for name in ("Pss", "Rss"))
    return [
        Cost("a process (a worker), its share", own, "kB", 1,
             "a fresh worker, PSS: pages shared with others count in part"),
        Cost("a process (a worker), resident", all_of_it, "kB", 1,
             "the same worker, RSS: shared pages count in full"),
    ]  # fmt: skip
