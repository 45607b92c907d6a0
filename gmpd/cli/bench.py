"""`gmpd bench`: this machine, with the standard library's pool beside, in one run."""

from __future__ import annotations

import operator
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, wait
from concurrent.futures import Future as StandardFuture
from dataclasses import asdict, dataclass
from typing import Any

import click

from gmpd.cli.app import App, standard

Submit = Callable[..., "StandardFuture[Any]"]


@dataclass(frozen=True)
class Row:
    """One measurement, for gmpd and its peer."""

    what: str
    unit: str
    gmpd: float
    peer: float

    @property
    def ratio(self) -> float:
        return self.gmpd / self.peer


def submit_rate(submit: Submit, jobs: int) -> float:
    """Jobs a second: submit no-ops with futures, and wait for all."""
    began = time.perf_counter()
    futures = [submit(operator.neg, n) for n in range(jobs)]
    wait(futures)
    rate = jobs / (time.perf_counter() - began)
    assert futures[-1].result() == 1 - jobs
    return rate


def map_rate(pool: Executor, items: int) -> float:
    """Items a second through `map` of a trivial function, in chunks of 100."""
    began = time.perf_counter()
    total = sum(pool.map(operator.neg, range(items), chunksize=100))
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


def measure(pool: Executor, peer: Executor, scale: float) -> list[Row]:
    """All of it, each with its peer right after it."""
    jobs, items, rounds = (max(100, int(n * scale)) for n in (10_000, 100_000, 500))
    for each in (pool, peer):
        submit_rate(each.submit, 500)  # workers started, function known
    return [
        Row("submit, no-ops", "jobs/s", submit_rate(pool.submit, jobs * 5),
            submit_rate(peer.submit, jobs)),
        Row("map, trivial", "items/s", map_rate(pool, items), map_rate(peer, items)),
        Row("round trip, median", "us", round_trip_us(pool.submit, rounds),
            round_trip_us(peer.submit, rounds)),
    ]  # fmt: skip


@click.command(short_help="Measure this machine, with peers beside.")
@click.option("--scale", type=click.FloatRange(0.001, 100), default=1.0, help="More or less work.")
@standard
def command(app: App, scale: float) -> None:
    """Measure submit, map and a round trip, beside ProcessPoolExecutor with as many workers.

    Ratios are gmpd's number by the peer's: for rates more is better, for times less.
    """
    from gmpd.client.executor import Executor as Pool
    from gmpd.cpus import read_facts

    procs = app.config().daemon.procs or read_facts().procs
    with Pool(procs) as pool, ProcessPoolExecutor(procs) as peer:
        rows = measure(pool, peer, scale)
    if app.as_json:
        app.json([{**asdict(row), "ratio": row.ratio} for row in rows])
        return
    app.data(f"{'':20} {'gmpd':>10} {'processes':>10}  ratio   ({procs} Ps, {procs} processes)")
    for row in rows:
        app.data(
            f"{row.what:20} {row.gmpd:>10,.0f} {row.peer:>10,.0f}  x{row.ratio:.2f}   {row.unit}"
        )
