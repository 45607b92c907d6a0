"""`gmpd demo --cpu-bound`: throughput, switches and memory when CPU-bound Gs outnumber Ps.

The same amount of work is cut into 1, 10 and 1000 times as many Gs as there are Ps. All Gs are
alive at once: each computes for a tenth of a millisecond, then yields (`gosched`). The number of
yields is the same in all three cases. The conclusion is derived from the measured numbers alone.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from gmpd.cli import demo_jobs
from gmpd.cli.private import private_client
from gmpd.errors import DaemonUnreachable
from gmpd.status import read

if TYPE_CHECKING:
    from gmpd.cli.app import App
    from gmpd.client.sync import Client

#: Gs per P.
TIMES = (1, 10, 1000)
#: Measurements of each; the cases alternate, and the medians are shown.
ROUNDS = 3
#: The work of a G between two yields. 1000 Gs with a second of work have ten turns each.
SLICE_S = 0.0001
#: The least turns for each G: work differs from case to case by rounding alone.
TURNS_MIN = 2
#: The interval at which memory is read during a case.
LOOK_S = 0.05
#: Throughputs this close are called equal: two runs of the same case differ by as much.
EQUAL = 0.05
#: Workers that had this share of their cores count as alone on them.
ALONE = 0.9
#: How long workers may take to start: enough for a very busy machine.
READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Run:
    """One case, once.

    ``work_s`` is the work done, in seconds by the calibration; ``cpu_s`` the CPU time of
    the workers' threads meanwhile. The switches are the kernel's counts of these threads.
    ``rss_bytes``: of all workers, at most.
    """

    gs: int
    alive: int
    seconds: float
    work_s: float
    cpu_s: float
    g_switches: int
    voluntary: int
    involuntary: int
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Case:
    """The medians of one case's runs.

    ``work_per_s``: throughput. ``work_per_cpu_s``: the same for the CPU time that the workers got,
    which other programs do not disturb. ``cores``: CPU time per second.
    """

    times: int
    gs: int
    alive: int
    work_per_s: float
    work_per_cpu_s: float
    cores: float
    g_switches_per_s: float
    voluntary_per_s: float
    involuntary_per_s: float
    rss_bytes: float


def case_of(times: int, runs: Sequence[Run]) -> Case:
    def median(values: Iterator[float]) -> float:
        return statistics.median(values)

    return Case(
        times=times,
        gs=runs[0].gs,
        alive=min(run.alive for run in runs),
        work_per_s=median(run.work_s / run.seconds for run in runs),
        work_per_cpu_s=median(run.work_s / run.cpu_s for run in runs),
        cores=median(run.cpu_s / run.seconds for run in runs),
        g_switches_per_s=median(run.g_switches / run.seconds for run in runs),
        voluntary_per_s=median(run.voluntary / run.seconds for run in runs),
        involuntary_per_s=median(run.involuntary / run.seconds for run in runs),
        rss_bytes=median(run.rss_bytes for run in runs),
    )


class Workers:
    """The kernel's figures of these processes, now."""

    def __init__(self, pids: Sequence[int]):
        self._pids = pids

    def rss_bytes(self) -> int:
        page = os.sysconf("SC_PAGE_SIZE")
        total = 0
        for pid in self._pids:
            with open(f"/proc/{pid}/statm") as statm:
                total += int(statm.read().split()[1]) * page
        return total

    def cpu_s(self) -> float:
        """CPU time so far, to a hundredth of a second."""
        ticks = 0
        for pid in self._pids:
            with open(f"/proc/{pid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def switches(self) -> tuple[int, int]:
        """Voluntary and involuntary ones, of all threads."""
        voluntary = involuntary = 0
        for pid in self._pids:
            for task in os.listdir(f"/proc/{pid}/task"):
                counts = _counts(f"/proc/{pid}/task/{task}/status")
                voluntary += counts.get("voluntary_ctxt_switches", 0)
                involuntary += counts.get("nonvoluntary_ctxt_switches", 0)
        return voluntary, involuntary


def _counts(path: str) -> dict[str, int]:
    """The lines of a task's status that count switches; none if it has just ended."""
    counts = {}
    try:
        with open(path) as status:
            for line in status:
                name, _, value = line.partition(":")
                if name.endswith("_ctxt_switches"):
                    counts[name] = int(value)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return counts


class Watch:
    """Reads the workers' memory while a case runs, and keeps the maximum."""

    def __init__(self, workers: Workers):
        self._workers = workers
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.rss_bytes = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            self.rss_bytes = max(self.rss_bytes, self._workers.rss_bytes())
            if self._over.wait(LOOK_S):
                return


def ready(client: Client) -> list[int]:
    """The process ids of all workers, once each is up: a late one would get less of the work."""
    deadline = time.monotonic() + READY_S
    while True:
        ps = read(client.call("status")).ps
        pids = [p.pid for p in ps if p.up and p.pid is not None]
        if len(pids) == len(ps):
            return pids
        if time.monotonic() > deadline:
            late = ", ".join(f"P{p.p}" for p in ps if not p.up)
            raise DaemonUnreachable(
                f"the worker of {late} is not ready after {READY_S:g} s: `gmpd doctor` may know why"
            )
        time.sleep(LOOK_S)


def measure(client: Client, times: int, work_s: float, round_s: float) -> Run:
    """One case: ``work_s`` seconds of work per P, cut into ``times`` Gs per P, which one job per P
    starts. ``round_s``: the duration of a round of work.
    """
    pids = ready(client)
    turns = max(TURNS_MIN, round(work_s / SLICE_S / times))
    rounds = max(1, round(SLICE_S / round_s))
    workers = Workers(pids)
    cpu_s, (voluntary, involuntary) = workers.cpu_s(), workers.switches()
    with Watch(workers) as watch:
        began = time.perf_counter()
        crowds = [client.submit(demo_jobs.crowd, times, turns, rounds) for _ in pids]
        wait(crowds)
        seconds = time.perf_counter() - began
    after = workers.switches()
    done, alive, switched = (sum(each) for each in zip(*(c.result() for c in crowds), strict=True))
    return Run(
        gs=times * len(pids),
        alive=alive,
        seconds=seconds,
        work_s=done * round_s,
        cpu_s=max(workers.cpu_s() - cpu_s, 0.01),
        g_switches=switched,
        voluntary=after[0] - voluntary,
        involuntary=after[1] - involuntary,
        rss_bytes=watch.rss_bytes,
    )


def conclusion(cases: Sequence[Case], procs: int) -> str:
    """One sentence that follows from the numbers, and from nothing else."""
    base, *others = cases
    alone = min(case.cores for case in cases) > ALONE * procs
    measured = {case.times: case.work_per_s if alone else case.work_per_cpu_s for case in cases}
    unit = "second" if alone else "second of CPU time (other programs used much of the cores)"
    best, most = max(others, key=lambda case: measured[case.times]), others[-1]
    gain = measured[best.times] / measured[base.times] - 1
    loss = 1 - measured[most.times] / measured[base.times]
    if gain > EQUAL:
        return (
            f"Here {best.gs:,} Gs computed {gain:.0%} more per {unit} than {base.gs:,}, one per P."
            " Equal work should not differ by this much: measure again."
        )
    same = f"{loss:.0%} less" if loss > EQUAL else "no more"
    memory = (most.rss_bytes - base.rss_bytes) / 1e6
    return (
        f"{most.gs:,} Gs computed {same} per {unit} than {base.gs:,}, one per P, and"
        f" changed memory by {memory:+.1f} MB: at most {procs} Gs compute at any time, and the"
        " others wait for their turn."
    )


def run(app: App, procs: int | None, work_s: float) -> None:
    """The command."""
    cases, procs = measure_all(app, procs, work_s)
    says = conclusion(cases, procs)
    if app.as_json:
        rows = [asdict(case) for case in cases]
        app.json({"procs": procs, "rounds": ROUNDS, "cases": rows, "conclusion": says})
        return
    for line in tell(cases, procs, work_s, says):
        app.data(line)


def measure_all(app: App, procs: int | None, work_s: float) -> tuple[list[Case], int]:
    """Every case ``ROUNDS`` times; the medians, and how many Ps there were.

    Each round has a fresh daemon, and the cases come in ascending order: memory that a case
    leaves in the workers is not counted as a smaller case's.
    """
    runs: dict[int, list[Run]] = {times: [] for times in TIMES}
    round_s = 0.0
    for number in range(ROUNDS):
        app.say(f"round {number + 1} of {ROUNDS}", level=1)
        with private_client(app, procs, ["gmpd.cli.demo_jobs"]) as client:
            procs = len(ready(client))
            round_s = round_s or client.submit(demo_jobs.calibrate).result()
            for times in TIMES:
                runs[times].append(measure(client, times, work_s, round_s))
    assert procs is not None
    return [case_of(times, runs[times]) for times in TIMES], procs


def tell(cases: Sequence[Case], procs: int, work_s: float, says: str) -> Iterator[str]:
    """The lines that people read, 80 columns wide."""
    yield (
        f"{work_s * procs:g} s of computing on {procs} P{'s' * (procs > 1)}, cut into more Gs each"
        f" time (medians of {ROUNDS} runs)\n"
    )
    heads = (
        f"{'':11}{'Gs':>8}{'work per second':>19}{'G':>11}{'thread switches/s':>18}{'memory':>12}"
    )
    yield click.style(heads, dim=True)
    more = ("", "at once", "of time", "of CPU", "switches/s", "voluntary", "forced", "of workers")
    yield click.style(_line(more), dim=True)
    for case in cases:
        yield _line((
            f"{case.times:,} x Ps", f"{case.alive:,}", f"{case.work_per_s:.2f} s",
            f"{case.work_per_cpu_s:.2f} s", f"{case.g_switches_per_s:,.0f}",
            f"{case.voluntary_per_s:,.0f}", f"{case.involuntary_per_s:,.0f}",
            f"{case.rss_bytes / 1e6:,.1f} MB",
        ))  # fmt: skip
    yield ""
    yield from click.wrap_text(says, 78).splitlines()


def _line(cells: Sequence[str]) -> str:
    widths = (11, 8, 11, 8, 11, 10, 8, 12)
    first, *rest = zip(cells, widths, strict=True)
    return first[0].ljust(first[1]) + "".join(cell.rjust(width) for cell, width in rest)
