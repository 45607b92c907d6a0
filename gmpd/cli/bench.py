"""`gmpd bench`: this machine, with the standard library's pools beside, in one run.

gmpd and its peer take turns, round by round, and the medians of the rounds are printed: on a
machine with other work, numbers that were measured one after the other cannot be compared.
"""

from __future__ import annotations

import multiprocessing
import operator
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import Future as StandardFuture
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from gmpd import compiled
from gmpd.cli.app import App, standard
from gmpd.cli.private import private_client
from gmpd.status import read

if TYPE_CHECKING:
    from gmpd.client.sync import Client

Submit = Callable[..., "StandardFuture[Any]"]

#: How long an idle daemon is watched for the CPU that it takes (s).
IDLE_S = 3.0

_FIRST_RESULT = """
import operator, time
began = time.perf_counter()
{start}
    assert pool.submit(operator.neg, 1).result() == -1
    print(time.perf_counter() - began)
"""
_GMPD = "import gmpd\nwith gmpd.Executor({procs}) as pool:"
_PROCESSES = (
    "from concurrent.futures import ProcessPoolExecutor\nwith ProcessPoolExecutor({procs}) as pool:"
)


@dataclass(frozen=True)
class Row:
    """One measurement, for gmpd and its peer: the medians, and the median of the rounds' ratios."""

    what: str
    unit: str
    peer_name: str
    gmpd: float
    peer: float
    ratio: float


@dataclass(frozen=True)
class Cost:
    """The resources that a daemon uses."""

    what: str
    unit: str
    gmpd: float


def submit_rate(submit: Submit, jobs: int) -> float:
    """Jobs a second: submit no-ops with futures, and wait for all."""
    began = time.perf_counter()
    futures = [submit(operator.neg, n) for n in range(jobs)]
    wait(futures)
    rate = jobs / (time.perf_counter() - began)
    assert futures[-1].result() == 1 - jobs
    return rate


def result_rate(submit: Submit, jobs: int) -> float:
    """Jobs a second: submit no-ops with futures, and take the results one by one."""
    began = time.perf_counter()
    futures = [submit(operator.neg, n) for n in range(jobs)]
    total = sum(future.result() for future in futures)
    rate = jobs / (time.perf_counter() - began)
    assert total == -jobs * (jobs - 1) // 2
    return rate


def map_rate(run: Callable[..., Iterable[int]], items: int) -> float:
    """Items a second through ``map`` of a trivial function."""
    began = time.perf_counter()
    total = sum(run(operator.neg, range(items)))
    rate = items / (time.perf_counter() - began)
    assert total == -items * (items - 1) // 2
    return rate


def round_trip_us(submit: Submit, rounds: int) -> float:
    """The median time of one job from submit to result, in µs."""
    times = []
    for n in range(rounds):
        began = time.perf_counter()
        submit(operator.neg, n).result()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def alternate(
    what: str, unit: str, peer_name: str, rounds: int, ours: Callable[[], float],
    theirs: Callable[[], float],
) -> Row:  # fmt: skip
    """Both in turns; the first of each is not counted."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return Row(
        what,
        unit,
        peer_name,
        statistics.median(mine for mine, _ in pairs),
        statistics.median(peer for _, peer in pairs),
        statistics.median(mine / peer for mine, peer in pairs),
    )


def measure(client: Client, procs: int, scale: float, rounds: int) -> list[Row]:
    """Rates and times, each beside its peer."""
    jobs, items, trips = (max(100, int(n * scale)) for n in (10_000, 1_000_000, 500))
    rows = []
    with ProcessPoolExecutor(procs) as peer:
        name = "ProcessPoolExecutor"
        rates = (("submit, then wait", submit_rate), ("submit, then results", result_rate))
        for what, rate in rates:
            ours = partial(rate, client.submit, jobs * 5)
            rows.append(
                alternate(what, "jobs/s", name, rounds, ours, partial(rate, peer.submit, jobs))
            )
        rows.append(
            alternate(
                "round trip, median", "us", name, rounds,
                partial(round_trip_us, client.submit, trips),
                partial(round_trip_us, peer.submit, trips),
            )
        )  # fmt: skip
    with multiprocessing.Pool(procs) as pool:
        rows.append(
            alternate(
                "map, trivial", "items/s", "Pool.map", rounds,
                partial(map_rate, client.map, items), partial(map_rate, pool.map, items),
            )
        )  # fmt: skip
    return rows


def first_result(procs: int, rounds: int) -> Row:
    """Seconds from nothing to the first result: no daemon runs, one is started and ended."""
    return alternate(
        "start to first result", "s", "ProcessPoolExecutor", rounds,
        partial(_first, _GMPD, procs), partial(_first, _PROCESSES, procs),
    )  # fmt: skip


def _first(start: str, procs: int) -> float:
    program = _FIRST_RESULT.format(start=start.format(procs=procs))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def costs(client: Client, idle_s: float) -> list[Cost]:
    """Memory of the daemon's processes, and the CPU that they take when nothing is to be done."""
    status = read(client.call("status"))
    pids = [status.pid, *(p.pid for p in status.ps if p.pid is not None)]
    before = sum(map(_cpu_s, pids))
    time.sleep(idle_s)  # what is measured is what happens meanwhile
    idle = sum(map(_cpu_s, pids)) - before
    page_mb = resource.getpagesize() / 1e6
    rss = [_resident(pid) * page_mb for pid in pids]
    return [
        Cost("coordinator, resident", "MB", rss[0]),
        Cost("worker, resident", "MB", max(rss[1:])),
        Cost("idle, all processes", "% of one core", idle / idle_s * 100),
    ]


def _cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
        return int(file.read().split()[0]) / 1e9


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1])


@click.command(short_help="Measure gmpd beside the standard library's pools.")
@click.option(
    "--scale", type=click.FloatRange(0.001, 100), default=1.0, metavar="X", show_default=True,
    help="A factor for the amount of work.",
)  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=5, metavar="N", show_default=True,
    help="Turns of each.",
)  # fmt: skip
@standard
def command(app: App, scale: float, rounds: int) -> None:
    """Measure submit, round trip, map and start, beside the standard library's pools with as many
    workers, and what the daemon takes.

    Ratios are gmpd's number by the peer's: for rates more is better, for times less.
    """
    from gmpd.client.hints import PerformanceHint
    from gmpd.cpus import read_facts

    warnings.simplefilter("ignore", PerformanceHint)  # small calls are what is measured
    variant = compiled.variant()
    procs = app.config().daemon.procs or read_facts().procs
    with private_client(app, procs) as client:
        rows = measure(client, procs, scale, rounds)
        taken = costs(client, min(IDLE_S, IDLE_S * scale))
    rows.append(first_result(procs, min(rounds, 3)))
    if app.as_json:
        app.json(
            [row | {"variant": variant.name} for row in (*map(asdict, rows), *map(asdict, taken))]
        )
        return
    app.data(f"{procs} Ps beside as many processes; medians of {rounds:,} turns of each; {variant}")
    app.data(f"{'':22} {'gmpd':>12} {'peer':>12}   ratio")
    for row in rows:
        app.data(
            f"{row.what:22} {_number(row.gmpd):>12} {_number(row.peer):>12}  x{row.ratio:<7.2f}"
            f" {row.unit}"
        )
    for cost in taken:
        app.data(f"{cost.what:22} {_number(cost.gmpd):>12} {'':12}  {'':8} {cost.unit}")
    usual, *others = dict.fromkeys(row.peer_name for row in rows)
    peers = [f"{row.peer_name} for `{row.what}`" for row in rows if row.peer_name in others]
    app.data(f"the peer: {'; '.join([usual, *peers])}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
