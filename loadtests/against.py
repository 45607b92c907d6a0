"""This version beside an earlier one, boot by boot in turn: CPU time of each process, wall time.

    python loadtests/against.py EARLIER_PYTHON --record

``EARLIER_PYTHON`` is the interpreter of a virtual environment with the earlier version; the one
that runs this script has the new one. A boot is a private daemon and its client; each figure of it
is the lower quartile of some rounds. Reported are the medians over the boots of a version, and the
median of the ratios of two boots that follow each other: the load of a machine may change during
the run, and then the medians belong to different loads. CPU time is without ZeroMQ's own threads,
which do the same in both.
"""

from __future__ import annotations

import argparse
import asyncio
import glob
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "against.json"

PARTS = ("wall", "client", "coordinator", "workers")

#: One boot: of each figure the ``PARTS``, in microseconds for each operation.
Boot = dict[str, list[float]]

#: What is done in one boot: what it is called, operations of a round, rounds.
FIGURES = {
    "round trip": (200, 20),
    "submit, then results": (5_000, 10),
    "30 at a time": (900, 8),
    "coroutines": (3_000, 6),
    "map": (300_000, 8),
}


def cpu_us(pid: int) -> float:
    """CPU time of a process so far, without ZeroMQ's threads."""
    ns = 0
    for thread in glob.glob(f"/proc/{pid}/task/*/"):
        try:
            if not Path(thread, "comm").read_text().startswith("ZMQ"):
                ns += int(Path(thread, "schedstat").read_text().split()[0])
        except OSError:  # it has ended
            continue
    return ns / 1e3


def doing(client: Any) -> dict[str, Callable[[int], object]]:
    """``FIGURES`` as functions of the number of operations."""

    def round_trips(n: int) -> None:
        for _ in range(n):
            client.submit(math.sqrt, 4.0).result()

    def submit(n: int, fn: Any = math.sqrt, arg: float = 4.0) -> None:
        for future in [client.submit(fn, arg) for _ in range(n)]:
            future.result()

    def by_thirties(n: int) -> None:
        for _ in range(n // 30):
            submit(30)

    functions = (
        round_trips,
        submit,
        by_thirties,
        lambda n: submit(n, asyncio.sleep, 0),
        lambda n: sum(client.map(abs, range(n))),
    )
    return dict(zip(FIGURES, functions, strict=True))


def one_boot() -> Boot:
    """Microseconds for each operation: ``PARTS`` of each figure."""
    import gmpd  # of the interpreter that runs this: one of two versions

    found = {}
    with gmpd.Client() as client:
        status = client.call("status")
        coordinator, workers = status["pid"], [p["pid"] for p in status["ps"]]
        for what, run in doing(client).items():
            n, rounds = FIGURES[what]
            run(n)
            columns: list[list[float]] = [[], [], [], []]
            for _ in range(rounds):
                before = [*map(cpu_us, (coordinator, *workers))]
                began, own = time.perf_counter(), time.process_time()
                run(n)
                wall, own = time.perf_counter() - began, time.process_time() - own
                after = [*map(cpu_us, (coordinator, *workers))]
                spent = [us - us0 for us, us0 in zip(after, before, strict=True)]
                row = (wall * 1e6, own * 1e6, spent[0], sum(spent[1:]))
                for column, us in zip(columns, row, strict=True):
                    column.append(us / n)
            found[what] = [statistics.quantiles(column, n=4)[0] for column in columns]
    return found


def compared(before: list[Boot], after: list[Boot]) -> dict[str, dict[str, dict[str, float]]]:
    """Boots of two versions, pair by pair: for each part of each figure medians and the ratio."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for what in before[0]:
        rows[what] = {}
        for i, part in enumerate(PARTS):
            was, now = ([boot[what][i] for boot in boots] for boots in (before, after))
            ratios = [new / old for old, new in zip(was, now, strict=True)]
            rows[what][part] = {
                "before": statistics.median(was),
                "after": statistics.median(now),
                "ratio": statistics.median(ratios),
            }
    return rows


def measure(earlier: str, boots: int) -> dict[str, Any]:
    """Boots of both versions in turn, each the first of every second pair."""
    from loadtests import machine

    described = machine.describe()
    pythons = [earlier, sys.executable]
    seen: dict[str, list[Boot]] = {python: [] for python in pythons}
    for boot in range(boots):
        for python in pythons if boot % 2 else reversed(pythons):
            done = subprocess.run(
                [python, __file__, "--one"], stdout=subprocess.PIPE, check=True, text=True
            )
            seen[python].append(json.loads(done.stdout))
    return {"machine": described, "boots": boots, "rows": compared(*seen.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("earlier", nargs="?", help="the Python of the earlier version")
    parser.add_argument("--boots", type=int, default=12)
    parser.add_argument("--record", action="store_true", help=f"write results/{RESULTS.name}")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one_boot()))
        return
    if args.earlier is None:
        parser.error("name the Python of the earlier version")
    text = json.dumps(measure(args.earlier, args.boots), indent=1) + "\n"
    if args.record:
        RESULTS.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    if "--one" not in sys.argv:  # else gmpd is that of the interpreter, not of this directory
        sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
