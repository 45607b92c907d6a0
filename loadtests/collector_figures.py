"""Pauses of the garbage collector in a process with many parked Gs, with gmpd's bounds and bare.

    python loadtests/collector_figures.py [--gs 300000] [--output loadtests/results/collector.json]

Each measurement is a fresh process: it parks Gs on a channel, then makes short-lived garbage in
cycles, as jobs do. Times are CPU time, so that other work on the machine hardly counts. The
collectors of CPython differ between versions, so the script is run on each.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

#: Garbage in cycles that is made beside the parked Gs: enough for hundreds of young passes.
CYCLES = 300_000


class Pauses:
    """Every pass of the collector, in CPU time."""

    def __init__(self) -> None:
        self._began = 0
        self.longest_ns = self.total_ns = self.passes = self.full = 0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time_ns()
            return
        took = time.thread_time_ns() - self._began
        self.longest_ns = max(self.longest_ns, took)
        self.total_ns += took
        self.passes += 1
        self.full += info["generation"] == 2


def measure(gs: int, minded: bool) -> dict[str, Any]:
    """Park ``gs`` Gs and make garbage beside them, in this process."""
    import gmpd

    pauses = Pauses()

    async def main() -> None:
        channel = gmpd.Chan[int]()

        async def wait() -> None:
            await channel.recv()

        for number in range(gs):
            gmpd.go(wait)
            if not number % 1000:
                await gmpd.gosched()
        for number in range(CYCLES):
            cycle: list[Any] = [number]
            cycle.append(cycle)
            if not number % 1000:
                await gmpd.gosched()

    loop: Any = gmpd.new_event_loop()
    if minded:
        loop.manage_gc()
    gc.callbacks.append(pauses)
    try:
        loop.run_until_complete(main())
    finally:
        gc.callbacks.remove(pauses)
        loop.close()
    return {
        "longest_ms": round(pauses.longest_ns / 1e6, 2),
        "total_ms": round(pauses.total_ns / 1e6, 1),
        "passes": pauses.passes,
        "full": pauses.full,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gs", type=int, default=300_000)
    parser.add_argument("--output", type=Path, help="write the report there, as JSON")
    parser.add_argument("--one", choices=("minded", "bare"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.gs, args.one == "minded")), flush=True)
        import os

        os._exit(0)  # freeing what is parked is not measured
    report: dict[str, Any] = {"python": sys.version.split()[0], "gs": args.gs}
    report["threshold"] = gc.get_threshold()
    for kind in ("bare", "minded"):
        words = [sys.executable, __file__, "--one", kind, "--gs", str(args.gs)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        report[kind] = json.loads(done.stdout)
    print(json.dumps(report))
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
