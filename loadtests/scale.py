"""The cost of a job as each number grows: jobs, workers, Gs, clients, and the size of a payload.

    python loadtests/scale.py --record            # about 8 minutes, and it draws the picture
    python loadtests/scale.py --quick             # about 1: smaller numbers
    python loadtests/scale.py --only workers      # one part; with --record the others stay

Each part starts private daemons of its own. Costs are CPU time of the kernel's own count, in
microseconds for a job, of client, coordinator and workers, so that other work on the machine, and
more workers than cores, change them little. ZeroMQ's threads are part of their processes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path[0:0] = [str(Path(__file__).parents[1])]

import gmpd  # noqa: E402 - found from the line above
from gmpd.client.discovery import Target  # noqa: E402
from gmpd.client.hints import PerformanceHint  # noqa: E402
from gmpd.client.private import PrivateDaemon  # noqa: E402
from gmpd.compiled import variant  # noqa: E402
from gmpd.config import Config  # noqa: E402
from loadtests import jobs, machine, million_jobs, scale_plot  # noqa: E402
from loadtests.peers.processes import cpu_s  # noqa: E402
from loadtests.peers.tasks import echo  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "scale.json"
Row = dict[str, Any]

#: Jobs in flight while more are submitted.
WINDOW = 50_000
JOBS = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
WORKERS = (1, 2, 4, 8, 16, 32, 64)
GS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
CLIENTS = (1, 5, 20, 50, 100, 200, 500)
SIZES = (1_000, 16_000, 256_000, 4_000_000, 64_000_000)
#: The job of the sentence about saturation (seconds).
TYPICAL_JOB_S = 0.001


class Costs:
    """CPU time of client, coordinator and workers since it was made."""

    def __init__(self, client: gmpd.Client) -> None:
        status = client.call("status")
        workers = [p["pid"] for p in status["ps"]]
        self.pids = {"client": [os.getpid()], "coordinator": [status["pid"]], "workers": workers}
        self.before = {who: cpu_s(pids) for who, pids in self.pids.items()}
        self.began = time.perf_counter()

    def each(self, n: int) -> Row:
        """Microseconds for each of ``n``."""
        seconds = time.perf_counter() - self.began
        row: Row = {"wall_us": seconds / n * 1e6}
        for who, pids in self.pids.items():
            after = cpu_s(pids)
            spent = sum(after[pid] - self.before[who][pid] for pid in after)
            row[f"{who}_us"] = spent / n * 1e6
        return row


@contextmanager
def daemon(procs: int | None = None, imports: tuple[str, ...] = ()) -> Iterator[gmpd.Client]:
    """A client with a daemon of its own, whose workers are ready."""
    changes: Row = {"daemon.imports": imports}
    if procs is not None:
        changes["daemon.procs"] = procs
    config = Config().override(changes)
    private = PrivateDaemon(config)
    with gmpd.Client(target=Target.of(private.endpoint, config, private)) as client:
        ends = time.monotonic() + 120
        while any(
            p["pid"] is None or p["state"] == "starting" for p in client.call("status")["ps"]
        ):
            if time.monotonic() > ends:
                raise TimeoutError("the workers are not ready")
            time.sleep(0.1)
        flow(client, 2_000)
        yield client


def _all_ready(client: gmpd.Client) -> bool:
    ps = client.call("status")["ps"]
    return not any(p["pid"] is None or p["state"] == "starting" for p in ps)


def flow(client: gmpd.Client, n: int) -> None:
    """``n`` no-ops, each submitted by itself, with ``WINDOW`` of them in flight."""
    flying: deque[Any] = deque()
    for number in range(n):
        if len(flying) >= WINDOW:
            flying.popleft().result()
        flying.append(client.submit(jobs.short, number))
    while flying:
        flying.popleft().result()


def resident_mb(pids: list[int]) -> float:
    """Of all of them."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def repeated(client: gmpd.Client, n: int, times: int) -> Row:
    """The medians for each of ``n`` no-ops, and the coordinator's memory after them."""
    repeats = []
    for _ in range(times):
        costs = Costs(client)
        flow(client, n)
        repeats.append(costs.each(n))
    memory_mb = resident_mb(Costs(client).pids["coordinator"])
    return _medians(repeats) | {"coordinator_mb": memory_mb}


def by_jobs(scale: float) -> list[Row]:
    """One daemon each; memory of the coordinator is that at the end."""
    rows = []
    for n in JOBS:
        if n > 10_000_000 * scale:
            break
        with daemon() as client:
            row = repeated(client, n, max(1, min(5, 200_000 // n))) | {"jobs": n}
        rows.append(_told("jobs", row))
    return rows


def by_workers(scale: float) -> list[Row]:
    """No-ops: what the coordinator takes for a job, and for a worker that has nothing to do."""
    rows = []
    n = int(40_000 * max(0.1, scale))
    for procs in WORKERS:
        if procs > 64 * max(0.25, scale):
            break
        with daemon(procs) as client:
            flow(client, n)
            row = repeated(client, n, 3)
            time.sleep(1.0)  # what follows the last jobs is not rest
            idle = Costs(client)
            time.sleep(2.0)
            at_rest = idle.each(1)
            row |= {
                "workers": procs,
                "jobs_per_s": 1e6 / row["wall_us"],
                "saturates_at_jobs_per_s": 1e6 / row["coordinator_us"],
                "saturates_at_ps": 1e6 / row["coordinator_us"] * TYPICAL_JOB_S,
                "idle_coordinator_us_per_s": at_rest["coordinator_us"] / 2,
                "idle_worker_us_per_s": at_rest["workers_us"] / 2 / procs,
            }
        rows.append(_told("workers", row))
    return rows


def by_gs(scale: float) -> list[Row]:
    """One P; Gs that receive from a channel, and a short job beside them."""
    rows = []
    for n in GS:
        if n > 1_000_000 * scale:
            break
        with daemon(1, ("loadtests.million_jobs",)) as client:
            costs = Costs(client)
            events = client.stream(million_jobs.park, n, None)
            parked = next(events)
            spent = costs.each(n)
            time.sleep(min(3.0, n / 200_000))  # the collector's work of the last ones is over
            pings = [_ping(client) for _ in range(200)]
            client.submit(million_jobs.close_gate).result(timeout=120)
            woken = next(events)
            list(events)
        row = {
            "gs": n,
            "spawn_us": parked["spawn_and_park_s"] / n * 1e6,
            "worker_us": spent["workers_us"],
            "bytes_per_g": parked["bytes_per_g"],
            "wake_us": woken["wake_s"] / n * 1e6,
            "short_job_p50_ms": statistics.median(pings) * 1e3,
            "short_job_p99_ms": sorted(pings)[len(pings) * 99 // 100] * 1e3,
        }
        rows.append(_told("gs", row))
    return rows


def _ping(client: gmpd.Client) -> float:
    began = time.perf_counter()
    client.submit(jobs.short, 1).result()
    return time.perf_counter() - began


def by_clients(scale: float) -> list[Row]:
    """Clients of one process, each with a connection of its own, and ten jobs in flight each."""
    rows = []
    for n in CLIENTS:
        if n > 500 * max(0.1, scale):
            break
        with daemon() as client:
            row = asyncio.run(_clients(client, n, int(20_000 * max(0.1, scale))))
        rows.append(_told("clients", row))
    return rows


async def _clients(client: gmpd.Client, n: int, total: int) -> Row:
    each = max(20, total // n)
    times: list[float] = []
    made = [gmpd.AsyncClient(client.endpoint) for _ in range(n)]

    async def work(one: gmpd.AsyncClient) -> None:
        limit = asyncio.Semaphore(10)

        async def job(number: int) -> None:
            async with limit:
                began = time.perf_counter()
                await one.submit(jobs.short, number)
                times.append(time.perf_counter() - began)

        await asyncio.gather(*[job(number) for number in range(each)])

    began = time.perf_counter()
    for one in made:
        await one.__aenter__()
    connected = time.perf_counter() - began
    await asyncio.gather(*[one.submit(jobs.short, 1) for one in made])
    costs = Costs(client)
    await asyncio.gather(*[work(one) for one in made])
    row = costs.each(each * n)
    memory = resident_mb(costs.pids["coordinator"])
    for one in made:
        await one.__aexit__(None, None, None)
    times.sort()
    return row | {
        "clients": n,
        "jobs_per_s": 1e6 / row["wall_us"],
        "p50_ms": times[len(times) // 2] * 1e3,
        "p99_ms": times[len(times) * 99 // 100] * 1e3,
        "connect_ms": connected / n * 1e3,
        "coordinator_mb": memory,
    }


def by_size(scale: float) -> list[Row]:
    """An argument that comes back: bytes and an array of NumPy, four in flight."""
    import numpy

    rows = []
    with daemon() as client:
        for size in SIZES:
            if size > 64_000_000 * max(0.1, scale):
                break
            row: Row = {"bytes": size}
            n = max(8, min(2_000, int(1_000_000_000 * max(0.1, scale) / size)))
            values = {"bytes": os.urandom(size), "numpy": numpy.arange(size // 8, dtype="float64")}
            for kind, value in values.items():
                _echoes(client, value, 8)
                costs = Costs(client)
                _echoes(client, value, n)
                spent = costs.each(n)
                row |= {f"{kind}_{key}": us for key, us in spent.items()}
                row[f"{kind}_mb_per_s"] = size / spent["wall_us"]
            rows.append(_told("bytes", row))
    return rows


def _echoes(client: gmpd.Client, value: object, n: int) -> None:
    flying: deque[Any] = deque()
    for _ in range(n):
        if len(flying) >= 4:
            flying.popleft().result()
        flying.append(client.submit(echo, value))
    while flying:
        flying.popleft().result()


def _medians(rows: list[Row]) -> Row:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def _told(what: str, row: Row) -> Row:
    row = {
        key: value if isinstance(value, int) else float(f"{value:.4g}")
        for key, value in row.items()
    }
    told = ", ".join(f"{key} {value:,}" for key, value in row.items() if key != what)
    print(f"{what} {row[what]:,}: {told}", file=sys.stderr, flush=True)
    return row


PARTS: dict[str, Callable[[float], list[Row]]] = {
    "jobs": by_jobs,
    "workers": by_workers,
    "gs": by_gs,
    "clients": by_clients,
    "payloads": by_size,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the largest numbers")
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    args = parser.parse_args()
    warnings.simplefilter("ignore", PerformanceHint)  # small jobs are what is measured
    scale = 0.05 if args.quick else 1.0
    found: dict[str, Any] = {}
    if RESULTS.exists() and set(args.only) < set(PARTS):
        found = json.loads(RESULTS.read_text())
    found |= {"machine": machine.describe(), "quick": args.quick, "variant": str(variant())}
    seconds = found.setdefault("seconds", {})
    for name in args.only:
        began = time.monotonic()
        found[name] = PARTS[name](scale)
        seconds[name] = round(time.monotonic() - began)
    found["load_after"] = round(os.getloadavg()[0], 1)
    print(f"{sum(seconds.values()):,} s: {seconds}", file=sys.stderr)
    if args.record:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        try:
            scale_plot.draw(found, scale_plot.PICTURE)
        except ImportError:
            print("no picture: pip install '.[load]' first", file=sys.stderr)


if __name__ == "__main__":
    main()
